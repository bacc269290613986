"""What users see of the regularity certificate: a report that names their constraints and variables."""

from __future__ import annotations

import dataclasses
import re
import weakref
from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.canonicalize import ParametricProgram
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.regularity import Certificate, Interface, certify

__all__ = ["Labels", "RegularityReport", "examine", "examine_problem"]

# The owner of rows that no constraint of the user has, and what a report calls them.
_OBJECTIVE = "the objective"
_SPOKEN = {_OBJECTIVE: "nonsmooth terms of the objective", "auxiliary variables": "variables that CVXPY added"}
# Names that CVXPY makes up.
_MADE_UP = re.compile(r"\b(var|param)\d+\b")
_REMEDIES = (
    "Remedies: tighten or drop a redundant constraint; make the objective strongly convex (add a small quadratic "
    "term); or choose a derivative that is defined anyway: derivative=Smoothed(mu), LeastSquares() or "
    "LagrangianProximal(tau)."
)


@dataclasses.dataclass(frozen=True, eq=False)
class RegularityReport:
    """Whether the implicit function theorem holds at the solutions of a batch.

    Tensors have the batch shape, without axes for an unbatched problem.

    Attributes:
        regular: Bool: the theorem holds, every element of the Clarke Jacobian is invertible (at all points of the
            neighbourhood, if a radius was given).
        decided: Bool: whether that answer is certain at the accuracy of the solution. `regular` always is.
        sigma_dual: Smallest singular value of the active constraints' gradients: 0 where they are linearly dependent,
            so that multipliers are not unique. Units are scaled away; infinity without active constraints.
        sigma_primal: Smallest singular value of objective curvature and strongly active constraints together: 0 where
            they leave a variable undetermined to first order.
        margin: Distance of v = y - s to the nearest kink.
        weakly_active: For each constraint that is weakly active somewhere in the batch (active with a multiplier of
            zero, or within the radius of that), by its label: bool, where.
        dependent: Constraints in a linear dependency that makes `sigma_dual` vanish, by label: bool, where.
        undetermined: Variables that `sigma_primal` finds undetermined, by name: bool, where. "auxiliary variables" are
            those that CVXPY introduced.
        radius: The radius asked for.
    """

    regular: Tensor
    decided: Tensor
    sigma_dual: Tensor
    sigma_primal: Tensor
    margin: Tensor
    weakly_active: Mapping[str, Tensor]
    dependent: Mapping[str, Tensor]
    undetermined: Mapping[str, Tensor]
    radius: float = 0.0

    def explain(self) -> str:
        """Return the findings in plain words: what fails and what to do, or that all is well and what is at a kink."""
        if bool(self.regular.all()):
            return " ".join([self._all_is_well(), *self._kinks()])
        failed = torch.nonzero(~self.regular.reshape(-1))[:, 0].tolist()
        certain = bool(self.decided.reshape(-1)[failed].all())
        what = "does not hold" if certain else "could not be verified"
        lines = [f"The implicit function theorem {what} at {_places(self.regular)}."]
        if self.dependent:
            lines.append(
                f"Linearly dependent where active: {_listed(self.dependent)}. Their multipliers are not unique; "
                "gradients of dual variables are not defined, and those of the solution may hold on one side only. "
                f"{_about_dependent(self.dependent)}"
            )
        if self.undetermined:
            lines.append(
                f"Not determined to first order: {_listed(self.undetermined)}. Objective and strongly active "
                "constraints leave a direction free; the gradient returned is one choice among many. Add a small "
                "quadratic term, + eps * cp.sum_squares(x), in what is not determined."
            )
        weak = {name: where for name, where in self.weakly_active.items() if bool((where & ~self.regular).any())}
        if weak:
            lines.append(f"Weakly active (on the border between active and inactive): {_listed(weak)}.")
        shown = {**self.dependent, **self.undetermined, **weak}
        return " ".join([*lines, *_how_to_name(shown), _REMEDIES])

    def _all_is_well(self) -> str:
        where = f" within {self.radius:g} of the solution" if self.radius else ""
        return f"Regular{where}: derivatives of all {self.regular.numel()} item(s) may be trusted."

    def _kinks(self) -> list[str]:
        """What lies on a kink, and how near it is."""
        if not self.weakly_active:
            return []
        count = int(torch.stack([*self.weakly_active.values()]).any(0).sum())
        nearest = float(self.margin.min())
        where = "there" if self.regular.dim() == 0 else f"at {count} of {self.regular.numel()} items"
        return [
            f"On a kink {where} (margin {nearest:.1g}), weakly active: {_listed(self.weakly_active)}. The derivative "
            "is one of several there, all of them bounded; extreme_jacobians lists them and one_sided_derivative gives "
            "the one ahead.",
            *_how_to_name(self.weakly_active),
        ]

    def __str__(self) -> str:
        return self.explain()


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """How to speak of a programme's rows and columns to its user.

    Attributes:
        interface: What of the programme belongs to the user.
        constraints: Names of constraints.
        rows: Index into `constraints` of each row, (m,).
        variables: Names of variables.
        columns: Index into `variables` of each column, -1 for the last, (n,).
    """

    interface: Interface
    constraints: tuple[str, ...]
    rows: np.ndarray
    variables: tuple[str, ...]
    columns: np.ndarray

    @classmethod
    def of_problem(cls, parametric: ParametricProgram) -> Labels:
        """Constraints by their CVXPY labels, variables by their names; made once per problem."""
        if parametric not in _labels:
            _labels[parametric] = cls._of_problem(parametric)
        return _labels[parametric]

    @classmethod
    def _of_problem(cls, parametric: ParametricProgram) -> Labels:
        P, q, A, b = (
            sp.csr_array(part.map.matrix[:, :-1]) for part in (parametric.P, parametric.q, parametric.A, parametric.b)
        )
        owners, duals = parametric.owners, [dual.matrix for dual in parametric.provenance.duals]
        reads = sp.csr_array(sp.vstack(duals)) if duals else sp.csr_array((0, parametric.structure.m))
        interface = Interface(parametric.structure, owners.columns >= 0, reads, P, q, A, b, parametric.hermitian_blocks)
        names = (*owners.variables, "auxiliary variables")
        return cls(interface, owners.constraints, owners.rows, names, owners.columns)

    @classmethod
    def of_cones(cls, structure: ConeStructure) -> Labels:
        """Constraints by their cones, variables by their places in x; everything belongs to the user."""
        cones, offsets = structure.cone.cones, structure.cone.offsets
        rows = np.repeat(np.arange(len(cones)), np.diff(offsets))
        constraints = tuple(f"cone {i}: {cone!r}" for i, cone in enumerate(cones))
        variables = tuple(f"x[{j}]" for j in range(structure.n))
        return cls(Interface.everything(structure), constraints, rows, variables, np.arange(structure.n))


_labels: weakref.WeakKeyDictionary[ParametricProgram, Labels] = weakref.WeakKeyDictionary()


def examine_problem(
    parametric: ParametricProgram,
    program: ConeProgram,
    solution: ConeSolution,
    batch_shape: torch.Size,
    radius: float = 0.0,
) -> RegularityReport:
    """`examine` for programmes of a CVXPY problem."""
    return examine(Labels.of_problem(parametric), program, solution, batch_shape, radius)


def examine(
    labels: Labels, program: ConeProgram, solution: ConeSolution, batch_shape: torch.Size, radius: float = 0.0
) -> RegularityReport:
    """Certify a solved batch and translate the result to the user's constraints and variables."""
    certificate = _expanded(certify(program, solution, radius=radius, interface=labels.interface), batch_shape)
    return RegularityReport(
        certificate.regular,
        certificate.decided,
        certificate.sigma_dual,
        certificate.sigma_primal,
        certificate.margin,
        _by_owner(certificate.weak, labels.rows, labels.constraints),
        _by_owner(certificate.dependent, labels.rows, labels.constraints),
        _by_owner(certificate.undetermined, labels.columns, labels.variables),
        radius,
    )


def _expanded(certificate: Certificate, batch_shape: torch.Size) -> Certificate:
    """All batch axes of the parameters, also those that the programme does not depend on."""
    depth = certificate.regular.dim()
    values = {f.name: getattr(certificate, f.name) for f in dataclasses.fields(certificate)}
    return Certificate(**{name: t.expand((*batch_shape, *t.shape[depth:])) for name, t in values.items()})


def _by_owner(marks: Tensor, owner: np.ndarray, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Marks (*batch, size) gathered by owner; owners without a mark are left out."""
    found = {}
    for index in np.unique(owner[marks.reshape(-1, marks.shape[-1]).any(0).numpy()]):
        found[names[index]] = marks[..., torch.as_tensor(np.flatnonzero(owner == index))].any(-1)
    return found


def _places(regular: Tensor) -> str:
    """The items that are not regular, in words."""
    if regular.dim() == 0:
        return "the solution"
    failed = torch.nonzero(~regular).tolist()
    shown = ", ".join(str(tuple(i) if len(i) > 1 else i[0]) for i in failed[:8])
    more = f" and {len(failed) - 8} more" if len(failed) > 8 else ""
    return f"{len(failed)} of {regular.numel()} batch items ({shown}{more})"


def _listed(names: Mapping[str, Tensor]) -> str:
    shown = [f"'{_SPOKEN.get(name, name)}'" for name in names][:6]
    return ", ".join(shown) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _about_dependent(names: Mapping[str, Tensor]) -> str:
    """What to do about these dependent constraints."""
    if _OBJECTIVE in names:
        return (
            "Terms of the objective such as abs, max or norm are at a kink that the constraints hold them on: replace "
            "them by smooth ones (huber in place of abs), or drop constraints that repeat them."
        )
    if len(names) == 1:
        return "Its own rows repeat each other, or other rows of it: drop those that say nothing new."
    return "Drop, or loosen, the one that the others imply."


def _how_to_name(names: Mapping[str, Tensor]) -> list[str]:
    """How to get better names, where CVXPY made them up."""
    if not any(_MADE_UP.search(name) for name in names):
        return []
    return ['(For names of your own: constraint.set_label("budget"), cp.Variable(name="w"), cp.Parameter(name="mu").)']

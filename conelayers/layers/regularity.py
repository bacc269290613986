"""What users see of the regularity certificate: a report, a policy for training, and a record of kink margins."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.canonicalize import ParametricProgram
from conelayers.errors import RegularityError, RegularityWarning
from conelayers.program import ConeProgram, ConeSolution
from conelayers.residual.regularity import Certificate, Interface, certify, kink_margin, suspicious

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from conelayers.layers.cvxpy_layer import CvxpyLayer

__all__ = ["MarginHistory", "RegularityPolicy", "RegularityReport", "enforce", "examine"]

RegularityPolicy = Literal["ignore", "warn", "raise"]

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
        """The findings in plain words, with remedies where something fails."""
        count = self.regular.numel()
        if bool(self.regular.all()):
            where = f" within {self.radius:g} of the solution" if self.radius else ""
            return f"Regular{where}: derivatives of all {count} item(s) may be trusted."
        failed = torch.nonzero(~self.regular.reshape(-1))[:, 0].tolist()
        certain = bool(self.decided.reshape(-1)[failed].all())
        what = "does not hold" if certain else "could not be verified"
        lines = [f"The implicit function theorem {what} at {_places(self.regular)}."]
        if self.dependent:
            lines.append(
                f"Linearly dependent where active: {_listed(self.dependent)}. Their multipliers are not unique; "
                "gradients of dual variables are not defined, and those of the solution may hold on one side only."
            )
        if self.undetermined:
            lines.append(
                f"Not determined to first order: {_listed(self.undetermined)}. Objective and strongly active "
                "constraints leave a direction free; the gradient returned is one choice among many."
            )
        weak = {name: where for name, where in self.weakly_active.items() if bool((where & ~self.regular).any())}
        if weak:
            lines.append(f"Weakly active (on the border between active and inactive): {_listed(weak)}.")
        return " ".join([*lines, _REMEDIES])

    def __str__(self) -> str:
        return self.explain()


def examine(
    parametric: ParametricProgram,
    program: ConeProgram,
    solution: ConeSolution,
    batch_shape: torch.Size,
    radius: float = 0.0,
) -> RegularityReport:
    """Certify a solved batch and translate the result to the user's constraints and variables."""
    certificate = certify(program, solution, radius=radius, interface=_interface(parametric))
    owners = parametric.owners
    expanded = _expanded(certificate, batch_shape)
    return RegularityReport(
        expanded.regular,
        expanded.decided,
        expanded.sigma_dual,
        expanded.sigma_primal,
        expanded.margin,
        _by_owner(expanded.weak, owners.rows, owners.constraints),
        _by_owner(expanded.dependent, owners.rows, owners.constraints),
        _by_owner(expanded.undetermined, owners.columns, (*owners.variables, "auxiliary variables")),
        radius,
    )


def enforce(
    policy: RegularityPolicy, parametric: ParametricProgram, program: ConeProgram, solution: ConeSolution
) -> None:
    """Screen a solved batch; certify the suspicious items; warn or raise for those that are not regular.

    Raises:
        RegularityError: With policy "raise", for items that are certainly not regular.
    """
    doubtful, _ = suspicious(program, solution)
    if not bool(doubtful.any()):
        return
    batch = program.batch_shape
    flat, items = program.detach().flatten(), torch.nonzero(doubtful.reshape(-1))[:, 0].cpu()
    chosen = ConeProgram(
        program.structure, *(t if t.shape[0] == 1 else t[items.to(t.device)] for t in (flat.P, flat.q, flat.A, flat.b))
    )
    if chosen.batch_shape != (len(items),):  # all tensors shared: one item
        chosen = dataclasses.replace(chosen, q=chosen.q.expand(len(items), -1))
    points = solution.detach().reshape(torch.Size([batch.numel()])).map(lambda t: t[items.to(t.device)])
    part = examine(parametric, chosen, points, torch.Size([len(items)]))
    if bool(part.regular.all()):
        return
    report = _scattered(part, items, batch)
    if policy == "raise" and bool((~report.regular & report.decided).any()):
        raise RegularityError(report.explain())
    warnings.warn(report.explain(), RegularityWarning, stacklevel=4)


class MarginHistory:
    """Records the kink margin of every call of a layer, to see when training runs along kinks.

    Example:
        >>> with MarginHistory(layer) as history:  # doctest: +SKIP
        ...     train(layer)
        >>> history.plot()  # doctest: +SKIP

    Args:
        layer: The layer to listen to.
        certify: Also record whether items are regular, which costs rank tests in every call.

    Attributes:
        margins: One tensor per call, of the batch shape; NaN for items without a solution.
        regular: One bool tensor per call, if `certify`.
    """

    def __init__(self, layer: CvxpyLayer, *, certify: bool = False) -> None:
        self.margins: list[Tensor] = []
        self.regular: list[Tensor] = []
        self._certify = certify
        self._parametric = layer.program
        self._handle = layer.register_solution_hook(self._record)

    def _record(self, program: ConeProgram, solution: ConeSolution) -> None:
        if self._certify:
            report = examine(self._parametric, program, solution, program.batch_shape)
            self.margins.append(report.margin)
            self.regular.append(report.regular)
        else:
            self.margins.append(kink_margin(solution, program.structure.cone))

    def close(self) -> None:
        """Stop listening."""
        self._handle.remove()

    def __enter__(self) -> MarginHistory:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Smallest and median margin of each call on a logarithmic axis; crosses mark calls with irregular items."""
        import matplotlib.pyplot as plt  # plots are an optional extra

        ax = plt.subplots()[1] if ax is None else ax
        flat = [m.reshape(-1).double().clamp(min=1e-16) for m in self.margins]
        ax.semilogy([float(m.min()) for m in flat], label="smallest in the batch")
        ax.semilogy([float(m.nanmedian()) for m in flat], label="median", alpha=0.6)
        calls = [i for i, ok in enumerate(self.regular) if not bool(ok.all())]
        if calls:
            ax.semilogy(calls, [float(flat[i].min()) for i in calls], "x", color="C3", label="not regular")
        ax.set(xlabel="call", ylabel="distance to the nearest kink")
        ax.legend()
        return ax


def _interface(parametric: ParametricProgram) -> Interface:
    """Which columns and multipliers are the user's, and where parameters enter."""
    P, q, A, b = (
        sp.csr_array(part.map.matrix[:, :-1]) for part in (parametric.P, parametric.q, parametric.A, parametric.b)
    )
    duals = [dual.matrix for dual in parametric.provenance.duals]
    reads = sp.csr_array(sp.vstack(duals)) if duals else sp.csr_array((0, parametric.structure.m))
    variables = parametric.owners.columns >= 0
    return Interface(parametric.structure, variables, reads, P, q, A, b, parametric.hermitian_blocks)


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


def _scattered(part: RegularityReport, items: Tensor, batch: torch.Size) -> RegularityReport:
    """The report of some items as one of the whole batch; the others were cleared by the screening."""

    def spread(values: Tensor, fill: float | bool) -> Tensor:
        out = torch.full((batch.numel(),), fill, dtype=values.dtype)
        out[items] = values
        return out.reshape(batch)

    def spread_all(marks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: spread(values & ~part.regular, False) for name, values in marks.items()}

    return dataclasses.replace(
        part,
        regular=spread(part.regular, True),
        decided=spread(part.decided, True),
        sigma_dual=spread(part.sigma_dual, torch.nan),
        sigma_primal=spread(part.sigma_primal, torch.nan),
        margin=spread(part.margin, torch.nan),
        weakly_active={k: v for k, v in spread_all(part.weakly_active).items() if bool(v.any())},
        dependent=spread_all(part.dependent),
        undetermined=spread_all(part.undetermined),
    )


def _places(regular: Tensor) -> str:
    """The items that are not regular, in words."""
    if regular.dim() == 0:
        return "the solution"
    failed = torch.nonzero(~regular).tolist()
    shown = ", ".join(str(tuple(i) if len(i) > 1 else i[0]) for i in failed[:8])
    more = f" and {len(failed) - 8} more" if len(failed) > 8 else ""
    return f"{len(failed)} of {regular.numel()} batch items ({shown}{more})"


def _listed(names: Mapping[str, Tensor]) -> str:
    shown = [f"'{name}'" for name in names][:6]
    return ", ".join(shown) + (f" and {len(names) - 6} more" if len(names) > 6 else "")

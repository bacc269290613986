"""CVXPY's reduction chain, aimed at the cones of this package."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.constraints.exponential import ExpCone
from cvxpy.constraints.nonpos import NonNeg
from cvxpy.constraints.power import PowCone3D
from cvxpy.constraints.psd import SvecPSD
from cvxpy.constraints.second_order import SOC
from cvxpy.constraints.zero import Zero
from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver
from cvxpy.reductions.solvers.solving_chain import resolve_and_build_chain
from cvxpy.utilities.psd_utils import TriangleKind

from conelayers.canonicalize._cvxpy.data import parameter_map, problem_matrices
from conelayers.canonicalize._cvxpy.expressions import leaves, translate
from conelayers.canonicalize._cvxpy.recovery import outputs, provenance, value_sign
from conelayers.canonicalize._cvxpy.reduction import Reduction
from conelayers.canonicalize.expressions import Expression
from conelayers.canonicalize.form import CanonicalForm
from conelayers.canonicalize.parameters import ParameterLayout
from conelayers.cones import Cone, Exponential, Nonnegative, PositiveSemidefinite, Power, SecondOrder
from conelayers.cones import Zero as ZeroCone
from conelayers.errors import UnsupportedError

__all__ = ["canonical_form"]

# What CVXPY calls the domains of parameters that a problem's convexity may rest on.
_DOMAINS = ("nonneg", "nonpos", "pos", "neg", "PSD", "NSD")


def canonical_form(
    problem: cp.Problem,
    reduced: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[Any],
    *,
    gp: bool = False,
    canon_backend: str | None = None,
    verbose: bool = False,
    quadratic: bool = True,
) -> CanonicalForm:
    """Reduce a problem that passed `check_arguments`; the problem and its values are left as they are.

    What goes through the chain is `reduced`, the same problem as `preparation` made it ready; variables and duals are
    read for `problem`.

    With quadratic=False a quadratic objective becomes second-order cone constraints.
    """
    options: dict[str, Any] = {"gp": gp, "enforce_dpp": True, "canon_backend": canon_backend}
    try:
        with _without_values(reduced):
            chain = resolve_and_build_chain(reduced, solver=_Target(quadratic), **options)
            # CVXPY canonicalizes the function inside `perspective` for the solver of this name: an installed one.
            context: Any = chain.solver_context
            context.solver_name = cp.CLARABEL
            stuffed, inverse_data = chain.apply(reduced, verbose)
    except Exception as error:  # CVXPY has no class for what it cannot reduce, and stumbles in many ways
        chosen = "" if canon_backend is None else f" with canon_backend={canon_backend!r}"
        raise UnsupportedError(
            f"CVXPY cannot reduce this problem to the cones of this package{chosen} ({type(error).__name__}: {error}). "
            "If problem.solve() fails in the same way, write the expression at fault otherwise."
        ) from error
    # The last reduction is the target itself, which changes neither variables nor duals.
    reduction = Reduction(stuffed, tuple(chain.reductions[:-1]), tuple(inverse_data[:-1]))
    cones = _cones(stuffed.constraints)
    _check_rows(stuffed, cones)
    blocks, mixing = parameter_map(parameters, reduction)
    P, q, A, b, constant = problem_matrices(stuffed, mixing)
    layout = ParameterLayout(
        tuple(parameter.name() for parameter in parameters),
        tuple(tuple(parameter.shape) for parameter in parameters),
        tuple(parameter.is_complex() for parameter in parameters),
        tuple(tuple(word for word in _DOMAINS if parameter.attributes[word]) for parameter in parameters),
        tuple(index for index, parameter in enumerate(parameters) if _is_symmetric(parameter)),
    )
    plain = all(isinstance(variable, cp.Variable) for variable in variables)
    read = list(variables) if plain else _leaves(variables)
    return CanonicalForm(
        P,
        q,
        A,
        b,
        cones,
        layout,
        blocks,
        outputs(problem, read, reduction, gp),
        provenance(problem, reduction),
        constant,
        value_sign(reduction, gp),
        gp,
        None if plain else _translated(variables, read, parameters),
        () if plain else tuple(str(entry) for entry in variables),
    )


def _is_symmetric(parameter: cp.Parameter) -> bool:
    return parameter.ndim >= 2 and any(parameter.attributes[w] for w in ("symmetric", "PSD", "NSD", "hermitian"))


def _leaves(expressions: Sequence[Any]) -> list[Any]:
    """The variables that expressions read, each once."""
    return list({leaf.id: leaf for expression in expressions for leaf in leaves(expression)}.values())


def _translated(
    expressions: Sequence[Any], variables: Sequence[Any], parameters: Sequence[cp.Parameter]
) -> tuple[Expression, ...]:
    """The expressions as functions of the values of these variables and parameters."""
    places = {variable.id: position for position, variable in enumerate(variables)}
    given = {parameter.id: position for position, parameter in enumerate(parameters)}
    return tuple(translate(expression, places, given) for expression in expressions)


@contextlib.contextmanager
def _without_values(problem: cp.Problem) -> Iterator[None]:
    """Hide the current values of variables and parameters.

    Some of CVXPY's canonicalizers look at them, to guess starting points, and some of these fail on certain values. A
    programme for all parameter values has no use for them, and should one be used in earnest, this makes it an error.
    """
    leaves: list[Any] = [*problem.variables(), *problem.parameters()]
    names = ["_callback" if isinstance(leaf, cp.CallbackParam) else "_value" for leaf in leaves]
    kept = [getattr(leaf, name) for leaf, name in zip(leaves, names, strict=True)]
    try:
        for leaf, name in zip(leaves, names, strict=True):
            setattr(leaf, name, _no_value if name == "_callback" else None)
        yield
    finally:
        for leaf, name, value in zip(leaves, names, kept, strict=True):
            setattr(leaf, name, value)


def _no_value() -> None:
    return None


class _Target(ConicSolver):
    """The solver that CVXPY is told to aim at: our cones, lower-triangle svec, quadratic objective; it never solves."""

    SUPPORTED_CONSTRAINTS = [Zero, NonNeg, SOC, SvecPSD, ExpCone, PowCone3D]  # noqa: RUF012 (CVXPY's attribute)
    PSD_TRIANGLE_KIND = TriangleKind.LOWER
    PSD_SQRT2_SCALING = True
    EXP_CONE_ORDER = [0, 1, 2]  # noqa: RUF012

    def __init__(self, quadratic: bool) -> None:
        super().__init__()
        self.quadratic = quadratic

    def name(self) -> str:
        return "CONELAYERS"

    def import_solver(self) -> None:
        pass

    def supports_quad_obj(self) -> bool:
        return self.quadratic

    def apply(self, problem: Any) -> tuple[Any, dict]:
        """Put the rows of each constraint in the order of its cone; parameters need no values for that."""
        return self.format_constraints(problem, self.EXP_CONE_ORDER), {}

    def solve_via_data(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def cite(self, data: Any) -> str:
        return ""


def _check_rows(stuffed: Any, cones: Sequence[Cone]) -> None:
    """CVXPY has made cones of another size than its rows, see `arguments`: never read such numbers."""
    rows, columns = stuffed.constr_size, stuffed.x.size + 1
    if sum(cone.dim for cone in cones) != rows or stuffed.A.shape[0] != rows * columns:
        raise UnsupportedError(
            "CVXPY cannot reduce this problem to the cones of this package: the rows of its constraints are not those "
            "of their cones. Write functions along an axis slice by slice."
        )


def _cones(constraints: Sequence[Any]) -> tuple[Cone, ...]:
    """The cone of each run of rows, from CVXPY's ordered constraints; neighbouring linear rows become one cone."""
    cones: list[Cone] = []
    for constraint in constraints:
        new = _CONES_OF[type(constraint)](constraint)
        for cone in new:
            if cones and isinstance(cone, ZeroCone | Nonnegative) and type(cones[-1]) is type(cone):
                cones[-1] = type(cone)(cones[-1].dim + cone.dim)
            elif cone.dim:
                cones.append(cone)
    return tuple(cones)


_CONES_OF: dict[type, Callable[[Any], list[Cone]]] = {
    Zero: lambda constraint: [ZeroCone(constraint.size)],
    NonNeg: lambda constraint: [Nonnegative(constraint.size)],
    SOC: lambda constraint: [SecondOrder(int(size)) for size in constraint.cone_sizes()],
    SvecPSD: lambda constraint: [PositiveSemidefinite(int(order)) for order in constraint.cone_sizes()],
    ExpCone: lambda constraint: [Exponential()] * constraint.num_cones(),
    PowCone3D: lambda constraint: [Power(float(alpha)) for alpha in np.ravel(constraint.alpha.value, order="F")],
}

"""Everything that is read from CVXPY's internals; no other module of the package touches them.

A problem goes through CVXPY's own reduction chain towards an imaginary solver, `_Target`, which takes exactly the cones
of `conelayers.cones` in their own row conventions. From the result come: the affine maps of the problem data, the cone of
each row in CVXPY's own constraint order, and, by evaluating CVXPY's own code (see `probing`), how parameters enter and
how solutions and duals leave.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.constraints import SOC, ExpCone, NonNeg, PowCone3D, SvecPSD, Zero
from cvxpy.reductions.dcp2cone.canonicalizers import CANON_METHODS
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpy.reductions.solution import Solution
from cvxpy.reductions.solvers.conic_solvers.conic_solver import ConicSolver
from cvxpy.reductions.solvers.solving_chain import resolve_and_build_chain
from cvxpy.reductions.solvers.utilities import extract_dual_value, get_dual_values
from cvxpy.utilities.psd_utils import TriangleKind

from conelayers.canonicalize.outputs import Output
from conelayers.canonicalize.parameters import Block, ParameterLayout
from conelayers.canonicalize.probing import matrix_of
from conelayers.canonicalize.tensors import AffineMatrix, compress
from conelayers.cones import Cone, Exponential, Nonnegative, PositiveSemidefinite, Power, SecondOrder
from conelayers.cones import Zero as ZeroCone
from conelayers.errors import InvalidArgument, UnsupportedError

__all__ = ["CanonicalForm", "canonical_form", "check_arguments", "check_version"]

_MINIMUM_VERSION = (1, 9, 3)


@dataclasses.dataclass(frozen=True, eq=False)
class CanonicalForm:
    """A parametric cone programme and its user interface, free of CVXPY objects.

    Entries of the matrices are affine in u, the concatenation of all `blocks`.

    Attributes:
        P: Upper triangle of the quadratic objective, n x n.
        q: Linear objective, n x 1.
        A, b: Constraints Ax + s = b, m x n and m x 1.
        cones: Cones of the rows, in row order.
        layout: Shapes of the parameters.
        blocks: The real vectors that make up u.
        outputs: The requested variables.
    """

    P: AffineMatrix
    q: AffineMatrix
    A: AffineMatrix
    b: AffineMatrix
    cones: tuple[Cone, ...]
    layout: ParameterLayout
    blocks: tuple[Block, ...]
    outputs: tuple[Output, ...]


def check_version() -> None:
    """Refuse CVXPY releases whose quadratic objectives are wrong.

    Raises:
        UnsupportedError: If CVXPY is older than 1.9.3; earlier ones lose `sum_squares` of a symmetric variable.
    """
    numbers = tuple(int(part) for part in cp.__version__.split(".")[:3] if part.isdigit())
    if numbers < _MINIMUM_VERSION:
        raise UnsupportedError(
            f"cvxpy {cp.__version__} is too old: releases before 1.9.3 lose quadratic terms of symmetric variables. "
            "Upgrade with `pip install 'cvxpy>=1.9.3'`."
        )


def canonical_form(
    problem: cp.Problem,
    parameters: Sequence[cp.Parameter],
    variables: Sequence[cp.Variable],
    *,
    gp: bool = False,
    canon_backend: str | None = None,
    verbose: bool = False,
) -> CanonicalForm:
    """Reduce a problem that passed `check_arguments`; the problem and its values are left as they are."""
    try:
        chain = resolve_and_build_chain(
            problem, solver=_Target(), gp=gp, enforce_dpp=True, canon_backend=canon_backend
        )
        (stuffed, inverse_data) = chain.apply(problem, verbose)
    except cp.error.SolverError as error:
        raise UnsupportedError(f"CVXPY cannot reduce this problem to the cones of this package: {error}") from error
    inverse_data = inverse_data[:-1]
    steps = chain.reductions[:-1]
    blocks, mixing = _parameter_map(parameters, steps, stuffed)
    n, m = stuffed.x.size, stuffed.constr_size
    return CanonicalForm(
        P=_matrix(stuffed.P, (n, n), mixing).upper_triangle(),
        q=_rows(_matrix(stuffed.q, (n + 1, 1), mixing), 0, n),
        # CVXPY stores s = A_cvxpy x + b: the constant of the constraints is the last column of its tensor.
        A=_scaled(_columns(_matrix(stuffed.A, (m, n + 1), mixing), 0, n), -1.0),
        b=_columns(_matrix(stuffed.A, (m, n + 1), mixing), n, n + 1),
        cones=_cones(stuffed.constraints),
        layout=ParameterLayout(
            tuple(p.name() for p in parameters),
            tuple(tuple(p.shape) for p in parameters),
            tuple(p.is_complex() for p in parameters),
        ),
        blocks=blocks,
        outputs=_outputs(problem, variables, stuffed, steps, inverse_data, gp),
    )


class _Target(ConicSolver):
    """The solver that CVXPY is told to aim at: our cones, lower-triangle svec, quadratic objective; it never solves."""

    SUPPORTED_CONSTRAINTS = [Zero, NonNeg, SOC, SvecPSD, ExpCone, PowCone3D]  # noqa: RUF012 (CVXPY's attribute)
    PSD_TRIANGLE_KIND = TriangleKind.LOWER
    PSD_SQRT2_SCALING = True
    EXP_CONE_ORDER = [0, 1, 2]  # noqa: RUF012

    def name(self) -> str:
        return "CONELAYERS"

    def import_solver(self) -> None:
        pass

    def supports_quad_obj(self) -> bool:
        return True

    def apply(self, problem: Any) -> tuple[Any, dict]:
        """Put the rows of each constraint in the order of its cone; parameters need no values for that."""
        return self.format_constraints(problem, self.EXP_CONE_ORDER), {}

    def solve_via_data(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def cite(self, data: Any) -> str:
        return ""


# ---- arguments -------------------------------------------------------------------------------------------------------


def check_arguments(problem: cp.Problem, parameters: Any, variables: Any, gp: bool) -> None:
    """Check what the user passed.

    Raises:
        InvalidArgument: If the problem is not DPP, parameters do not match the problem's exactly, a variable is neither
            the problem's nor a dual variable of its constraints, or either is not a list or tuple.
    """
    if not isinstance(problem, cp.Problem):
        raise InvalidArgument(f"problem must be a cvxpy.Problem, not {type(problem).__name__}.")
    for name, value in (("parameters", parameters), ("variables", variables)):
        if not isinstance(value, list | tuple):
            raise InvalidArgument(f"The layer's {name} must be provided as a list or tuple.")
    _check_dpp(problem, gp)
    if len(problem.variables()) == 0:
        raise InvalidArgument("problem has no variables, so there is nothing to solve.")
    if problem.is_mixed_integer():
        raise InvalidArgument("problem has integer or boolean variables; only continuous problems can be layers.")
    given = {id(parameter) for parameter in parameters}
    if given != {id(parameter) for parameter in problem.parameters()} or len(given) != len(parameters):
        raise InvalidArgument(
            "The layer's parameters must exactly match problem.parameters: "
            f"got {[str(p) for p in parameters]}, the problem has {[str(p) for p in problem.parameters()]}."
        )
    known = {variable.id for variable in problem.variables()} | set(_dual_owners(problem))
    for variable in variables:
        if not isinstance(variable, cp.Variable) or variable.id not in known:
            raise InvalidArgument(
                f"Variable {variable} must be a subset of problem.variables or a constraint dual variable."
            )


def _check_dpp(problem: cp.Problem, gp: bool) -> None:
    if gp:
        if not problem.is_dgp(dpp=True):
            raise InvalidArgument("Problem must be DPP for geometric programming: problem.is_dgp(dpp=True) is False.")
        return
    parametric = any(_has_parametric_quad_form(constraint) for constraint in problem.constraints)
    if parametric or _has_parametric_quad_form(problem.objective.expr, affine_above=True):
        raise InvalidArgument(
            "Problem must be DPP. Note: quad_form(x, P) with parametric P is only supported in the objective, as a "
            "term of it, and not in constraints or inside other functions. Write sum_squares(L @ x) with P = L'L there."
        )
    if not problem.is_dpp(quad_form_dpp="qp"):
        raise InvalidArgument("Problem must be DPP: problem.is_dcp(dpp=True) is False.")


def _has_parametric_quad_form(expression: Any, affine_above: bool = False) -> bool:
    """Whether a quad_form with parametric P sits where CVXPY would factor P's current value into the constraints.

    `affine_above` tells that only affine atoms lie between the root of the objective and the expression: there the
    matrix goes to the quadratic objective, and stays parametric.
    """
    if isinstance(expression, QuadForm) and expression.args[1].parameters() and not affine_above:
        return True
    below = affine_above and type(expression) not in CANON_METHODS
    return any(_has_parametric_quad_form(argument, below) for argument in expression.args)


# ---- data ------------------------------------------------------------------------------------------------------------


def _parameter_map(
    parameters: Sequence[cp.Parameter], steps: Sequence[Any], stuffed: Any
) -> tuple[tuple[Block, ...], sp.csr_array]:
    """Blocks of the user's parameters, and G with [CVXPY's parameter vector; 1] = G [u; 1]."""
    total = stuffed.total_param_size
    blocks: list[Block] = []
    pieces: list[sp.csr_array] = []
    logged = {p.id for step in steps if isinstance(step, Dgp2Dcp) for p in step.canon_methods._parameters}
    for index, parameter in enumerate(parameters):
        parts = ("real", "imag") if parameter.is_complex() else ("value",)
        if parameter.id in logged:
            parts = (*parts, "log")
        for part in parts:
            selection = matrix_of(lambda u, p=parameter, k=part: _forward(p, k, u, steps, stuffed), parameter.size)
            if selection.nnz:
                blocks.append(Block(index, part, parameter.size))
                pieces.append(sp.csr_array(selection @ _symmetrizer(parameter, part)))
    constant = sp.csr_array(([1.0], ([total], [0])), shape=(total + 1, 1))
    padded = [sp.vstack([piece, sp.csr_array((1, piece.shape[1]))]) for piece in pieces]
    return tuple(blocks), sp.csr_array(sp.hstack([*padded, constant], format="csr"))


def _forward(parameter: cp.Parameter, part: str, u: np.ndarray, steps: Sequence[Any], stuffed: Any) -> np.ndarray:
    """CVXPY's parameter vector when one part of one parameter is u (row-major) and everything else is zero."""
    value = u.reshape(parameter.shape)
    deltas = {parameter.id: 1j * value if part == "imag" else value}
    for step in steps:
        if isinstance(step, Dgp2Dcp):
            logs = {p.id: new.id for p, new in step.canon_methods._parameters.items()}
            # In its own terms a parameter stays (as an exponent, say); its logarithm is a new parameter.
            deltas = {logs.get(key, -1) if part == "log" else key: delta for key, delta in deltas.items()}
        else:
            deltas = step.param_forward(deltas)
    vector = np.zeros(stuffed.total_param_size)
    for key, delta in deltas.items():
        if key in stuffed.param_id_to_col:
            flat = np.real(np.asarray(delta)).ravel(order="F")
            column = stuffed.param_id_to_col[key]
            vector[column : column + flat.size] = flat
    return vector


def _symmetrizer(parameter: cp.Parameter, part: str) -> sp.csr_array:
    """X -> (X + X')/2 for symmetric parameters, (X + X^H)/2 for Hermitian ones, in row-major entries of one part."""
    identity = sp.eye_array(parameter.size, format="csr")
    if parameter.ndim < 2 or not (parameter.is_symmetric() or parameter.is_hermitian()) or parameter.is_scalar():
        return sp.csr_array(identity)
    order = np.swapaxes(np.arange(parameter.size).reshape(parameter.shape), -1, -2).ravel()
    sign = -1.0 if part == "imag" and parameter.is_hermitian() else 1.0
    return sp.csr_array((identity + sign * identity[order]) * 0.5)


def _matrix(tensor: Any, shape: tuple[int, int], mixing: sp.csr_array) -> AffineMatrix:
    """CVXPY's tensor (column-major positions, parameters + 1) in terms of the user's parameters."""
    if tensor is None:
        return AffineMatrix.from_tensor(shape, np.zeros(0, dtype=np.int64), sp.csr_array((0, mixing.shape[1])))
    entries = sp.coo_array(tensor)
    rows = sp.csr_array(
        (entries.data, (np.arange(entries.nnz), entries.col)), shape=(entries.nnz, mixing.shape[0])
    )
    # Compressed before the product: the tensor has a row for every position of a dense matrix.
    positions, coefficients = compress(entries.row.astype(np.int64), rows)
    return AffineMatrix.from_tensor(shape, positions, coefficients @ mixing)


def _rows(matrix: AffineMatrix, start: int, stop: int) -> AffineMatrix:
    inside = np.flatnonzero((matrix.rows >= start) & (matrix.rows < stop))
    return AffineMatrix.from_entries(
        (stop - start, matrix.shape[1]), matrix.rows[inside] - start, matrix.columns[inside], matrix.coefficients[inside]
    )


def _columns(matrix: AffineMatrix, start: int, stop: int) -> AffineMatrix:
    kept = np.zeros(matrix.shape[1], dtype=bool)
    kept[start:stop] = True
    return matrix.keep_columns(kept)


def _scaled(matrix: AffineMatrix, factor: float) -> AffineMatrix:
    return dataclasses.replace(matrix, coefficients=sp.csr_array(matrix.coefficients * factor))


def _cones(constraints: Sequence[Any]) -> tuple[Cone, ...]:
    """The cone of each run of rows, from CVXPY's ordered constraints; neighbouring linear rows become one cone."""
    cones: list[Cone] = []
    for constraint in constraints:
        new = _CONES_OF[type(constraint)](constraint)
        for cone in new:
            last = cones[-1] if cones else None
            if isinstance(cone, ZeroCone | Nonnegative) and type(last) is type(cone):
                cones[-1] = type(cone)(last.dim + cone.dim)
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


# ---- outputs ---------------------------------------------------------------------------------------------------------


def _outputs(
    problem: cp.Problem,
    variables: Sequence[cp.Variable],
    stuffed: Any,
    steps: Sequence[Any],
    inverse_data: Sequence[Any],
    gp: bool,
) -> tuple[Output, ...]:
    owners = _dual_owners(problem)
    primal_ids = {variable.id for variable in problem.variables()}
    primal = [variable for variable in variables if variable.id in primal_ids]
    dual = [variable for variable in variables if variable.id not in primal_ids]
    size = stuffed.x.size
    images = _split(primal, lambda x: _primal_values(x, primal, steps, stuffed), size)
    duals = _split(
        dual, lambda y: _dual_values(y, dual, owners, steps, inverse_data, stuffed, size), stuffed.constr_size
    )
    found = {("primal", key): value for key, value in images.items()}
    found |= {("dual", key): value for key, value in duals.items()}
    outputs = []
    for variable in variables:
        source = "primal" if variable.id in primal_ids else "dual"
        matrix = found[source, variable.id]
        is_complex = matrix.shape[0] == 2 * variable.size and variable.size > 0
        outputs.append(
            Output(variable.name(), tuple(variable.shape), source, matrix, is_complex, gp and source == "primal")
        )
    return tuple(outputs)


def _split(
    variables: Sequence[cp.Variable], values: Callable[[np.ndarray], list[np.ndarray]], size: int
) -> dict[int, sp.csr_array]:
    """Matrix of each variable, read from `values`, which evaluates all of them at once."""
    if not variables:
        return {}
    complexes = [np.iscomplexobj(value) for value in values(np.ones(size))]

    def stacked(vector: np.ndarray) -> np.ndarray:
        parts = []
        for value, is_complex in zip(values(vector), complexes, strict=True):
            flat = np.ravel(value)
            parts.append(np.concatenate([flat.real, flat.imag]) if is_complex else flat.real)
        return np.concatenate(parts)

    matrix = matrix_of(stacked, size)
    heights = [variable.size * (2 if c else 1) for variable, c in zip(variables, complexes, strict=True)]
    ends = np.cumsum(heights)
    return {
        variable.id: sp.csr_array(matrix[end - height : end])
        for variable, height, end in zip(variables, heights, ends, strict=True)
    }


def _primal_values(
    x: np.ndarray, variables: Sequence[cp.Variable], steps: Sequence[Any], stuffed: Any
) -> list[np.ndarray]:
    """The linear part of CVXPY's recovery of variables (without its projections, and in logarithms for gp)."""
    found: dict[int, Any] = dict(stuffed.split_solution(x))
    for step in reversed(steps):
        if isinstance(step, Dgp2Dcp):
            originals = {new.id: old.id for old, new in step.canon_methods._variables.items()}
            found = {originals.get(key, key): value for key, value in found.items()}
        else:
            found = step.var_forward(found)
    return [_dense(found.get(variable.id, np.zeros(variable.shape)), variable.shape) for variable in variables]


def _dual_values(
    y: np.ndarray,
    variables: Sequence[cp.Variable],
    owners: dict[int, tuple[Any, int]],
    steps: Sequence[Any],
    inverse_data: Sequence[Any],
    stuffed: Any,
    size: int,
) -> list[np.ndarray]:
    """CVXPY's dual values for the row duals y, in its signs and shapes."""
    duals = get_dual_values(y, extract_dual_value, stuffed.constraints)
    solution: Any = Solution(cp.OPTIMAL, 0.0, {stuffed.x.id: np.zeros(size)}, duals, {})
    solution = _invert(solution, steps, inverse_data)
    values = []
    for variable in variables:
        constraint, position = owners[variable.id]
        if constraint.id not in solution.dual_vars:
            raise UnsupportedError(f"CVXPY gives no dual value for the constraint {constraint}; do not request it.")
        twin = copy.copy(constraint)  # its dual variables are new ones: the user's keep their values
        twin.save_dual_value(solution.dual_vars[constraint.id])
        values.append(_dense(twin.dual_variables[position].value, variable.shape))
    return values


def _invert(solution: Any, steps: Sequence[Any], inverse_data: Sequence[Any]) -> Any:
    for step, data in reversed(list(zip(steps, inverse_data, strict=True))):
        solution = step.invert(solution, data)
    return solution


def _dense(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(value.toarray() if sp.issparse(value) else value).reshape(shape)


def _dual_owners(problem: cp.Problem) -> dict[int, tuple[Any, int]]:
    """Constraint and position of each dual variable, by the variable's id."""
    return {
        variable.id: (constraint, position)
        for constraint in problem.constraints
        for position, variable in enumerate(constraint.dual_variables)
    }

"""How CVXPY turns a cone solution into values of variables and of constraint duals, as matrices."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp
import numpy as np
import scipy.sparse as sp
from cvxpy.reductions.solution import Solution
from cvxpy.reductions.solvers.utilities import extract_dual_value, get_dual_values

from conelayers.canonicalize._cvxpy.arguments import dual_owners
from conelayers.canonicalize._cvxpy.reduction import Reduction, logarithms
from conelayers.canonicalize.outputs import Output
from conelayers.canonicalize.probing import matrix_of
from conelayers.canonicalize.provenance import Provenance
from conelayers.errors import UnsupportedError

__all__ = ["outputs", "provenance", "value_sign"]


def outputs(
    problem: cp.Problem, variables: Sequence[cp.Variable], reduction: Reduction, gp: bool
) -> tuple[Output, ...]:
    """The requested variables, primal or dual, in the order given.

    Raises:
        UnsupportedError: If CVXPY has no dual value for a constraint whose dual variable is requested.
    """
    primal_ids = {variable.id for variable in problem.variables()}
    primal = [variable for variable in variables if variable.id in primal_ids]
    dual = [variable for variable in variables if variable.id not in primal_ids]
    owners = dual_owners(problem)
    stuffed = reduction.stuffed
    images = _images(primal, lambda x: _primal_values(x, primal, reduction), stuffed.x.size)
    images |= _images(dual, lambda y: _dual_values(y, dual, owners, reduction), stuffed.constr_size)
    found = []
    for variable in variables:
        matrix, is_complex = images[variable.id]
        source = "primal" if variable.id in primal_ids else "dual"
        exponentiate = gp and source == "primal"
        found.append(Output(variable.name(), tuple(variable.shape), source, matrix, is_complex, exponentiate))
    return tuple(found)


def provenance(problem: cp.Problem, reduction: Reduction) -> Provenance:
    """All variables of the problem, and per constraint its dual variables together, named by the constraint's label."""
    variables = outputs(problem, problem.variables(), reduction, gp=False)
    duals = []
    for label, constraint in zip(_labels(problem.constraints), problem.constraints, strict=True):
        try:
            parts = outputs(problem, constraint.dual_variables, reduction, gp=False)
        except UnsupportedError:  # CVXPY has no dual values for it: its rows go without a name
            continue
        matrix: Any = sp.csr_array(sp.vstack([part.matrix for part in parts]))
        duals.append(Output(label, (matrix.shape[0],), "dual", matrix))
    return Provenance(variables, tuple(duals))


def value_sign(reduction: Reduction, gp: bool) -> float:
    """1 where the problem's value (its logarithm for gp) is that of the cone programme, -1 where it is the negative."""
    stuffed = reduction.stuffed
    duals = get_dual_values(np.zeros(stuffed.constr_size), extract_dual_value, stuffed.constraints)
    solution: Any = Solution(cp.OPTIMAL, 1.0, {stuffed.x.id: np.zeros(stuffed.x.size)}, duals, {})
    for step, data in zip(reversed(reduction.steps), reversed(reduction.inverse_data), strict=True):
        solution = step.invert(solution, data)
    return float(np.sign(np.log(solution.opt_val) if gp else solution.opt_val))


def _labels(constraints: Sequence[Any]) -> list[str]:
    """CVXPY's labels, else the position and the expression; unique."""
    labels: list[str] = []
    for index, constraint in enumerate(constraints):
        text = str(constraint)
        label = constraint.label or f"constraint {index}: {text if len(text) <= 60 else text[:57] + '...'}"
        labels.append(f"{label} ({index})" if label in labels else label)
    return labels


def _images(
    variables: Sequence[cp.Variable], values: Callable[[np.ndarray], list[np.ndarray]], size: int
) -> dict[int, tuple[sp.csr_array, bool]]:
    """Matrix of each variable by its id, and whether it is complex; `values` evaluates all variables at once."""
    if not variables:
        return {}
    complexes = [np.iscomplexobj(value) for value in values(np.ones(size))]

    def stacked(vector: np.ndarray) -> np.ndarray:
        parts = []
        for value, is_complex in zip(values(vector), complexes, strict=True):
            flat: Any = np.ravel(value)
            parts += [flat.real, flat.imag] if is_complex else [flat.real]
        return np.concatenate(parts)

    matrix = matrix_of(stacked, size)
    heights = [variable.size * (2 if c else 1) for variable, c in zip(variables, complexes, strict=True)]
    ends = np.cumsum(heights)
    return {
        variable.id: (sp.csr_array(matrix[end - height : end]), is_complex)
        for variable, height, end, is_complex in zip(variables, heights, ends, complexes, strict=True)
    }


def _primal_values(x: np.ndarray, variables: Sequence[cp.Variable], reduction: Reduction) -> list[np.ndarray]:
    """The linear part of CVXPY's recovery of variables: without projections, and in logarithms for gp."""
    found: dict[int, Any] = dict(reduction.stuffed.split_solution(x))
    for step in reversed(reduction.steps):
        maps = logarithms(step)
        if maps is None:
            found = step.var_forward(found)
        else:
            originals = {new: original for original, new in maps[0].items()}
            found = {originals.get(key, key): value for key, value in found.items()}
    return [_dense(found.get(variable.id, np.zeros(variable.shape)), variable.shape) for variable in variables]


def _dual_values(
    y: np.ndarray, variables: Sequence[cp.Variable], owners: dict[int, tuple[Any, int]], reduction: Reduction
) -> list[np.ndarray]:
    """CVXPY's dual values for the row duals y, in its signs and shapes."""
    stuffed = reduction.stuffed
    duals = get_dual_values(y, extract_dual_value, stuffed.constraints)
    solution: Any = Solution(cp.OPTIMAL, 0.0, {stuffed.x.id: np.zeros(stuffed.x.size)}, duals, {})
    for step, data in zip(reversed(reduction.steps), reversed(reduction.inverse_data), strict=True):
        solution = step.invert(solution, data)
    values = []
    for variable in variables:
        constraint, position = owners[variable.id]
        value = None
        if constraint.id in solution.dual_vars:
            twin = copy.copy(constraint)  # has its own dual variables: those of the user keep their values
            twin.save_dual_value(solution.dual_vars[constraint.id])
            value = twin.dual_variables[position].value  # None where CVXPY's constraint saves nothing
        if value is None:
            raise UnsupportedError(f"CVXPY gives no dual value for the constraint {constraint}; do not request it.")
        values.append(_dense(value, variable.shape))
    return values


def _dense(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(value.toarray() if sp.issparse(value) else value).reshape(shape)

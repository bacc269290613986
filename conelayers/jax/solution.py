"""Solutions of cone programmes as arrays of JAX."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from conelayers.jax.formulas import Point, Solve
from conelayers.jax.primitives import solve
from conelayers.program import Status

__all__ = ["ConeSolution", "solve_formula", "solved"]

# Types of status code, iterations, and three residuals.
_FACTS = ("int8", "int32")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConeSolution:
    """Primal-dual points of a batch of programmes and how good they are; a pytree of arrays.

    Attributes:
        x: Primal variables, shape (*batch, n).
        y: Dual variables, shape (*batch, m).
        s: Slacks, shape (*batch, m).
        status_code: `conelayers.Status` values, int8, shape (*batch,).
        iterations: Iterations of the backend, int32, shape (*batch,).
        primal_residual: Relative primal residual, shape (*batch,).
        dual_residual: Relative dual residual, shape (*batch,).
        gap: Relative duality gap, shape (*batch,).
    """

    x: jax.Array
    y: jax.Array
    s: jax.Array
    status_code: jax.Array
    iterations: jax.Array
    primal_residual: jax.Array
    dual_residual: jax.Array
    gap: jax.Array

    @property
    def status(self) -> Status | np.ndarray:
        """`Status` of each item, outside of transforms: a member, or an object array of members of the batch shape."""
        codes = np.asarray(self.status_code)
        if codes.ndim == 0:
            return Status(int(codes))
        members = np.empty(codes.shape, dtype=object)
        for position in np.ndindex(codes.shape):
            members[position] = Status(int(codes[position]))
        return members


def solve_formula(equation, n: int, m: int, dtype: np.dtype) -> Solve:
    """The formula that solves an equation whose outputs are those of `ConicConditions`."""
    kind = np.dtype(dtype).name
    return Solve(equation, ((n,), (m,), (m,)), Point((1, 1, 1), (*_FACTS, kind, kind, kind), kind))


def solved(formula: Solve, inputs: list[jax.Array]) -> ConeSolution:
    """Solve the programmes of an equation."""
    found = solve(formula, *inputs)
    facts = found[6:] if formula.point.split else found[3:]
    return ConeSolution(*found[:3], *facts)

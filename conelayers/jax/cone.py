"""Cone programmes given as data, as differentiable functions of JAX arrays."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from conelayers.backends import Backend
from conelayers.cones import Cone, ProductCone
from conelayers.errors import InvalidArgument
from conelayers.implicit import Derivative, Exact
from conelayers.jax.arguments import float_type
from conelayers.jax.solution import ConeSolution, solve_formula, solved
from conelayers.layers import ConeLayer
from conelayers.residual import ConicConditions, OnFailure, optimality

__all__ = ["solve_cone_program"]


def solve_cone_program(
    P: Any,
    q: Any,
    A: Any,
    b: Any,
    cone: ProductCone | Sequence[Cone] | Cone,
    *,
    solver: str | Backend | None = None,
    derivative: Derivative | None = None,
    on_failure: OnFailure = "raise",
    solver_args: Mapping[str, Any] | None = None,
) -> ConeSolution:
    """Solve  minimise 1/2 x'Px + q'x  subject to  Ax + s = b, s in K,  differentiably in every array.

    Args:
        P: Shape (*batch, n, n), used as (P + P')/2; or None for a linear objective.
        q: Shape (*batch, n).
        A: Shape (*batch, m, n).
        b: Shape (*batch, m).
        cone: K, as a `ProductCone`, a sequence of cones in the order of A's rows, or one cone.
        solver: A backend's name or instance, or None to choose by size.
        derivative: `Exact()`, `Smoothed(mu)` or `LeastSquares()`.
        on_failure: "raise", or "nan" for items without a solution.
        solver_args: Options, as `conelayers.CvxpyLayer.forward` takes them.

    Returns:
        x, y, s with batch axes, and status, iterations and residuals per item.

    Raises:
        ValueError: If shapes do not fit together.
    """
    arrays = [None if v is None else jnp.asarray(v) for v in (P, q, A, b)]
    dtype = float_type([a for a in arrays if a is not None])
    P, q, A, b = arrays
    if q is None or A is None or b is None:
        raise InvalidArgument("q, A and b must be arrays; only P may be None.")
    m, n = A.shape[-2:]
    for name, value, shape in (("P", P, (n, n)), ("q", q, (n,)), ("b", b, (m,))):
        if value is not None and value.shape[value.ndim - len(shape) :] != shape:
            raise InvalidArgument(f"{name} has shape {value.shape}; its last axes must be {shape}, as A says.")
    blocks = tuple(cone.cones) if isinstance(cone, ProductCone) else (cone,) if isinstance(cone, Cone) else tuple(cone)
    settings = (solver, derivative or Exact(), on_failure, tuple(sorted((solver_args or {}).items())))
    structure, formula = _formula(blocks, m, n, P is not None, settings, dtype.name)
    rows, columns = structure.P_indices, structure.P_columns
    P_values = jnp.zeros(0, dtype) if P is None else (P[..., rows, columns] + P[..., columns, rows]) / 2
    A_values = A[..., structure.A_indices, structure.A_columns]
    return solved(formula, [value.astype(dtype) for value in (P_values, q, A_values, b)])


@functools.lru_cache(maxsize=64)
def _formula(blocks: tuple[Cone, ...], m: int, n: int, quadratic: bool, settings: tuple, dtype: str):
    """Structure and formula of a dense programme; kept, so that equal calls share analyses and compilations."""
    solver, derivative, on_failure, options = settings
    pattern = np.ones((n, n)) if quadratic else None
    layer = ConeLayer(blocks, np.ones((m, n)), pattern, solver=solver, derivative=derivative, solver_args=dict(options))
    equation = optimality(ConicConditions(layer.structure, layer.backend, derivative, on_failure))
    return layer.structure, solve_formula(equation, n, m, np.dtype(dtype))

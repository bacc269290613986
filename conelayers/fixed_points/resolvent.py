"""Numerics of (I - J) t = rhs: any linear solver or fixed-point iteration, with the error measured."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from conelayers.errors import InaccurateWarning
from conelayers.implicit.products import Tape
from conelayers.linalg.base import LinearSolver
from conelayers.linalg.krylov import KrylovSolver
from conelayers.linalg.neumann import NeumannGMRES
from conelayers.linalg.operators import IdentityMinus

__all__ = ["AdjointInfo", "solve_resolvent"]


@dataclasses.dataclass
class AdjointInfo:
    """What the last derivative solve of one call measured; filled in when it runs.

    Attributes:
        solution: t with (I - J) t = rhs (J' in reverse mode), shape (*batch, n); a warm start for the next call.
        residual: ||rhs - (I - J) t|| of each item, shape (*batch,), measured on t.
        iterations: Iterations of each item, shape (*batch,).
        inverse_norm: ||(I - J)^-1|| in the 2-norm, shape (*batch,); only with `certify=True`.
        error_bound: residual * inverse_norm >= ||t - exact t||, shape (*batch,); only with `certify=True`.
    """

    solution: Tensor | None = None
    residual: Tensor | None = None
    iterations: Tensor | None = None
    inverse_norm: Tensor | None = None
    error_bound: Tensor | None = None


def solve_resolvent(
    tape: Tape,
    transposed: bool,
    solver: Any,
    rhs: Tensor,
    initial: Tensor | None = None,
    info: AdjointInfo | None = None,
    certify: bool = False,
) -> Tensor:
    """Solve (I - J) t = rhs, or with J' where `transposed`.

    Args:
        tape: f recorded at the fixed point, of shape (*batch, n).
        transposed: Use J'.
        solver: A `LinearSolver`; or a fixed-point solver, which iterates t <- rhs + J t; or None for
            `NeumannGMRES()`.
        rhs: Shape (*batch, n).
        initial: First guess, of the shape of `rhs`; ignored when its shape is another.
        info: Where to write what is measured.
        certify: Also compute ||(I - J)^-1|| by a dense decomposition (n products per item).

    Returns:
        t, shape (*batch, n).
    """
    forward, adjoint = tape.product, tape.transposed_product
    if transposed:
        forward, adjoint = adjoint, forward
    if initial is not None and initial.shape != rhs.shape:
        initial = None
    if solver is None:
        solver = NeumannGMRES()
    with torch.no_grad():
        if isinstance(solver, LinearSolver):
            found = _solve_linear(solver, _operator(forward, adjoint, rhs), rhs, initial)
        else:
            found = _iterate(solver, forward, rhs, initial)
        _warn(found, rhs)
        if info is not None:
            info.solution, info.residual, info.iterations = found
            if certify:
                matrix = _operator(forward, adjoint, rhs).as_matrix()
                inverse_norm = torch.linalg.svdvals(matrix)[..., -1].reciprocal()
                info.inverse_norm, info.error_bound = inverse_norm, found.residual * inverse_norm
    # An autograd function must not return its input as an output.
    return found.solution.clone() if found.solution is rhs else found.solution


class _Found(NamedTuple):
    solution: Tensor
    residual: Tensor
    iterations: Tensor


def _solve_linear(solver, operator, rhs, initial) -> _Found:
    state = solver.init(operator)
    if isinstance(solver, KrylovSolver | NeumannGMRES):
        solution, info = solver.solve(state, rhs, initial)
    else:  # a direct method has no use for a first guess
        solution, info = solver.solve(state, rhs)
    return _Found(solution, info.residual * torch.linalg.vector_norm(rhs, dim=-1), info.iterations)


def _iterate(solver, product, rhs, initial) -> _Found:
    start = (rhs if initial is None else initial).reshape(rhs.shape[:-1].numel(), rhs.shape[-1])

    def step(t: Tensor) -> Tensor:
        return (rhs + product(t.reshape(rhs.shape))).reshape(t.shape)

    result = solver.run(step, start)
    batch = rhs.shape[:-1]
    return _Found(result.value.reshape(rhs.shape), result.residual.reshape(batch), result.iterations.reshape(batch))


def _warn(found: _Found, rhs: Tensor) -> None:
    """Say so when a derivative is wrong by more than rounding or a loose tolerance explains."""
    size = torch.linalg.vector_norm(rhs, dim=-1)
    failed = ~(found.residual <= 1e-2 * size)
    if bool(failed.any()):
        warnings.warn(
            f"the linear solve of a fixed point's derivative failed for {int(failed.sum())} of {failed.numel()} items "
            f"(largest residual {float(found.residual.max()):.1e}): I - df/dz may be singular there, or items of the "
            "batch depend on each other (then pass batch_dims=0).",
            InaccurateWarning,
            stacklevel=2,
        )


def _operator(forward, adjoint, rhs: Tensor) -> IdentityMinus:
    return IdentityMinus(forward, adjoint, rhs.shape[-1], rhs.shape[:-1], rhs.dtype, rhs.device)

"""Numerics of (I - J) t = rhs: any linear solver or fixed-point iteration, with the error measured."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from conelayers.implicit.products import Tape
from conelayers.linalg.base import LinearSolver
from conelayers.linalg.gmres import GMRES
from conelayers.linalg.operators import FunctionOperator

__all__ = ["AdjointInfo", "solve_resolvent"]


@dataclasses.dataclass
class AdjointInfo:
    """What the last derivative solve of one call measured; filled in when it runs.

    Attributes:
        solution: t with (I - J) t = rhs (J' in reverse mode), shape (*batch, n); a warm start for the next call.
        residual: ||rhs - (I - J) t|| of each item, shape (*batch,), recomputed from t.
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
        solver: A `LinearSolver`; or a fixed-point solver, which iterates t <- rhs + J t; or None for GMRES to 1e-10
            (1e-5 in single precision).
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
    if solver is None:  # asking a CPU whether it is done costs nothing
        solver = GMRES(check_every=1 if rhs.device.type == "cpu" else 5)
    with torch.no_grad():
        if isinstance(solver, LinearSolver):
            solution, iterations = _solve_linear(solver, _operator(forward, adjoint, rhs), rhs, initial)
        else:
            solution, iterations = _iterate(solver, forward, rhs, initial)
        if info is not None:
            _measure(info, forward, adjoint, rhs, solution, iterations, certify)
    return solution


def _solve_linear(solver, operator, rhs, initial) -> tuple[Tensor, Tensor]:
    if initial is None:
        solution, info = solver.solve(solver.init(operator), rhs)
        return solution, info.iterations
    # Warm start by the correction, which every linear solver can do.
    solution, info = solver.solve(solver.init(operator), rhs - operator.matvec(initial))
    return initial + solution, info.iterations


def _iterate(solver, product, rhs, initial) -> tuple[Tensor, Tensor]:
    start = (rhs if initial is None else initial).reshape(-1, rhs.shape[-1])

    def step(t: Tensor) -> Tensor:
        return (rhs + product(t.reshape(rhs.shape))).reshape(t.shape)

    result = solver.run(step, start)
    return result.value.reshape(rhs.shape), result.iterations.reshape(rhs.shape[:-1])


def _operator(forward, adjoint, rhs: Tensor) -> FunctionOperator:
    n = rhs.shape[-1]
    return FunctionOperator(
        lambda t: t - forward(t), lambda t: t - adjoint(t), (n, n), rhs.shape[:-1], rhs.dtype, rhs.device
    )


def _measure(info: AdjointInfo, forward, adjoint, rhs, solution, iterations, certify) -> None:
    info.solution, info.iterations = solution, iterations
    info.residual = torch.linalg.vector_norm(rhs - solution + forward(solution), dim=-1)
    if certify:
        matrix = _operator(forward, adjoint, rhs).as_matrix()
        smallest = torch.linalg.svdvals(matrix)[..., -1]
        info.inverse_norm = smallest.reciprocal()
        info.error_bound = info.residual * info.inverse_norm

"""Hypergradients of bilevel problems by approximate implicit differentiation.

    minimise F(theta) = outer(w*(theta), theta)   over theta,   w*(theta) = argmin_w inner(w, theta).

With H = d^2 inner / dw^2 at w*, H u = d outer / dw gives  dF/dtheta = d outer / dtheta - (d^2 inner / dtheta dw) u.
"Approximate" means that w is near w* and u near its solution; how u is found is a linear solver of `conelayers.linalg`:
conjugate gradients (Pedregosa 2016), the Neumann series (Lorraine, Vicol & Duvenaud 2020), or, from a start, the
fixed-point iteration of Grazzi, Franceschi, Pontil & Salzo (2020), which is the same series for the residual.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.bilevel.functions import Tensors, flatten, gradients, leaves, recorded, unflatten
from conelayers.errors import InaccurateWarning, InvalidArgument
from conelayers.linalg import CG, MINRES, FunctionOperator, KrylovSolver, LinearSolver
from conelayers.settings import check_kind

__all__ = ["BilevelProblem", "Hypergradient", "implicit_hypergradient"]


@dataclass(frozen=True)
class BilevelProblem:
    """Two scalar functions of (w, theta), each a tuple of tensors.

    Attributes:
        inner: inner(w, theta), twice differentiable in w, once more in theta.
        outer: outer(w, theta).
    """

    inner: Callable[[Tensors, Tensors], Tensor]
    outer: Callable[[Tensors, Tensors], Tensor]


@dataclass(frozen=True)
class Hypergradient:
    """The result of one evaluation.

    Attributes:
        value: outer(w, theta), a scalar.
        gradient: One tensor per tensor of theta.
        adjoint: u, flat; starts the next solve.
        residual: ||H u - d outer / dw|| / ||d outer / dw||, a scalar, measured on u (zero where d outer / dw is); None
            where no system with H is solved to a tolerance.
    """

    value: Tensor
    gradient: Tensors
    adjoint: Tensor
    residual: Tensor | None = None


def implicit_hypergradient(
    problem: BilevelProblem,
    w: Tensors,
    theta: Tensors,
    solver: LinearSolver | None = None,
    start: Tensor | None = None,
) -> Hypergradient:
    """The hypergradient at an approximate inner solution.

    Args:
        problem: The two functions.
        w: Approximate inner solution.
        theta: Outer variables.
        solver: How the system with the inner Hessian is solved, by products with it: `CG(max_iterations=50)` by
            default; `Neumann(step=..., max_iterations=...)` with step below 2 / ||H||; `MINRES()` where w is a
            stationary point and no minimum. Where conjugate gradients meet a direction without positive curvature,
            `MINRES()` takes over.
        start: The `adjoint` of a previous evaluation.

    Raises:
        InvalidArgument: A function does not return a scalar, or an argument is of the wrong kind; the message says
            which.
        UnsupportedError: It is called inside a `torch.func` transform or inference mode.

    Warns:
        InaccurateWarning: The relative residual of the system exceeds 1e-2. What is returned is the last iterate.
    """
    solver = CG(tolerance=1e-10, max_iterations=50) if solver is None else solver
    check_kind("solver", solver, LinearSolver)
    w, theta = leaves("w", w), leaves("theta", theta)
    size = sum(t.numel() for t in w)
    if start is not None and (not isinstance(start, Tensor) or start.shape != (size,)):
        raise InvalidArgument(f"start must be the adjoint of an evaluation with {size} inner numbers; got {start!r}.")
    with torch.enable_grad():
        value = recorded("outer", problem.outer(w, theta))
        outer_grads = gradients((value,), (*w, *theta))
        slope = gradients((recorded("inner", problem.inner(w, theta)),), w, create_graph=True)

        def product(vector: Tensor) -> Tensor:
            return flatten(gradients(slope, w, unflatten(vector, w), retain_graph=True))

        g = flatten(outer_grads[: len(w)])
        u = _solve(solver, product, g, start).detach()
        # One sweep for the mixed derivative and for the product that measures u.
        moved = gradients(slope, (*w, *theta), unflatten(u, w))
    gradient = tuple(direct - mixed for direct, mixed in zip(outer_grads[len(w) :], moved[len(w) :], strict=True))
    return Hypergradient(value.detach(), gradient, u, _measured(g, flatten(moved[: len(w)])))


def _solve(solver: LinearSolver, product: Callable[[Tensor], Tensor], g: Tensor, start: Tensor | None) -> Tensor:
    """An approximate solution u of H u = g; vectors are flat, shape (d,)."""
    operator = FunctionOperator(product, product, (len(g), len(g)), torch.Size(), g.dtype, g.device)
    if not isinstance(solver, KrylovSolver):
        return solver.solve(solver.init(operator), g)[0]
    if g.device.type == "cpu":
        solver = dataclasses.replace(solver, check_every=1)  # asking is free there
    u, info = solver.solve(solver.init(operator), g, start)
    used, limit = int(info.iterations), solver.max_iterations
    if (
        not isinstance(solver, CG)
        or not info.residual > solver.wanted(g.dtype)
        or (limit is not None and used >= limit)
    ):
        return u
    rest = None if limit is None else limit - used
    general = MINRES(solver.tolerance, rest, solver.check_every)
    return general.solve(general.init(operator), g, u)[0]


def _measured(g: Tensor, found: Tensor) -> Tensor:
    """The relative residual, and a warning where it is large."""
    size = torch.linalg.vector_norm(g)
    residual = torch.linalg.vector_norm(g - found).detach() / torch.where(size > 0, size, 1.0)
    if not residual <= 1e-2:
        warnings.warn(
            f"the system with the inner Hessian is solved to a relative residual of {float(residual):.1e} only: raise "
            "the solver's max_iterations, pass the last adjoint as start, or rescale the inner variables; an inner "
            "Hessian that is not positive definite, or singular, belongs to a w that is no strict minimum.",
            InaccurateWarning,
            stacklevel=3,
        )
    return residual

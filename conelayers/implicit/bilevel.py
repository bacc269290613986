"""Hypergradients of bilevel problems by approximate implicit differentiation.

    minimise F(theta) = outer(w*(theta), theta)   over theta,   w*(theta) = argmin_w inner(w, theta).

With H = d^2 inner / dw^2 at w*, H u = d outer / dw gives  dF/dtheta = d outer / dtheta - (d^2 inner / dtheta dw) u.
"Approximate" means that w is near w* and u near its solution; how u is found is a value, one class per method.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.implicit.neumann import neumann_sum
from conelayers.linalg import CG, FunctionOperator

__all__ = [
    "BilevelProblem",
    "ConjugateGradient",
    "FixedPointAdjoint",
    "HessianSolver",
    "Hypergradient",
    "Neumann",
    "implicit_hypergradient",
]

Tensors = tuple[Tensor, ...]
Product = Callable[[Tensor], Tensor]


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
    """

    value: Tensor
    gradient: Tensors
    adjoint: Tensor


class HessianSolver(abc.ABC):
    """How H u = g is solved, from products with H alone."""

    @abc.abstractmethod
    def solve(self, product: Product, g: Tensor, start: Tensor | None) -> Tensor:
        """An approximate solution; vectors are flat, shape (d,)."""


@dataclass(frozen=True)
class ConjugateGradient(HessianSolver):
    """Conjugate gradients (Pedregosa 2016; Ji, Yang & Liang 2021), for positive definite H.

    Args:
        steps: Most iterations, each a product with H; two more measure residuals.
        rtol: Relative residual at which to stop.
    """

    steps: int = 50
    rtol: float = 1e-10

    def solve(self, product: Product, g: Tensor, start: Tensor | None) -> Tensor:
        """See `HessianSolver.solve`."""
        solver = CG(tolerance=self.rtol, max_iterations=self.steps, check_every=1 if g.device.type == "cpu" else 5)
        operator = FunctionOperator(product, product, (len(g), len(g)), torch.Size(), g.dtype, g.device)
        return solver.solve(solver.init(operator), g, start)[0]


@dataclass(frozen=True)
class Neumann(HessianSolver):
    """The truncated series u = step sum_{q < terms} (I - step H)^q g (Lorraine, Vicol & Duvenaud 2020).

    Args:
        terms: Number of terms.
        step: Below 2 / ||H||, or the series diverges.
    """

    terms: int = 20
    step: float = 0.1

    def solve(self, product: Product, g: Tensor, start: Tensor | None) -> Tensor:
        """See `HessianSolver.solve`; a series has no start."""
        return neumann_sum(lambda v: v - self.step * product(v), self.step * g, self.terms)


@dataclass(frozen=True)
class FixedPointAdjoint(HessianSolver):
    """The iteration u <- u - step (H u - g) (Grazzi, Franceschi, Pontil & Salzo 2020), which profits from a warm start.

    Args:
        steps: Number of iterations.
        step: Below 2 / ||H||.
    """

    steps: int = 20
    step: float = 0.1

    def solve(self, product: Product, g: Tensor, start: Tensor | None) -> Tensor:
        """See `HessianSolver.solve`."""
        # The steps add up to the Neumann series of the first residual.
        residual = g if start is None else g - product(start)
        moved = neumann_sum(lambda v: v - self.step * product(v), self.step * residual, self.steps)
        return moved if start is None else start + moved


def flatten(tensors: Tensors) -> Tensor:
    """One vector from a tuple of tensors."""
    return torch.cat([t.reshape(-1) for t in tensors])


def unflatten(vector: Tensor, like: Tensors) -> Tensors:
    """The inverse of `flatten`."""
    parts = torch.split(vector, [t.numel() for t in like])
    return tuple(part.reshape(t.shape) for part, t in zip(parts, like, strict=True))


def _leaves(tensors: Tensors) -> Tensors:
    return tuple(t.detach().requires_grad_() for t in tensors)


def implicit_hypergradient(
    problem: BilevelProblem,
    w: Tensors,
    theta: Tensors,
    solver: HessianSolver | None = None,
    start: Tensor | None = None,
) -> Hypergradient:
    """The hypergradient at an approximate inner solution.

    Args:
        problem: The two functions.
        w: Approximate inner solution.
        theta: Outer variables.
        solver: How the system with the inner Hessian is solved; conjugate gradients by default.
        start: The `adjoint` of a previous evaluation.

    Raises:
        InvalidArgument: A function does not return a scalar.
    """
    solver = solver if solver is not None else ConjugateGradient()
    w, theta = _leaves(w), _leaves(theta)
    with torch.enable_grad():
        value, inner = problem.outer(w, theta), problem.inner(w, theta)
        if value.ndim or inner.ndim:
            raise InvalidArgument("inner and outer must return scalar tensors")
        outer_grads = torch.autograd.grad(value, (*w, *theta), allow_unused=True, materialize_grads=True)
        slope = torch.autograd.grad(inner, w, create_graph=True, allow_unused=True, materialize_grads=True)
        flat = flatten(slope)

        def product(vector: Tensor) -> Tensor:
            out = torch.autograd.grad(flat, w, vector, retain_graph=True, allow_unused=True, materialize_grads=True)
            return flatten(out)

        u = solver.solve(product, flatten(outer_grads[: len(w)]), start).detach()
        cross = torch.autograd.grad(flat, theta, u, allow_unused=True, materialize_grads=True)
    gradient = tuple(direct - mixed for direct, mixed in zip(outer_grads[len(w) :], cross, strict=True))
    return Hypergradient(value.detach(), gradient, u)

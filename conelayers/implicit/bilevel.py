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

from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.implicit.neumann import neumann_sum
from conelayers.linalg import CG, FunctionOperator
from conelayers.settings import check_kind, require_counts, require_numbers

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

    def __post_init__(self) -> None:
        require_counts(self, steps=0)
        require_numbers(self, rtol="[0, inf)")

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

    def __post_init__(self) -> None:
        require_counts(self, terms=0)
        require_numbers(self, step="(0, inf)")

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

    def __post_init__(self) -> None:
        require_counts(self, steps=0)
        require_numbers(self, step="(0, inf)")

    def solve(self, product: Product, g: Tensor, start: Tensor | None) -> Tensor:
        """See `HessianSolver.solve`."""
        # The steps add up to the Neumann series of the first residual.
        residual = g if start is None else g - product(start)
        moved = neumann_sum(lambda v: v - self.step * product(v), self.step * residual, self.steps)
        return moved if start is None else start + moved


def flatten(tensors: Tensors) -> Tensor:
    """One vector from a tuple of tensors."""
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)


def unflatten(vector: Tensor, like: Tensors) -> Tensors:
    """The inverse of `flatten`."""
    parts = torch.split(vector, [t.numel() for t in like])
    return tuple(part.reshape(t.shape) for part, t in zip(parts, like, strict=True))


def leaves(name: str, tensors: Tensors) -> Tensors:
    """The same values, cut off from all graphs and ready to be differentiated.

    Raises:
        InvalidArgument: They are no tuple of floating-point tensors.
        UnsupportedError: This is inside a `torch.func` transform or inference mode.
    """
    if not isinstance(tensors, tuple | list) or not all(
        isinstance(t, Tensor) and t.is_floating_point() for t in tensors
    ):
        raise InvalidArgument(f"{name} must be a tuple of floating-point tensors, (tensor,) for one; got {tensors!r}.")
    if torch._C._are_functorch_transforms_active() or torch.is_inference_mode_enabled():
        raise UnsupportedError(
            "Hypergradients are not taken inside torch.func transforms (loop over the problems), nor inside "
            "torch.inference_mode (take torch.no_grad)."
        )
    return tuple(t.detach().requires_grad_() for t in tensors)


def scalar(name: str, value: Tensor) -> Tensor:
    """The same value, if it is a scalar tensor.

    Raises:
        InvalidArgument: It is not.
    """
    if not isinstance(value, Tensor) or value.ndim:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InvalidArgument(f"{name} must return a scalar tensor, of shape (); got {got}.")
    return value


def recorded(name: str, value: Tensor) -> Tensor:
    """The same value, if it is a scalar tensor with a graph: without one its derivative would be a silent zero.

    Raises:
        InvalidArgument: It is not.
    """
    if not scalar(name, value).requires_grad:
        raise InvalidArgument(
            f"{name} returned a tensor without derivatives; compute it from its arguments by torch operations, without "
            "detach(), item() or NumPy."
        )
    return value


def gradients(outputs: Tensors, inputs: Tensors, cotangents: Tensors | None = None, **options: bool) -> Tensors:
    """Vector-Jacobian products, zero where an output does not depend on an input."""
    pairs = [(z, g) for z, g in zip(outputs, cotangents or (None,) * len(outputs), strict=True) if z.requires_grad]
    if not pairs or not inputs:
        return tuple(torch.zeros_like(t) for t in inputs)
    values, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(values, inputs, weights, allow_unused=True, materialize_grads=True, **options)


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
        InvalidArgument: A function does not return a scalar, or an argument is none; the message says which.
        UnsupportedError: It is called inside a `torch.func` transform or inference mode.
    """
    solver = solver if solver is not None else ConjugateGradient()
    check_kind("solver", solver, HessianSolver)
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

        u = solver.solve(product, flatten(outer_grads[: len(w)]), start).detach()
        cross = gradients(slope, theta, unflatten(u, w))
    gradient = tuple(direct - mixed for direct, mixed in zip(outer_grads[len(w) :], cross, strict=True))
    return Hypergradient(value.detach(), gradient, u)

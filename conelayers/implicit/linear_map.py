"""A fixed linear map with a known transpose, as an equation: z - M theta = 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from conelayers.implicit.equation import Equation
from conelayers.implicit.function import implicit

__all__ = ["LinearMap", "LinearOperator"]


class LinearOperator(Protocol):
    """Numerics of a linear map R^k -> R^l on tensors of shape (*batch, k) and (*batch, l), without autograd."""

    def apply(self, theta: Tensor) -> Tensor:
        """M theta."""
        ...

    def apply_transpose(self, values: Tensor) -> Tensor:
        """M' values."""
        ...


class LinearMap(Equation):
    """z = M theta with derivatives by the stated transpose, so that fast kernels can sit inside any transform.

    Args:
        operator: The map's numerics.
        transposed: Apply the transpose instead.
    """

    def __init__(self, operator: LinearOperator, transposed: bool = False) -> None:
        self.operator, self.transposed = operator, transposed

    @property
    def event_dims(self) -> Sequence[int]:
        """One vector."""
        return (1,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply the map."""
        (theta,) = inputs
        return (self.operator.apply_transpose(theta) if self.transposed else self.operator.apply(theta),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The transposed map applied to the cotangent."""
        return implicit(LinearMap(self.operator, not self.transposed), *cotangents)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The map applied to the tangent."""
        return implicit(self, *tangents)

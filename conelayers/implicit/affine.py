"""Fixed affine and linear maps with a known transpose, as equations: z - (M theta + c) = 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from conelayers.implicit.equation import Equation
from conelayers.implicit.function import implicit

__all__ = ["Affine", "AffineOperator", "Linear"]


class AffineOperator(Protocol):
    """Numerics of theta -> M theta + c, R^k -> R^l, on tensors (*batch, k) and (*batch, l), without autograd."""

    def apply(self, theta: Tensor) -> Tensor:
        """M theta + c."""
        ...

    def apply_linear(self, theta: Tensor) -> Tensor:
        """M theta."""
        ...

    def apply_transpose(self, values: Tensor) -> Tensor:
        """M' values."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(Equation):
    """z = M theta (or M' theta), with derivatives by the stated transpose, so fast kernels sit inside any transform.

    Attributes:
        operator: The map's numerics.
        transposed: Apply the transpose instead.
    """

    operator: AffineOperator
    transposed: bool = False

    @property
    def event_dims(self) -> Sequence[int]:
        """One vector."""
        return (1,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply the map."""
        (theta,) = inputs
        return (self.operator.apply_transpose(theta) if self.transposed else self.operator.apply_linear(theta),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The transposed map applied to the cotangent."""
        return implicit(Linear(self.operator, not self.transposed), *cotangents)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The map applied to the tangent."""
        return implicit(self, *(t for t in tangents if t is not None))


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Equation):
    """z = M theta + c.

    Attributes:
        operator: The map's numerics.
    """

    operator: AffineOperator

    @property
    def event_dims(self) -> Sequence[int]:
        """One vector."""
        return (1,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply the map."""
        return (self.operator.apply(*inputs),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """M' times the cotangent."""
        return implicit(Linear(self.operator, transposed=True), *cotangents)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """M times the tangent."""
        return implicit(Linear(self.operator), *(t for t in tangents if t is not None))

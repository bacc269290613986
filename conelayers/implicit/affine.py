"""Fixed affine and linear maps with a known transpose, as equations: z - (M theta + c) = 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.function import implicit

__all__ = ["Affine", "AffineOperator", "Linear", "LinearOperator"]


class LinearOperator(Protocol):
    """Numerics of a linear map R^k -> R^l on tensors (*batch, k) and (*batch, l), without autograd."""

    def apply_linear(self, theta: Tensor) -> Tensor:
        """M theta."""
        ...

    def apply_transpose(self, values: Tensor) -> Tensor:
        """M' values."""
        ...


class AffineOperator(Protocol):
    """Numerics of (theta_1, theta_2, ...) -> M_1 theta_1 + M_2 theta_2 + ... + c, without autograd."""

    @property
    def parts(self) -> Sequence[LinearOperator]:
        """The linear maps M_b."""
        ...

    def apply(self, *thetas: Tensor) -> Tensor:
        """The sum; theta_b (*batch, k_b), batch axes broadcasting, to (*batch, l)."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(Equation):
    """z = M theta (or M' theta), with derivatives by the stated transpose, so fast kernels sit inside any transform.

    Attributes:
        operator: The map's numerics.
        transposed: Apply the transpose instead.
    """

    operator: LinearOperator
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
        return implicit(Linear(self.operator, not self.transposed), *zeros_for_none(cotangents, outputs))

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The map applied to the tangent."""
        return implicit(self, *(t for t in tangents if t is not None))


@dataclasses.dataclass(frozen=True, eq=False)
class Affine(Equation):
    """z = M_1 theta_1 + M_2 theta_2 + ... + c.

    Attributes:
        operator: The map's numerics.
    """

    operator: AffineOperator

    @property
    def event_dims(self) -> Sequence[int]:
        """Vectors, one per part."""
        return (1,) * len(self.operator.parts)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply the map."""
        return (self.operator.apply(*inputs),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """M_b' times the cotangent, summed first over the batch axes that theta_b lacks."""
        (g,) = zeros_for_none(cotangents, outputs)
        return tuple(
            implicit(Linear(part, transposed=True), g.sum_to_size(*theta.shape[:-1], g.shape[-1]))[0] if use else None
            for part, theta, use in zip(self.operator.parts, inputs, needed, strict=True)
        )

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The sum of M_b times the tangents."""
        moved = torch.zeros_like(outputs[0])
        for part, tangent in zip(self.operator.parts, tangents, strict=True):
            if tangent is not None:
                moved = moved + implicit(Linear(part), tangent)[0]
        return (moved,)

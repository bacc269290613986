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
    """Numerics of (theta_1, theta_2, ...) -> (z_1, z_2, ...), without autograd: z_k = sum_b M_kb theta_b + c_k."""

    @property
    def entering(self) -> Sequence[Sequence[int]]:
        """For each z_k the numbers of the theta_b that enter it; each enters one at least."""
        ...

    @property
    def linear(self) -> AffineOperator:
        """The map without its constants."""
        ...

    @property
    def transpose(self) -> AffineOperator:
        """(z_1, z_2, ...) -> (theta_1, theta_2, ...) by the blocks M_kb'."""
        ...

    def select(self, rows: tuple[bool, ...], columns: tuple[bool, ...]) -> AffineOperator:
        """The map to some of the z_k from some of the theta_b, the others being zero."""
        ...

    def apply(self, *thetas: Tensor) -> tuple[Tensor, ...]:
        """The z_k, shape (*batch, l_k); theta_b (*batch, k_b). z_k has the batch axes of those that enter it."""
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
    """z_k = M_k1 theta_1 + M_k2 theta_2 + ... + c_k.

    Attributes:
        operator: The map's numerics.
        inputs: Number of the theta_b.
    """

    operator: AffineOperator
    inputs: int

    @property
    def event_dims(self) -> Sequence[int]:
        """Vectors."""
        return (1,) * self.inputs

    def carries(self, batched: tuple[bool, ...], outputs: int) -> tuple[bool, ...]:
        """What depends on shared vectors alone is shared."""
        return tuple(any(batched[b] for b in blocks) for blocks in self.operator.entering)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Apply the map."""
        return self.operator.apply(*inputs)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """M_kb' times the cotangents, summed first over the batch axes that theta_b lacks."""
        entering, found = self.operator.entering, dict.fromkeys(range(len(inputs)))
        for batch in {theta.shape[:-1] for theta, use in zip(inputs, needed, strict=True) if use}:
            alike = {b for b, theta in enumerate(inputs) if needed[b] and theta.shape[:-1] == batch}
            given = {
                k: g.sum_to_size(*batch, g.shape[-1])
                for k, g in enumerate(cotangents)
                if g is not None and not alike.isdisjoint(entering[k])
            }
            if given:
                reached = alike.intersection(b for k in given for b in entering[k])
                rows = tuple(k in given for k in range(len(outputs)))
                part = self.operator.select(rows, tuple(b in reached for b in range(len(inputs))))
                pulled = implicit(Affine(part.transpose, len(given)), *given.values())
                found.update(zip(sorted(reached), pulled, strict=True))
        return tuple(found.values())

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """M_kb times the tangents; zero where none of what moves enters."""
        moving = tuple(t is not None for t in tangents)
        reached = tuple(any(moving[b] for b in blocks) for blocks in self.operator.entering)
        part = Affine(self.operator.select(reached, moving).linear, sum(moving))
        moved = iter(implicit(part, *(t for t in tangents if t is not None)))
        return tuple(
            torch.zeros_like(z) + next(moved) if use else torch.zeros_like(z)
            for z, use in zip(outputs, reached, strict=True)
        )

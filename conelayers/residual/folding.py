"""Batch axes of linear systems: which are shared by a matrix (several right-hand sides) and which are not."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from conelayers.program.shapes import broadcast

__all__ = ["Folding"]


@dataclasses.dataclass(frozen=True)
class Folding:
    """Turns any batch axes into one axis B of matrices and one axis k of right-hand sides for each matrix.

    An axis along which every matrix is the same (size 1 or absent there) holds several right-hand sides of one matrix;
    so a Jacobian by `vmap`, or a shared problem with many cotangents, costs a single factorization.

    Attributes:
        full: The broadcast batch shape of matrices and right-hand sides.
        own: Axes of `full` along which matrices differ; they become B.
        shared: The other axes; they become k.
    """

    full: torch.Size
    own: tuple[int, ...]
    shared: tuple[int, ...]

    @classmethod
    def of(cls, fixed: Sequence[torch.Size], rhs: Sequence[torch.Size]) -> Folding:
        """The folding for batch shapes of the matrices' data (`fixed`) and of the right-hand sides."""
        fixed_shape = broadcast(*fixed)
        full = broadcast(fixed_shape, *rhs)
        padded = (1,) * (len(full) - len(fixed_shape)) + tuple(fixed_shape)
        own = tuple(i for i, size in enumerate(padded) if size > 1)
        return cls(full, own, tuple(i for i in range(len(full)) if i not in own))

    @functools.cached_property
    def items(self) -> int:
        """The length B of the axis of matrices."""
        return math.prod(self._own_shape)

    @functools.cached_property
    def rhs_count(self) -> int:
        """The length k of the axis of right-hand sides."""
        return math.prod(self._shared_shape)

    @functools.cached_property
    def _own_shape(self) -> list[int]:
        return [self.full[i] for i in self.own]

    @functools.cached_property
    def _shared_shape(self) -> list[int]:
        return [self.full[i] for i in self.shared]

    @functools.cached_property
    def _order(self) -> tuple[int, ...]:
        return (*self.own, *self.shared)

    @functools.cached_property
    def _in_order(self) -> bool:
        """Whether folding moves no axis: then it is a reshape."""
        return self._order == tuple(range(len(self.full)))

    def fold_fixed(self, values: Tensor, always_batched: bool = False) -> Tensor:
        """(*batch, size) to (B, size), or to (1, size) where all items share the values.

        Args:
            values: Data of the matrices.
            always_batched: Expand to B items even if they are all the same.
        """
        if values.dim() == 2 and len(values) == self.items and len(self.full) == 1:
            return values
        batch, size = values.shape[:-1], values.shape[-1]
        if batch.numel() == 1 and (self.items == 1 or not always_batched):
            return values.reshape(1, size)
        if batch == self.full and self.rhs_count == 1:
            return values.reshape(self.items, size)
        padded = values.reshape(*(1,) * (len(self.full) - values.dim() + 1), *values.shape)
        squeezed = padded.reshape((*(padded.shape[i] for i in self.own), size))
        return squeezed.expand(*self._own_shape, size).reshape(self.items, size)

    def fold_rhs(self, values: Tensor) -> Tensor:
        """(*batch, size) to (B, k, size)."""
        size = values.shape[-1]
        spread = values if values.shape[:-1] == self.full else values.expand(*self.full, size)
        if not self._in_order:
            spread = spread.permute(*self._order, len(self.full))
        return spread.reshape(self.items, self.rhs_count, size)

    def unfold(self, values: Tensor) -> Tensor:
        """(B, k, size) back to (*full, size)."""
        spread = values.reshape(*self._own_shape, *self._shared_shape, values.shape[-1])
        if self._in_order:
            return spread
        inverse = sorted(range(len(self._order)), key=self._order.__getitem__)
        return spread.permute(*inverse, len(self._order))

"""Rows of a cone that share one scale."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from conelayers.cones import Cone, Nonnegative, Zero
from conelayers.program import ConeStructure

__all__ = ["Blocks"]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The rows of each curved cone together, and each row of a polyhedral one by itself.

    Attributes:
        of_row: The block of each row, shape (m,).
        count: How many blocks there are.
    """

    of_row: Tensor
    count: int

    @classmethod
    def of(cls, structure: ConeStructure) -> Blocks:
        """The blocks of a structure's rows."""
        return _blocks(structure.cone.cones)

    def largest(self, values: Tensor) -> Tensor:
        """Largest entry in each block, 0 at least, shape (*batch, count), for values of shape (*batch, m)."""
        index = self.of_row.to(values.device).expand(values.shape)
        return values.new_zeros((*values.shape[:-1], self.count)).scatter_reduce(-1, index, values, "amax")

    def spread(self, values: Tensor) -> Tensor:
        """Values of blocks row by row, shape (*batch, m)."""
        return values[..., self.of_row.to(values.device)]


@functools.lru_cache(maxsize=64)
def _blocks(cones: tuple[Cone, ...]) -> Blocks:
    numbers, count = [], 0
    for cone in cones:
        alone = isinstance(cone, Zero | Nonnegative)
        numbers += list(range(count, count + cone.dim)) if alone else [count] * cone.dim
        count += cone.dim if alone else 1
    return Blocks(torch.tensor(numbers, dtype=torch.int64), count)

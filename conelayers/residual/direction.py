"""A generic direction of the data that a layer's parameters can move."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

__all__ = ["OUTSIDE", "Direction"]

OUTSIDE = 1e-6
"""What the linearised conditions may leave of a motion of the data, relative, where they have a solution."""


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """Tangents of P, q, A and b, the same for all items of a batch.

    Arrays and not tensors: one made inside a `torch.func` transform would belong to it.

    Attributes:
        parts: float64 arrays (P_nnz,), (n,), (A_nnz,) and (m,).
    """

    parts: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, parts: tuple[np.ndarray, ...]) -> Direction | None:
        """With largest entry 1; None if nothing moves."""
        size = max((float(np.abs(part).max(initial=0.0)) for part in parts), default=0.0)
        return cls(tuple(part / size for part in parts)) if size > 0 else None

    @functools.cached_property
    def values(self) -> np.ndarray:
        """All four in a row."""
        return np.ascontiguousarray(np.concatenate(self.parts))

    def tensors(self, like: Tensor) -> tuple[Tensor, ...]:
        """Rows (1, size), of the dtype and device of `like`."""
        return tuple(torch.from_numpy(part)[None].to(like) for part in self.parts)

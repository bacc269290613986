"""A generic direction of the data that a layer's parameters can move."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

from conelayers.program import ConeStructure

__all__ = ["OUTSIDE", "Direction", "Watch", "weakly_active"]

_WEAK = 1e-6
"""Relative distance to a kink up to which a point is taken to lie on it."""
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
        """All four in a row, (1, P_nnz + n + A_nnz + m)."""
        return np.ascontiguousarray(np.concatenate(self.parts)[None])

    def row(self, device: torch.device) -> Tensor:
        """The same on a device."""
        if device not in self._rows:
            with torch.inference_mode(False):
                self._rows[device] = torch.from_numpy(self.values).to(device)
        return self._rows[device]

    @functools.cached_property
    def _rows(self) -> dict[torch.device, Tensor]:
        return {}

    def tensors(self, like: Tensor) -> tuple[Tensor, ...]:
        """Rows (1, size), of the dtype and device of `like`."""
        return tuple(torch.from_numpy(part)[None].to(like) for part in self.parts)


def weakly_active(structure: ConeStructure, v: Tensor) -> Tensor:
    """Which items have a block whose constraint is active without force, for v = y - s of (B, m); bool, (B,)."""
    size = v.abs().amax(-1, keepdim=True) if v.shape[-1] else v.new_zeros(len(v), 1)
    return (structure.cone.margin(v) <= _WEAK * (1 + size)).any(-1)


class Watch:
    """What one backward pass finds out about its batch on the side.

    Args:
        rows: How the data may move, see `Direction.row`; or a row for each item.

    Attributes:
        seen: Whether a kernel has looked.
        selects: Whether some item may ask for other multipliers or another element of the Clarke Jacobian.
    """

    def __init__(self, rows: Tensor | None = None) -> None:
        self.rows, self.seen, self.selects = rows, False, False

    def note(self, structure: ConeStructure, outside: Tensor, y: Tensor, s: Tensor) -> None:
        """Take in what of the direction no motion of x, and none of v, follows: (B, 2), an entry beyond `OUTSIDE`.

        Where x alone does not follow, strictly within its active constraints, x is not unique, and the shortest
        solution stands.
        """
        primal, dual = (outside > OUTSIDE).unbind(-1)
        alone = primal & ~dual
        self.selects = bool(dual.any()) or bool(weakly_active(structure, (y - s)[alone]).any())

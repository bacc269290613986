"""Hyperparameters as one vector: their logarithms, flattened, within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument

__all__ = ["LogSpace"]


@dataclass(frozen=True)
class LogSpace:
    """Positive hyperparameters of fixed shapes, searched in their logarithms.

    Attributes:
        names: Name of each hyperparameter.
        shapes: Shape of each hyperparameter.
        lower: Smallest logarithm, shape (d,), d the number of scalars in all.
        upper: Largest logarithm, shape (d,).
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    lower: np.ndarray
    upper: np.ndarray

    @classmethod
    def between(cls, bounds: Mapping[str, tuple[object, object]]) -> LogSpace:
        """From {name: (smallest, largest)}, positive numbers or arrays that broadcast together.

        Raises:
            InvalidArgument: A bound is not positive and finite, or the smaller exceeds the larger.
        """
        shapes, lowers, uppers = [], [], []
        for name, (low, high) in bounds.items():
            a, b = np.broadcast_arrays(np.asarray(low, dtype=float), np.asarray(high, dtype=float))
            if not (np.all(a > 0) and np.all(np.isfinite(b)) and np.all(a <= b)):
                raise InvalidArgument(f"bounds of {name} must satisfy 0 < smallest <= largest < inf")
            shapes.append(a.shape)
            lowers.append(np.log(a).ravel())
            uppers.append(np.log(b).ravel())
        return cls(tuple(bounds), tuple(shapes), np.concatenate(lowers), np.concatenate(uppers))

    @property
    def size(self) -> int:
        """Number of scalars."""
        return self.lower.size

    def pack(self, values: Sequence[object]) -> np.ndarray:
        """Logarithms of hyperparameters (each broadcast to its shape), shape (d,)."""
        parts = [
            np.log(np.broadcast_to(np.asarray(value, dtype=float), shape)).ravel()
            for value, shape in zip(values, self.shapes, strict=True)
        ]
        return np.concatenate(parts)

    def unpack(self, point: Tensor) -> tuple[Tensor, ...]:
        """Hyperparameters of a point in log space, differentiably."""
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        parts = torch.split(point, sizes)
        return tuple(part.exp().reshape(shape) for part, shape in zip(parts, self.shapes, strict=True))

    def values(self, point: np.ndarray) -> dict[str, float | np.ndarray]:
        """Hyperparameters by name; scalars as floats."""
        tensors = self.unpack(torch.as_tensor(point))
        arrays = {name: t.numpy() for name, t in zip(self.names, tensors, strict=True)}
        return {name: float(a) if a.ndim == 0 else a for name, a in arrays.items()}

    def clip(self, point: np.ndarray) -> np.ndarray:
        """The nearest point within the bounds."""
        return np.clip(point, self.lower, self.upper)

    def center(self) -> np.ndarray:
        """The middle of the bounds."""
        return 0.5 * (self.lower + self.upper)

"""Hyperparameters as one vector: their logarithms, flattened, within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument

__all__ = ["LogSpace"]


def _numbers(name: str, values: object) -> np.ndarray:
    """An array of real numbers, tensors with or without derivatives among them."""
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} must hold real numbers, got {values!r}") from error


def _together(name: str, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    try:
        return tuple(np.broadcast_arrays(a, b))
    except ValueError as error:
        raise InvalidArgument(f"{name} must have shapes that broadcast, got {a.shape} and {b.shape}") from error


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
            InvalidArgument: A bound is not positive and finite, the smaller exceeds the larger, or there are none.
        """
        if not isinstance(bounds, Mapping) or not bounds:
            raise InvalidArgument(f"bounds must be {{name: (smallest, largest)}}, got {bounds!r}")
        shapes, lowers, uppers = [], [], []
        for name, pair in bounds.items():
            try:
                low, high = pair
            except (TypeError, ValueError) as error:
                raise InvalidArgument(f"bounds of {name} must be a pair (smallest, largest), got {pair!r}") from error
            a, b = (_numbers(f"bounds of {name}", value) for value in (low, high))
            a, b = _together(f"bounds of {name}", a, b)
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
        """Logarithms of hyperparameters (each broadcast to its shape), shape (d,).

        Raises:
            InvalidArgument: There are more or fewer of them, or one is not positive or of another shape.
        """
        if len(values) != len(self.names):
            raise InvalidArgument(f"values must be one for each of {', '.join(self.names)}; got {len(values)}")
        parts = []
        for name, value, shape in zip(self.names, values, self.shapes, strict=True):
            array = _numbers(name, value)
            if not (np.isfinite(array).all() and (array > 0).all()):
                raise InvalidArgument(f"{name} must be positive and finite, got {value!r}")
            try:
                parts.append(np.log(np.broadcast_to(array, shape)).ravel())
            except ValueError as error:
                raise InvalidArgument(f"{name} must have shape {shape}, got {array.shape}") from error
        return np.concatenate(parts)

    def unpack(self, point: Tensor) -> tuple[Tensor, ...]:
        """Hyperparameters of a point in log space, differentiably.

        Raises:
            InvalidArgument: The point has another number of entries.
        """
        if point.shape != self.lower.shape:
            raise InvalidArgument(f"point must have {self.size} entries, got shape {tuple(point.shape)}")
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

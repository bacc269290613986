"""Hyperparameters as one vector of search coordinates, flattened, within bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument

__all__ = ["LogSpace", "RealSpace"]


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


# How long the range of a linear coordinate is: as that of a positive hyperparameter over five decades.
_LENGTH = 5 * float(np.log(10))


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


@dataclass(frozen=True)
class RealSpace(LogSpace):
    """Real hyperparameters: positive ones in their logarithms, those whose bounds reach zero or below linearly.

    Attributes:
        linear: Which hyperparameters have linear coordinates: value = smallest + coordinate * (largest - smallest) /
            length, with coordinates from 0 to a length that is like the range of a logarithm.
        smallest: Smallest value of each scalar, shape (d,); used by linear ones.
        largest: Largest value of each scalar, shape (d,).
    """

    linear: tuple[bool, ...] = ()
    smallest: np.ndarray = field(default_factory=lambda: np.zeros(0))
    largest: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def between(cls, bounds: Mapping[str, tuple[object, object]]) -> RealSpace:
        """From {name: (smallest, largest)}, real numbers or arrays that broadcast together.

        Raises:
            InvalidArgument: A bound is not finite, the smaller exceeds the larger, or there are none.
        """
        if not isinstance(bounds, Mapping) or not bounds:
            raise InvalidArgument(f"bounds must be {{name: (smallest, largest)}}, got {bounds!r}")
        lows, highs, linear = [], [], []
        for name, pair in bounds.items():
            try:
                low, high = pair
            except (TypeError, ValueError) as error:
                raise InvalidArgument(f"bounds of {name} must be a pair (smallest, largest), got {pair!r}") from error
            a, b = (_numbers(f"bounds of {name}", value) for value in (low, high))
            a, b = _together(f"bounds of {name}", a, b)
            if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b)) and np.all(a <= b)):
                raise InvalidArgument(f"bounds of {name} must satisfy -inf < smallest <= largest < inf")
            lows.append(a)
            highs.append(b)
            linear.append(not np.all(a > 0))
        flat_low, flat_high = (np.concatenate([value.ravel() for value in values]) for values in (lows, highs))
        straight = np.repeat(linear, [value.size for value in lows])
        with np.errstate(divide="ignore", invalid="ignore"):
            lower = np.where(straight, 0.0, np.log(flat_low))
            upper = np.where(straight, np.where(flat_high > flat_low, _LENGTH, 0.0), np.log(flat_high))
        shapes = tuple(value.shape for value in lows)
        return cls(tuple(bounds), shapes, lower, upper, tuple(linear), flat_low, flat_high)

    def pack(self, values: Sequence[object]) -> np.ndarray:
        """Coordinates of hyperparameters (each broadcast to its shape), shape (d,).

        Raises:
            InvalidArgument: There are more or fewer of them, or one is not finite, not positive where its bounds are,
                or of another shape.
        """
        if len(values) != len(self.names):
            raise InvalidArgument(f"values must be one for each of {', '.join(self.names)}; got {len(values)}")
        parts, start = [], 0
        for name, value, shape, straight in zip(self.names, values, self.shapes, self.linear, strict=True):
            array, size = _numbers(name, value), int(np.prod(shape))
            if not np.isfinite(array).all() or not (straight or (array > 0).all()):
                raise InvalidArgument(f"{name} must be {'' if straight else 'positive and '}finite, got {value!r}")
            try:
                flat = np.broadcast_to(array, shape).ravel()
            except ValueError as error:
                raise InvalidArgument(f"{name} must have shape {shape}, got {array.shape}") from error
            low, width = self.smallest[start : start + size], self._widths[start : start + size]
            parts.append((flat - low) / width * _LENGTH if straight else np.log(flat))
            start += size
        return np.concatenate(parts)

    def unpack(self, point: Tensor) -> tuple[Tensor, ...]:
        """Hyperparameters of a point of coordinates, differentiably.

        Raises:
            InvalidArgument: The point has another number of entries.
        """
        if point.shape != self.lower.shape:
            raise InvalidArgument(f"point must have {self.size} entries, got shape {tuple(point.shape)}")
        sizes = [int(np.prod(shape)) for shape in self.shapes]
        low, width = (torch.split(torch.as_tensor(v).to(point), sizes) for v in (self.smallest, self._widths))
        parts = torch.split(point, sizes)
        return tuple(
            ((low[i] + part / _LENGTH * width[i]) if straight else part.exp()).reshape(shape)
            for i, (part, straight, shape) in enumerate(zip(parts, self.linear, self.shapes, strict=True))
        )

    @property
    def _widths(self) -> np.ndarray:
        return np.where(self.largest > self.smallest, self.largest - self.smallest, 1.0)

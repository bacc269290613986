"""A fixed-point map under `vmap`: mapped itself, and in its two parts where it is a monotone splitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.fixed_points.iterations import Map
from conelayers.fixed_points.maps import BoundFunction, ParametricMap

__all__ = ["Mapped"]


class Mapped(ParametricMap):
    """f over a new leading axis of z, its parameters mapped over the axes `in_dims` (None: shared).

    Args:
        f: The map.
        in_dims: One axis or None per parameter.
        size: Length of the mapped axis.
    """

    def __init__(self, f: ParametricMap, in_dims: Sequence[int | None], size: int) -> None:
        self.f, self.in_dims, self.size = f, tuple(in_dims), size

    def bind(self, theta: Sequence[Tensor]) -> Map:
        """See `ParametricMap.bind`."""
        theta = tuple(theta)
        plain = [t.select(d, 0) if d is not None else t for t, d in zip(theta, self.in_dims, strict=True)]
        splits = self.f.bind(plain).splitting is not None
        mapped = torch.func.vmap(self.f, in_dims=(0, *self.in_dims))
        return BoundFunction(lambda z: mapped(z, *theta), _MappedSplitting(self, theta) if splits else None)


class _MappedSplitting:
    """The parts of a splitting, on matrices of shape (items, n) whose rows lie along the mapped axis first."""

    def __init__(self, mapped: Mapped, theta: tuple[Tensor, ...]) -> None:
        self.theta, self.in_dims, self.size = theta, mapped.in_dims, mapped.size
        self.bind = mapped.f.bind
        self.shared = all(dim is None for dim in self.in_dims)

    def operator(self, z: Tensor) -> Tensor:
        return self._rows(lambda part, v: part.operator(v), z)

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return self._rows(lambda part, u: part.prox(u, alpha), v)

    def factor(self, alpha: float) -> Any:
        """One factor per place of the axis, or a single one where no parameter is mapped."""

        def one(*theta: Tensor) -> Any:
            return self._part(theta).factor(alpha)

        return one(*self.theta) if self.shared else torch.func.vmap(one, in_dims=self.in_dims)(*self.theta)

    def resolve(self, v: Tensor, alpha: float, factor: Any) -> Tensor:
        return self._rows(lambda part, u, factor: part.resolve(u, alpha, factor), v, factor)

    def resolvent(self, alpha: float) -> Callable[[Tensor], Tensor]:
        factor = self.factor(alpha)
        return lambda v: self.resolve(v, alpha, factor)

    def _part(self, theta: Sequence[Tensor]) -> Any:
        return self.bind(theta).splitting

    def _rows(self, method: Callable[..., Tensor], v: Tensor, *factors: Any) -> Tensor:
        """Apply a method of the inner splitting at every place of the axis."""

        def one(u: Tensor, factors: tuple[Any, ...], *theta: Tensor) -> Tensor:
            return method(self._part(theta), u, *factors)

        rows = v.reshape(self.size, -1, v.shape[-1])
        along = None if self.shared else 0
        return torch.func.vmap(one, in_dims=(0, along, *self.in_dims))(rows, factors, *self.theta).reshape(v.shape)

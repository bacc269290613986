"""A fixed-point map under `vmap`: mapped itself, and in its two parts where it is a monotone splitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Mapped"]


class Mapped:
    """f over a new leading axis of z, its parameters mapped over the axes `in_dims` (None: shared).

    Args:
        f: (z, *theta) -> tensor like z, perhaps with `bind`.
        in_dims: One axis or None per parameter.
        size: Length of the mapped axis.
    """

    def __init__(self, f: Any, in_dims: Sequence[int | None], size: int) -> None:
        self.f, self.in_dims, self.size = f, tuple(in_dims), size

    def __call__(self, z: Tensor, *theta: Tensor) -> Tensor:
        """The values at all places of the axis."""
        return torch.func.vmap(self.f, in_dims=(0, *self.in_dims))(z, *theta)

    def bind(self, theta: Sequence[Tensor]) -> _Bound:
        """The map of z alone."""
        return _Bound(self, tuple(theta))


class _Bound:
    """A `Mapped` function at fixed parameters; `splitting` where f has one."""

    def __init__(self, mapped: Mapped, theta: tuple[Tensor, ...]) -> None:
        self.mapped, self.theta = mapped, theta

    def __call__(self, z: Tensor) -> Tensor:
        return self.mapped(z, *self.theta)

    @property
    def splitting(self) -> _MappedSplitting | None:
        inner = self.mapped.f
        plain = [t.select(d, 0) if d is not None else t for t, d in zip(self.theta, self.mapped.in_dims, strict=True)]
        bind = getattr(inner, "bind", None)
        if bind is None or getattr(bind(plain), "splitting", None) is None:
            return None
        return _MappedSplitting(self)


class _MappedSplitting:
    """The parts of a splitting, on matrices of shape (items, n) whose rows lie along the mapped axis first."""

    def __init__(self, bound: _Bound) -> None:
        self.theta, self.in_dims, self.size = bound.theta, bound.mapped.in_dims, bound.mapped.size
        self.bind = bound.mapped.f.bind
        self.shared = all(dim is None for dim in self.in_dims)

    def operator(self, z: Tensor) -> Tensor:
        return self._rows(lambda part, v: part.operator(v), z)

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return self._rows(lambda part, u: part.prox(u, alpha), v)

    def factor(self, alpha: float) -> Any:
        """One factor per place of the axis, or a single one where no parameter is mapped."""

        def one(*theta: Tensor) -> Any:
            return self.bind(theta).splitting.factor(alpha)

        return one(*self.theta) if self.shared else torch.func.vmap(one, in_dims=self.in_dims)(*self.theta)

    def resolve(self, v: Tensor, alpha: float, factor: Any) -> Tensor:
        return self._rows(lambda part, u, factor: part.resolve(u, alpha, factor), v, factor)

    def resolvent(self, alpha: float) -> Callable[[Tensor], Tensor]:
        factor = self.factor(alpha)
        return lambda v: self.resolve(v, alpha, factor)

    def _rows(self, method: Callable[..., Tensor], v: Tensor, *factors: Any) -> Tensor:
        """Apply a method of the inner splitting at every place of the axis."""

        def one(u: Tensor, factors: tuple[Any, ...], *theta: Tensor) -> Tensor:
            return method(self.bind(theta).splitting, u, *factors)

        rows = v.reshape(self.size, -1, v.shape[-1])
        along = None if self.shared else 0
        return torch.func.vmap(one, in_dims=(0, along, *self.in_dims))(rows, factors, *self.theta).reshape(v.shape)

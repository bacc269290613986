"""Maps z -> f(z, theta) as solvers and equations see them.

A `Map` has its parameters bound and acts on z alone; a `ParametricMap` makes one from tensors. A map that is a monotone
splitting shows its two parts as `splitting`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.fixed_points.iterations import BoundSplitting, Map, MonotoneSplitting
from conelayers.fixed_points.layout import Arguments, Layout

__all__ = ["BoundFunction", "FlatMap", "ParametricFunction", "ParametricMap", "Rows", "parametric"]


class ParametricMap(abc.ABC):
    """f(z, *theta) on tensors z of shape (*batch, n)."""

    @abc.abstractmethod
    def bind(self, theta: Sequence[Tensor]) -> Map:
        """The map of z alone."""

    def __call__(self, z: Tensor, *theta: Tensor) -> Tensor:
        """f(z, *theta), shape (*batch, n)."""
        return self.bind(theta)(z)


class BoundFunction:
    """A function of z as a `Map`."""

    def __init__(self, function: Callable[[Tensor], Tensor], splitting: BoundSplitting | None = None) -> None:
        self.function, self.splitting = function, splitting

    def __call__(self, z: Tensor) -> Tensor:
        """The function's value."""
        return self.function(z)


class ParametricFunction(ParametricMap):
    """A function (z, *theta) -> tensor like z."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def bind(self, theta: Sequence[Tensor]) -> Map:
        """See `ParametricMap.bind`."""
        return BoundFunction(lambda z: self.function(z, *theta))


def parametric(f: Callable[..., Tensor]) -> ParametricMap:
    """F itself, or the function f as a map."""
    return f if isinstance(f, ParametricMap) else ParametricFunction(f)


class FlatMap(ParametricMap):
    """A user's f on flat tensors, its parameters given as the list of their tensors.

    Args:
        f: A function of nests.
        layout: Of z.
        arguments: Its parameters.
    """

    def __init__(self, f: Callable[..., Any], layout: Layout, arguments: Arguments) -> None:
        self.f, self.layout, self.arguments = f, layout, arguments

    def bind(self, theta: Sequence[Tensor]) -> Map:
        """See `ParametricMap.bind`."""
        params = self.arguments.fill(tuple(theta))
        splitting = _FlatSplitting(self.f, self.layout, params) if isinstance(self.f, MonotoneSplitting) else None
        return BoundFunction(lambda z: self._value(z, params), splitting)

    def _value(self, z: Tensor, params: tuple[Any, ...]) -> Tensor:
        try:
            value = self.f(self.layout.unflatten(z), *params)
        except Exception as error:
            self._note(error, params)
            raise
        return self.layout.flatten(value, of="f(z)")

    def _note(self, error: Exception, params: tuple[Any, ...]) -> None:
        """Say in a note what f was given; what f raises keeps its class and place, and is its author's."""
        shapes = [tuple(self.layout.batch + event) for event in self.layout.events]
        others = [(tuple(t.shape), t.dtype) for t in Arguments(params).tensors]
        note = (
            f"Raised by f, called at z of the kind of z0 of shapes {shapes} and {self.layout.dtype}, params {others}. "
            "If f computes with other shapes or dtypes, give it z0 and params of those."
        )
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


class _FlatSplitting:
    """A `MonotoneSplitting` at fixed parameters on matrices of shape (items, n)."""

    def __init__(self, f: MonotoneSplitting, layout: Layout, params: tuple[Any, ...]) -> None:
        self.f, self.layout, self.params = f, layout, params

    def operator(self, z: Tensor) -> Tensor:
        return self._flat(self.f.operator(self._nest(z), *self.params), z)

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return self._flat(self.f.prox(self._nest(v), alpha), v)

    def factor(self, alpha: float) -> Any:
        return self.f.factor(alpha, *self.params)

    def resolve(self, v: Tensor, alpha: float, factor: Any) -> Tensor:
        return self._flat(self.f.resolve(self._nest(v), alpha, factor, *self.params), v)

    def resolvent(self, alpha: float) -> Callable[[Tensor], Tensor]:
        factor = self.factor(alpha)
        return lambda v: self.resolve(v, alpha, factor)

    def _nest(self, flat: Tensor) -> Any:
        return self.layout.unflatten(flat.reshape(self.layout.flat_shape))

    def _flat(self, nest: Any, like: Tensor) -> Tensor:
        return self.layout.flatten(nest, of="a part of f").reshape(like.shape)


class Rows:
    """A map on (*batch, n) as one on matrices of shape (items, n).

    Args:
        inner: The map.
        shape: (*batch, n).
    """

    def __init__(self, inner: Map, shape: torch.Size) -> None:
        self.inner, self.splitting, self.shape = inner, inner.splitting, shape

    def __call__(self, z: Tensor) -> Tensor:
        """The values of all rows."""
        return self.inner(z) if z.shape == self.shape else self.inner(z.reshape(self.shape)).reshape(z.shape)

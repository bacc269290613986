"""What solvers iterate: maps z -> f(z) on matrices, with their two parts where they are monotone splittings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

__all__ = ["BoundSplitting", "Map", "Raised"]


class BoundSplitting(Protocol):
    """A monotone splitting with its parameters bound, on matrices of shape (batch, n)."""

    def operator(self, z: Tensor) -> Tensor:
        """F(z)."""
        ...

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        """The proximal map of alpha phi."""
        ...

    def factor(self, alpha: float) -> Any:
        """What `resolve` needs beyond its arguments."""
        ...

    def resolve(self, v: Tensor, alpha: float, factor: Any) -> Tensor:
        """The resolvent of alpha F at v."""
        ...

    def resolvent(self, alpha: float) -> Callable[[Tensor], Tensor]:
        """The resolvent of alpha F, factored once."""
        ...


class Map(Protocol):
    """z -> f(z) on tensors of shape (batch, n)."""

    @property
    def splitting(self) -> BoundSplitting | None:
        """Its two parts, where it is a monotone splitting."""
        ...

    def __call__(self, z: Tensor) -> Tensor:
        """f(z), of the shape of z."""
        ...


class Raised:
    """A map of low precision on float32: its argument is rounded to what it takes, its value is raised.

    Made under autocast, it goes on computing under autocast when that is switched off around it.

    Args:
        f: The map.
        z: A tensor of the dtype that f takes.
    """

    def __init__(self, f: Any, z: Tensor) -> None:
        device = z.device.type
        self.f, self.given = f, z.dtype
        self.working = torch.float32 if z.dtype in (torch.float16, torch.bfloat16) else z.dtype
        self.mode = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        parts: BoundSplitting | None = getattr(f, "splitting", None)
        self.splitting: BoundSplitting | None = None if parts is None else _RaisedSplitting(parts, self)

    def __call__(self, z: Tensor) -> Tensor:
        """f(z) in the working precision."""
        return self.call(self.f, z)

    def call(self, function: Callable[..., Tensor], z: Tensor, *others: Any) -> Tensor:
        """A function of z in the precision of f."""
        with torch.autocast(*self.mode):
            return function(z.to(self.given), *others).to(self.working)


class _RaisedSplitting:
    """The parts of a splitting, each in the precision of its map."""

    def __init__(self, parts: BoundSplitting, raised: Raised) -> None:
        self.parts, self.raised = parts, raised

    def operator(self, z: Tensor) -> Tensor:
        return self.raised.call(self.parts.operator, z)

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return self.raised.call(self.parts.prox, v, alpha)

    def factor(self, alpha: float) -> Any:
        return self.parts.factor(alpha)

    def resolve(self, v: Tensor, alpha: float, factor: Any) -> Tensor:
        return self.raised.call(self.parts.resolve, v, alpha, factor)

    def resolvent(self, alpha: float) -> Callable[[Tensor], Tensor]:
        factor = self.factor(alpha)
        return lambda v: self.resolve(v, alpha, factor)

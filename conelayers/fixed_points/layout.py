"""Nests of tensors as flat ones: the unknown z, and the parameters of a map."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from conelayers.errors import InvalidArgument

__all__ = ["Arguments", "Layout"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a nest of tensors of shapes (*batch, *event_i) lies in one tensor of shape (*batch, n)."""

    spec: TreeSpec
    batch: torch.Size
    events: tuple[torch.Size, ...]
    dtype: torch.dtype
    device: torch.device
    shape: torch.Size = dataclasses.field(init=False)  # of the first tensor
    flat_shape: tuple[int, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", self.batch + self.events[0])
        object.__setattr__(self, "flat_shape", (*self.batch, sum(math.prod(e) for e in self.events)))

    @classmethod
    def of(cls, z0: Any, batch_dims: int | None) -> Layout:
        """The layout of a start.

        Args:
            z0: A nest of floating-point tensors.
            batch_dims: Number of their batch axes; None means 1 if all have two or more axes and the same first size,
                else 0.

        Raises:
            InvalidArgument: z0 holds something else, or its tensors differ in dtype, device or batch axes.
        """
        leaves, spec = tree_flatten(z0)
        if not leaves or not all(isinstance(x, Tensor) and x.is_floating_point() for x in leaves):
            raise InvalidArgument("z0 must be a floating-point tensor or a nest of such tensors.")
        if len({(x.dtype, x.device) for x in leaves}) > 1:
            raise InvalidArgument("the tensors of z0 must share one dtype and one device.")
        if batch_dims is None:
            sizes = {x.shape[0] if x.dim() >= 2 else None for x in leaves}
            batch_dims = 1 if len(sizes) == 1 and None not in sizes else 0
        if batch_dims < 0 or any(x.dim() < batch_dims for x in leaves):
            raise InvalidArgument(f"batch_dims={batch_dims}, but z0 has tensors with fewer axes (or it is negative).")
        batch = leaves[0].shape[:batch_dims]
        if any(x.shape[:batch_dims] != batch for x in leaves):
            raise InvalidArgument("the tensors of z0 must agree in their batch axes; pass batch_dims=.")
        events = tuple(x.shape[batch_dims:] for x in leaves)
        return cls(spec, batch, events, leaves[0].dtype, leaves[0].device)

    def flatten(self, z: Any, of: str = "z0") -> Tensor:
        """One tensor (*batch, n) of a nest; what a map computes under autocast is brought to the layout's dtype.

        Args:
            z: The nest.
            of: What errors call it.

        Raises:
            InvalidArgument: The structure, a shape, the dtype or the device is another.
        """
        if self.spec.is_leaf() and isinstance(z, Tensor) and z.shape == self.shape and z.dtype == self.dtype:
            return z.reshape(self.flat_shape)
        leaves, spec = tree_flatten(z)
        expected = tuple(self.batch + event for event in self.events)
        if spec != self.spec or tuple(getattr(x, "shape", None) for x in leaves) != expected:
            shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in leaves]
            raise InvalidArgument(
                f"{of} must have the structure and shapes of z0, {[tuple(s) for s in expected]}; it has {shapes}."
            )
        if torch.is_autocast_enabled(self.device.type):
            leaves = [x.to(self.dtype) if x.is_floating_point() else x for x in leaves]
        if any(x.dtype != self.dtype or x.device != self.device for x in leaves):
            raise InvalidArgument(
                f"{of} must have the dtype and device of z0, {self.dtype} on {self.device}; "
                "convert z0 or the parameters."
            )
        flat = [x.flatten(len(self.batch)) if x.dim() > len(self.batch) else x[..., None] for x in leaves]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=-1)

    def unflatten(self, flat: Tensor) -> Any:
        """The nest of a tensor (*batch, n)."""
        if self.spec.is_leaf():
            return flat.reshape(self.shape)
        parts = flat.split([math.prod(e) for e in self.events], dim=-1) if len(self.events) > 1 else (flat,)
        leaves = [p.reshape(self.batch + e) for p, e in zip(parts, self.events, strict=True)]
        return tree_unflatten(leaves, self.spec)


class Arguments:
    """The tensors among the parameters of a map, and how to put others in their place."""

    def __init__(self, params: tuple[Any, ...]) -> None:
        self.leaves, self.spec = tree_flatten(params)
        self.places = [i for i, x in enumerate(self.leaves) if isinstance(x, Tensor)]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors, in order."""
        return [self.leaves[i] for i in self.places]

    def fill(self, theta: tuple[Tensor, ...]) -> tuple[Any, ...]:
        """The parameters with other tensors."""
        leaves = list(self.leaves)
        for i, t in zip(self.places, theta, strict=True):
            leaves[i] = t
        return tree_unflatten(leaves, self.spec)

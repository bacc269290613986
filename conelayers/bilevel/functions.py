"""Functions of tuples of tensors: flat vectors, gradients, and checks of what a caller gave."""

from __future__ import annotations

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument, UnsupportedError

__all__ = ["Tensors", "flatten", "gradients", "leaves", "recorded", "scalar", "unflatten"]

Tensors = tuple[Tensor, ...]


def flatten(tensors: Tensors) -> Tensor:
    """One vector from a tuple of tensors."""
    return torch.cat([t.reshape(-1) for t in tensors]) if tensors else torch.zeros(0)


def unflatten(vector: Tensor, like: Tensors) -> Tensors:
    """The inverse of `flatten`."""
    parts = torch.split(vector, [t.numel() for t in like])
    return tuple(part.reshape(t.shape) for part, t in zip(parts, like, strict=True))


def leaves(name: str, tensors: Tensors) -> Tensors:
    """The same values, cut off from all graphs and ready to be differentiated.

    Raises:
        InvalidArgument: They are no tuple of floating-point tensors.
        UnsupportedError: This is inside a `torch.func` transform or inference mode.
    """
    if not isinstance(tensors, tuple | list) or not all(
        isinstance(t, Tensor) and t.is_floating_point() for t in tensors
    ):
        raise InvalidArgument(f"{name} must be a tuple of floating-point tensors, (tensor,) for one; got {tensors!r}.")
    if torch._C._are_functorch_transforms_active() or torch.is_inference_mode_enabled():
        raise UnsupportedError(
            "Hypergradients are not taken inside torch.func transforms (loop over the problems), nor inside "
            "torch.inference_mode (take torch.no_grad)."
        )
    return tuple(t.detach().requires_grad_() for t in tensors)


def scalar(name: str, value: Tensor) -> Tensor:
    """The same value, if it is a scalar tensor.

    Raises:
        InvalidArgument: It is not.
    """
    if not isinstance(value, Tensor) or value.ndim:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InvalidArgument(f"{name} must return a scalar tensor, of shape (); got {got}.")
    return value


def recorded(name: str, value: Tensor) -> Tensor:
    """The same value, if it is a scalar tensor with a graph: without one its derivative would be a silent zero.

    Raises:
        InvalidArgument: It is not.
    """
    if not scalar(name, value).requires_grad:
        raise InvalidArgument(
            f"{name} returned a tensor without derivatives; compute it from its arguments by torch operations, without "
            "detach(), item() or NumPy."
        )
    return value


def gradients(outputs: Tensors, inputs: Tensors, cotangents: Tensors | None = None, **options: bool) -> Tensors:
    """Vector-Jacobian products, zero where an output does not depend on an input."""
    pairs = [(z, g) for z, g in zip(outputs, cotangents or (None,) * len(outputs), strict=True) if z.requires_grad]
    if not pairs or not inputs:
        return tuple(torch.zeros_like(t) for t in inputs)
    values, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(values, inputs, weights, allow_unused=True, materialize_grads=True, **options)

"""What models check of the tensors and settings they are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from conelayers.errors import InvalidArgument
from conelayers.implicit.mode import Derivative

__all__ = ["check_callable", "check_derivative", "check_float", "check_input", "check_same", "check_solver"]


def check_input(name: str, x: Any, weight: Tensor, events: Sequence[tuple[int, ...]], batch_axes: float = math.inf):
    """An input of shape (*batch, *event) for one of the events, of a weight's dtype and device.

    Raises:
        InvalidArgument: It is none; the message names it and the remedy.
    """
    if not isinstance(x, Tensor):
        kind = type(x).__name__
        raise InvalidArgument(f"{name} must be a tensor, got {kind}; torch.as_tensor({name}, dtype=...) makes one.")
    fits = [x.dim() - len(e) >= 0 and x.shape[x.dim() - len(e) :] == e for e in events]
    if not any(fits) or x.dim() - len(events[0]) > batch_axes:
        lead = "(*batch, " if batch_axes == math.inf else "([batch,] "
        wanted = " or ".join(lead + ", ".join(map(str, e)) + ")" for e in events)
        raise InvalidArgument(f"{name} must have shape {wanted}, got {tuple(x.shape)}.")
    _check_type(name, x, weight, "the model")


def check_same(name: str, given: Any, like: Any, of: str) -> None:
    """A nest of tensors with the shapes, the dtype and the device of another.

    Raises:
        InvalidArgument: It is none.
    """
    found, wanted = tree_leaves(given), tree_leaves(like)
    shapes = [tuple(getattr(t, "shape", ())) if isinstance(t, Tensor) else type(t).__name__ for t in found]
    expected = [tuple(t.shape) for t in wanted]
    if shapes != expected:
        raise InvalidArgument(f"{name} must have the shapes of {of}, {expected}, got {shapes}.")
    for t, w in zip(found, wanted, strict=True):
        _check_type(name, t, w, of)


def check_float(name: str, nest: Any) -> None:
    """A floating-point tensor or a nest of such.

    Raises:
        InvalidArgument: It is none.
    """
    leaves = tree_leaves(nest)
    if not leaves or not all(isinstance(t, Tensor) and t.is_floating_point() for t in leaves):
        kinds = sorted({str(t.dtype) if isinstance(t, Tensor) else type(t).__name__ for t in leaves})
        raise InvalidArgument(f"{name} must be a floating-point tensor or a nest of such tensors, got {kinds}.")


def check_callable(name: str, function: Any) -> None:
    """A function or a module, and no class of modules.

    Raises:
        InvalidArgument: It is none.
    """
    if not callable(function) or (isinstance(function, type) and issubclass(function, torch.nn.Module)):
        raise InvalidArgument(f"{name} must be a function or a module, got {function!r}.")


def check_solver(solver: Any) -> None:
    """A solver of fixed points.

    Raises:
        InvalidArgument: It is none; a class is none.
    """
    if isinstance(solver, type) or not hasattr(solver, "run"):
        raise InvalidArgument(f"solver must be a value such as Anderson() or Broyden(), got {solver!r}.")


def check_derivative(adjoint: Any) -> None:
    """A derivative mode.

    Raises:
        InvalidArgument: It is none; a class is none.
    """
    if not isinstance(adjoint, Derivative):
        raise InvalidArgument(f"adjoint must be a value such as ImplicitAdjoint() or OneStep(), got {adjoint!r}.")


def _cast(x: Tensor) -> bool:
    """Whether products choose the dtype by themselves."""
    return x.is_floating_point() and torch.is_autocast_enabled(x.device.type)


def _check_type(name: str, x: Tensor, like: Tensor, of: str) -> None:
    if x.device != like.device or (x.dtype != like.dtype and not _cast(x)):
        raise InvalidArgument(
            f"{name} must have the dtype and device of {of}, {like.dtype} on {like.device}, got {x.dtype} on "
            f"{x.device}; convert it by {name}.to(...), or the model by model.to(...)."
        )

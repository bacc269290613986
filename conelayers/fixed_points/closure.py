"""Closure conversion: the tensors a function uses without receiving them become arguments.

`fixed_point(lambda z: cell(z, x), z0)` must differentiate x and the parameters of `cell`. One evaluation of the
function under a torch-function mode shows every tensor it touches; those that carry derivatives and were not made
inside are its captures. Later evaluations put other values in their place, matched by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

__all__ = ["ClosedFunction", "capture"]


def capture(f: Callable[..., Any], *arguments: Any) -> tuple[Any, list[Tensor]]:
    """Evaluate `f` once and list the tensors with derivatives that it used besides its arguments.

    Found are parameters of modules, tensors in closures, globals and attributes: everything that reaches a torch
    function. Not found is what is handed only to a custom `torch.autograd.Function`; pass that as an argument.

    Returns:
        The value, without derivatives, and the captured tensors in the order of their first use.
    """
    with torch.no_grad(), _Discovery(arguments) as discovery:
        value = f(*arguments)
    return value, discovery.captured


class ClosedFunction:
    """`f` with its captured tensors as trailing arguments.

    Args:
        f: The function.
        captured: What it captures, as `capture` found it.
    """

    def __init__(self, f: Callable[..., Tensor], captured: Sequence[Tensor]) -> None:
        self.f, self.captured = f, tuple(captured)

    def __call__(self, z: Tensor, *theta: Tensor) -> Tensor:
        """f(z, *parameters) with the captured tensors replaced by the trailing values."""
        return self.bind(theta)(z)

    def bind(self, theta: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
        """The function of z alone at fixed values of everything else."""
        split = len(theta) - len(self.captured)
        own, values = tuple(theta[:split]), theta[split:]
        if all(_identical(value, original) for value, original in zip(values, self.captured, strict=True)):
            bind = getattr(self.f, "bind", None)
            return (lambda z: self.f(z, *own)) if bind is None else bind(own)

        def substituted(z: Tensor) -> Tensor:
            with _Substitution(self.captured, values):
                return self.f(z, *own)

        return substituted


def carries_derivatives(t: Tensor) -> bool:
    """Whether somebody may ask for a derivative with respect to `t`, in any mode."""
    if t.requires_grad or torch._C._functorch.is_functorch_wrapped_tensor(t):  # pyright: ignore
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(t).tangent is not None


def _identical(value: Tensor, original: Tensor) -> bool:
    """Whether plain evaluation with `original` in place of `value` gives the same numbers and loses no derivative."""
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return value is original
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore
    if wrapped(value) or wrapped(original):
        return False
    return (
        value.data_ptr() == original.data_ptr()
        and value.shape == original.shape
        and value.stride() == original.stride()
    )


def _tensors(nest: Any) -> Iterator[Tensor]:
    """The tensors in arguments or values of a torch function, many times faster than by a general tree walk."""
    if isinstance(nest, Tensor):
        yield nest
    elif isinstance(nest, tuple | list):
        for part in nest:
            yield from _tensors(part)
    elif isinstance(nest, dict):
        yield from _tensors(tuple(nest.values()))


class _Discovery(TorchFunctionMode):
    """Collects tensors that carry derivatives and come from outside."""

    def __init__(self, arguments: Any) -> None:
        super().__init__()
        # Holding the tensors keeps their ids from being used again.
        self.inside = {id(t): t for t in _tensors(arguments)}
        self.captured: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for t in _tensors((args, kwargs)):
            if id(t) not in self.inside and carries_derivatives(t):
                self.inside[id(t)] = t
                self.captured.append(t)
        value = func(*args, **kwargs)
        for t in _tensors(value):
            self.inside.setdefault(id(t), t)
        return value


class _Substitution(TorchFunctionMode):
    """Puts values in the place of captured tensors."""

    def __init__(self, captured: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        super().__init__()
        self.table = {id(t): value for t, value in zip(captured, values, strict=True)}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Tensor, lambda t: self.table.get(id(t), t), (args, kwargs or {}))
        return func(*args, **kwargs)

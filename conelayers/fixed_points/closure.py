"""Closure conversion: the tensors a function uses without receiving them become arguments.

Inside `torch.func` transforms and forward mode, `fixed_point(lambda z: cell(z, x), z0)` must know x and the parameters
of `cell`. One evaluation of the function under a torch-function mode shows every tensor it touches; those that carry
derivatives and were not made inside are its captures. Later evaluations put other values in their place, matched by
identity. They may come after the function's surroundings have changed: `Frozen` keeps those.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from conelayers.errors import UnsupportedError
from conelayers.fixed_points.iterations import Map
from conelayers.fixed_points.maps import BoundFunction, ParametricMap

__all__ = ["Aliasing", "ClosedFunction", "Frozen", "capture"]

_functorch: Any = getattr(torch._C, "_functorch")  # noqa: B009 (unknown to type checkers)


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


class ClosedFunction(ParametricMap):
    """`f` with its captured tensors as trailing arguments.

    Args:
        f: The function.
        captured: What it captures, as `capture` found it.
    """

    def __init__(self, f: ParametricMap, captured: Sequence[Tensor]) -> None:
        self.f, self.captured = f, tuple(captured)

    def bind(self, theta: Sequence[Tensor]) -> Map:
        """The function of z alone at fixed values of everything else."""
        split = len(theta) - len(self.captured)
        own, values = tuple(theta[:split]), theta[split:]
        if all(_identical(value, original) for value, original in zip(values, self.captured, strict=True)):
            return self.f.bind(own)

        def substituted(z: Tensor) -> Tensor:
            with _Substitution(self.captured, values):
                return self.f(z, *own)

        return BoundFunction(substituted)


class Frozen:
    """A function that goes on seeing the closure, and the parameters of modules, that it saw when this was made.

    `torch.func.functional_call` puts other parameters into a module for one call only, and a loop's variable moves on.
    What a function reads from globals or attributes is not kept.
    """

    def __init__(self, f: Callable[..., Any]) -> None:
        modules = list(dict.fromkeys(m for root in _modules(f, 3) for m in root.modules()))
        self.state = [(m, dict(m._parameters), dict(m._buffers)) for m in modules]
        self.f = _with_own_cells(f)

    def __call__(self, *arguments: Any) -> Any:
        """The function's value."""
        with contextlib.ExitStack() as stack:
            for module, parameters, buffers in self.state:
                pairs: Any = ((module._parameters, parameters), (module._buffers, buffers))
                for now, then in pairs:
                    if any(now.get(name) is not value for name, value in then.items()):
                        stack.callback(now.update, dict(now))
                        now.update(then)
            return self.f(*arguments)


def carries_derivatives(t: Tensor) -> bool:
    """Whether somebody may ask for a derivative with respect to `t`, in any mode."""
    if t.requires_grad or _functorch.is_functorch_wrapped_tensor(t):
        return True
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(t).tangent is not None


def _modules(f: Any, depth: int) -> Iterator[nn.Module]:
    """The modules that a function, method, partial or container holds."""
    if isinstance(f, nn.Module):
        yield f
        return
    parts: list[Any] = []
    if isinstance(f, types.FunctionType):
        parts = [cell.cell_contents for cell in f.__closure__ or () if _filled(cell)]
        parts += [f.__defaults__, f.__kwdefaults__]
    elif isinstance(f, types.MethodType):
        parts = [f.__self__, f.__func__]
    elif isinstance(f, functools.partial):
        parts = [f.func, f.args, f.keywords]
    elif isinstance(f, list | tuple):
        parts = list(f)
    elif isinstance(f, dict):
        parts = list(f.values())
    for part in parts if depth > 0 else ():
        yield from _modules(part, depth - 1)


def _with_own_cells(f: Any) -> Any:
    """The same function with a copy of its closure; anything else as it is."""
    if not isinstance(f, types.FunctionType) or not f.__closure__:
        return f
    cells = tuple(types.CellType(c.cell_contents) if _filled(c) else c for c in f.__closure__)
    copy = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells)
    copy.__kwdefaults__ = f.__kwdefaults__
    return copy


def _filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _identical(value: Tensor, original: Tensor) -> bool:
    """Whether plain evaluation with `original` in place of `value` gives the same numbers and loses no derivative."""
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return value is original
    wrapped = _functorch.is_functorch_wrapped_tensor
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


def _level() -> int:
    level = _functorch.maybe_current_level()
    return 0 if level is None else level


class _Discovery(TorchFunctionMode):
    """Collects tensors that carry derivatives and come from outside."""

    def __init__(self, arguments: Any) -> None:
        super().__init__()
        # Holding the tensors keeps their ids from being used again.
        self.inside = {id(t): t for t in _tensors(arguments)}
        self.captured: list[Tensor] = []
        self.level = _level()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for t in _tensors((args, kwargs)):
            self._look_at(t)
        value = func(*args, **kwargs)
        for t in _tensors(value):
            self.inside.setdefault(id(t), t)
        return value

    def _look_at(self, t: Tensor) -> None:
        if id(t) in self.inside or not carries_derivatives(t):
            return
        self.inside[id(t)] = t
        if _functorch.is_functorch_wrapped_tensor(t) and _functorch.maybe_get_level(t) > self.level:
            self._look_at(_functorch.get_unwrapped(t))  # a transform inside f made the wrapper
        else:
            self.captured.append(t)


class Aliasing(TorchFunctionMode):
    """Puts an alias, connected to it, in the place of every tensor from outside that requires a gradient.

    Derivatives with respect to the aliases are partial ones, also where some of the tensors depend on others.

    Args:
        arguments: The function's own, which keep their places.
    """

    def __init__(self, arguments: Any) -> None:
        super().__init__()
        # Holding the tensors keeps their ids from being used again.
        self.inside = {id(t): t for t in _tensors(arguments)}
        self.table: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(t.requires_grad and id(t) not in self.inside for t in _tensors((args, kwargs))):
            args, kwargs = tree_map_only(Tensor, self._alias, (args, kwargs))
        value = func(*args, **kwargs)
        for t in _tensors(value):
            self.inside.setdefault(id(t), t)
        return value

    def _alias(self, t: Tensor) -> Tensor:
        if id(t) in self.inside or not t.requires_grad:
            return t
        if id(t) not in self.table:
            self.table[id(t)] = (t, t.view_as(t))
        return self.table[id(t)][1]


class _Substitution(TorchFunctionMode):
    """Puts values in the place of captured tensors."""

    def __init__(self, captured: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        super().__init__()
        self.table = {id(t): value for t, value in zip(captured, values, strict=True)}
        self.level = _level()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Tensor, self._value, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _value(self, t: Tensor) -> Tensor:
        found = self.table.get(id(t))
        if found is not None:
            return found
        if not _functorch.is_functorch_wrapped_tensor(t) or _functorch.maybe_get_level(t) <= self.level:
            return t
        inner = _functorch.get_unwrapped(t)
        value = self._value(inner)
        if value is inner:
            return t
        if not _functorch.is_batchedtensor(t):
            raise UnsupportedError(
                "f differentiates a tensor that it uses without receiving it, inside a torch.func transform of "
                "fixed_point: pass that tensor in `params`."
            )
        return _functorch._add_batch_dim(value, _functorch.maybe_get_bdim(t), _functorch.maybe_get_level(t))

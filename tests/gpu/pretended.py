"""A CUDA device that there is not: tensors that say they are on it, with their numbers in the memory of the CPU.

Inside a `Device` every torch operation is held to the rules of a real one: tensors of two devices do not meet (but for
numbers and indices, as torch allows), a tensor of the device is no array of numpy's, and what makes the host wait is
counted. With emulated kernels the whole path of a layer runs as it would on a GPU.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
_IS_META = torch.Tensor.is_meta.__get__
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
_WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default)


class OnDevice(torch.Tensor):
    """A tensor on the pretended device; torch itself takes it for one without numbers."""

    value: torch.Tensor

    @staticmethod
    def __new__(cls, value):
        strides = value.stride() if value.layout is torch.strided else None
        self = torch.Tensor._make_wrapper_subclass(
            cls, value.shape, strides=strides, dtype=value.dtype, device=torch.device("meta")
        )
        self.value = value
        return self

    is_cpu, is_cuda, is_meta = (property(lambda self, answer=answer: answer) for answer in (False, True, False))

    def data_ptr(self):
        return self.value.data_ptr()

    def new_tensor(self, data, **options):
        return torch.as_tensor(data, **{"dtype": self.dtype, "device": CUDA, **options}).clone()

    def tolist(self):
        return self.cpu().tolist()

    def record_stream(self, stream):
        pass

    def numpy(self, **_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __array__(self, *_):
        return self.numpy()

    def __repr__(self, **_):
        return f"OnDevice({self.value})"

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            if function is torch.sparse.mm:  # takes its way by the layout, which here only the numbers have
                return OnDevice(torch.mm(*(a.value for a in args)))
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {}, [])


def run(function, args, kwargs, waited):
    """An operation on the numbers, if a CUDA device would do it."""
    device = kwargs.get("device")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), **({"pin_memory": None} if "pin_memory" in kwargs else {})}
    tensors = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, torch.Tensor)]
    there = [a for a in tensors if isinstance(a, OnDevice)]
    assert all(isinstance(a, OnDevice) or a.layout is not torch.strided or not _IS_META(a) for a in tensors), function
    copies = function in (aten._to_copy.default, aten.copy_.default)
    if there and not copies:
        _refuse_others(function, args)
    if there and (function in _WAITS or _by_mask(function, args)):
        waited.append(str(function))
    if (
        there
        and copies
        and (isinstance(device, torch.device) and device.type == "cpu" or _copies_to_cpu(function, args))
    ):
        waited.append(str(function))
    wrappers = {id(a.value): a for a in there}
    found = function(*tree_map(_value, args), **tree_map(_value, kwargs))
    on_device = bool(there) if device is None else torch.device(device).type != "cpu"
    if function is aten.copy_.default:
        on_device = isinstance(args[0], OnDevice)
    if not on_device:
        return found
    return tree_map(
        lambda t: (wrappers[id(t)] if id(t) in wrappers else OnDevice(t)) if isinstance(t, torch.Tensor) else t, found
    )


def _value(a):
    return a.value if isinstance(a, OnDevice) else a


def _copies_to_cpu(function, args):
    return function is aten.copy_.default and not isinstance(args[0], OnDevice)


def _as_tensors(index):
    """Lists among indices as tensors of the CPU: torch would lose their numbers on the way to where it has none."""
    if isinstance(index, tuple):
        return tuple(map(_as_tensors, index))
    whole = isinstance(index, list) and all(isinstance(i, int) for i in index)
    return torch.tensor(index, dtype=torch.int64) if whole else index


def _by_mask(function, args):
    """Whether places are chosen by a mask, which the host must count."""
    return function in _INDEXED and any(i is not None and i.dtype is torch.bool for i in args[1])


def _refuse_others(function, args):
    if function in _INDEXED:
        args = (args[0], *args[2:])
    others = [a for a in tree_flatten(args)[0] if isinstance(a, torch.Tensor) and not isinstance(a, OnDevice)]
    if any(a.dim() > 0 for a in others):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu ({function})")


class Device(TorchDispatchMode):
    """While it is entered, `cuda` is there. `waited`: the operations for which the host has waited."""

    def __init__(self):
        super().__init__()
        self.waited: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return run(function, args, kwargs or {}, self.waited)


@contextlib.contextmanager
def device(monkeypatch, launcher) -> Iterator[Device]:
    """A pretended device whose kernels `launcher` runs."""
    import conelayers.native.cuda as cuda
    import conelayers.native.cuda.kernels as kernels
    from conelayers.backends import Cuda

    where = torch.Tensor.device.__get__
    monkeypatch.setattr(torch.Tensor, "device", property(lambda t: CUDA if where(t).type == "meta" else where(t)))
    chosen, changed = torch.Tensor.__getitem__, torch.Tensor.__setitem__
    monkeypatch.setattr(torch.Tensor, "__getitem__", lambda t, index: chosen(t, _as_tensors(index)))
    monkeypatch.setattr(torch.Tensor, "__setitem__", lambda t, index, value: changed(t, _as_tensors(index), value))
    stream = types.SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: stream)
    monkeypatch.setattr(kernels, "launcher", lambda device: launcher)
    monkeypatch.setattr(cuda, "unavailable", lambda device: None)
    monkeypatch.setattr(Cuda, "unavailable", lambda self, device: None)
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        with Device() as pretended:
            yield pretended
    finally:
        torch._C._set_only_lift_cpu_tensors(False)

"""Running the kernels on a device, on torch's current stream."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from conelayers.native.cuda.compilation import compiled
from conelayers.native.cuda.plan import WARP, Device
from conelayers.native.cuda.toolkit import call, driver

__all__ = ["Kernel", "Launcher", "launcher"]


class Kernel(NamedTuple):
    """Which code: the name, the cones compiled in (a bit for each), threads per problem."""

    name: str
    cones: int
    team: int


class Launcher(Protocol):
    """What runs kernels on the tensors of one device; a block is one warp."""

    device: Device

    def resident(self, kernel: Kernel, shared: int) -> int:
        """How many warps of a kernel run at a time, with so many bytes of shared memory for each."""
        ...

    def launch(self, kernel: Kernel, arguments: Sequence[bytes], warps: int, shared: int) -> None:
        """Start a kernel on its views and its task; it runs after what the current stream holds."""
        ...


@functools.cache
def launcher(device: torch.device) -> Launcher:
    """The launcher of a device."""
    return _Driver(device)


class _Driver:
    """Launches through the CUDA driver, in the context that torch works in: the device's primary one.

    The driver's context belongs to the host's thread, and torch does not set it on one that has not used the device
    yet, such as those that run backward passes. So every use of the driver sets it, and puts back what was there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._functions: dict[Kernel, Any] = {}
        self._lock = threading.Lock()
        call(driver().cuInit(0))
        handle = call(driver().cuDeviceGet(device.index))
        self._context = call(driver().cuDevicePrimaryCtxRetain(handle))
        self.device = _facts(device, handle)

    def resident(self, kernel: Kernel, shared: int) -> int:
        with self._in_context():
            function = self._function(kernel)
            blocks = call(driver().cuOccupancyMaxActiveBlocksPerMultiprocessor(function, WARP, shared))
        return max(1, blocks) * self.device.processors

    def launch(self, kernel: Kernel, arguments: Sequence[bytes], warps: int, shared: int) -> None:
        values = [ctypes.create_string_buffer(value, len(value)) for value in arguments]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = torch.cuda.current_stream(self._device).cuda_stream
        where = ctypes.addressof(addresses)
        with self._in_context():
            function = self._function(kernel)
            call(driver().cuLaunchKernel(function, warps, 1, 1, WARP, 1, 1, shared, stream, where, 0))

    @contextlib.contextmanager
    def _in_context(self) -> Iterator[None]:
        call(driver().cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            call(driver().cuCtxPopCurrent())

    def _function(self, kernel: Kernel) -> Any:
        """The kernel in this device's context, which must be current; compiled and loaded once."""
        with self._lock:
            found = self._functions.get(kernel)
            if found is None:
                capability = torch.cuda.get_device_capability(self._device)
                code = compiled(kernel.name, kernel.cones, capability, kernel.team)
                module = call(driver().cuModuleLoadData(code))
                found = call(driver().cuModuleGetFunction(module, f"conelayers_{kernel.name}".encode()))
                if kernel.team > 1:  # what a launch asks for may be more than the default
                    limit = driver().CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                    call(driver().cuFuncSetAttribute(found, limit, self.device.shared_per_block))
                self._functions[kernel] = found
        return found


def _facts(device: torch.device, handle: Any) -> Device:
    """What plans depend on; handle: the driver's name of the device."""
    attributes = driver().CUdevice_attribute
    shared, per_block = (
        call(driver().cuDeviceGetAttribute(attribute, handle))
        for attribute in (
            attributes.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            attributes.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )
    )
    properties = torch.cuda.get_device_properties(device)
    return Device(properties.multi_processor_count, properties.total_memory, shared, per_block)

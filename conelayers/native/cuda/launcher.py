"""Running the kernels on a device, on torch's current stream."""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any, Protocol

import torch

from conelayers.native.cuda.compilation import compiled
from conelayers.native.cuda.toolkit import call, driver

__all__ = ["LANES", "Launcher", "launcher"]

LANES = 32
"""Threads of a warp; a block is one warp."""


class Launcher(Protocol):
    """What runs kernels on the tensors of one device."""

    def resident(self, name: str, cones: int, team: int) -> int:
        """How many warps of a kernel run at a time."""
        ...

    def launch(self, name: str, cones: int, team: int, view: bytes, task: bytes, warps: int) -> None:
        """Start a kernel with `team` threads per problem; it runs after what the current stream holds."""
        ...


@functools.cache
def launcher(device: torch.device) -> Launcher:
    """The launcher of a device."""
    return _Driver(device)


class _Driver:
    """Launches through the CUDA driver, in torch's context."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._functions: dict[tuple[str, int, int], Any] = {}
        self._lock = threading.Lock()

    def resident(self, name: str, cones: int, team: int) -> int:
        with torch.cuda.device(self._device):
            blocks = call(
                driver().cuOccupancyMaxActiveBlocksPerMultiprocessor(self._function(name, cones, team), LANES, 0)
            )
        return blocks * torch.cuda.get_device_properties(self._device).multi_processor_count

    def launch(self, name: str, cones: int, team: int, view: bytes, task: bytes, warps: int) -> None:
        with torch.cuda.device(self._device):
            function = self._function(name, cones, team)
            values = [ctypes.create_string_buffer(value, len(value)) for value in (view, task)]
            addresses = (ctypes.c_void_p * 2)(*(ctypes.addressof(value) for value in values))
            stream = torch.cuda.current_stream(self._device).cuda_stream
            call(driver().cuLaunchKernel(function, warps, 1, 1, LANES, 1, 1, 0, stream, ctypes.addressof(addresses), 0))

    def _function(self, name: str, cones: int, team: int) -> Any:
        """The kernel in this device's context, which must be current; compiled and loaded once."""
        with self._lock:
            found = self._functions.get((name, cones, team))
            if found is None:
                torch.cuda.current_stream(self._device).synchronize()  # makes torch's context, if there is none yet
                code = compiled(name, cones, torch.cuda.get_device_capability(self._device), team)
                module = call(driver().cuModuleLoadData(code))
                found = call(driver().cuModuleGetFunction(module, f"conelayers_{name}".encode()))
                self._functions[name, cones, team] = found
        return found

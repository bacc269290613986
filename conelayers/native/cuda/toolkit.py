"""What the GPU path needs besides torch, imported when first asked for."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

__all__ = ["call", "driver", "nvrtc", "nvrtc_version", "unavailable"]

_REMEDY = (
    "install the bindings of torch's CUDA version: pip install 'conelayers[cuda]' (CUDA 13) "
    "or 'conelayers[cuda12]' (CUDA 12)"
)


@functools.cache
def nvrtc() -> Any:
    """The module of the run-time compiler; raises ImportError where it is missing."""
    return importlib.import_module("cuda.bindings.nvrtc")


@functools.cache
def driver() -> Any:
    """The module of the driver's interface; raises ImportError where it is missing."""
    return importlib.import_module("cuda.bindings.driver")


@functools.cache
def nvrtc_version() -> tuple[int, int]:
    """Version of the run-time compiler; raises ImportError or RuntimeError where it cannot be loaded."""
    return call(nvrtc().nvrtcVersion())


def call(result: tuple[Any, ...]) -> Any:
    """What a function of the bindings returned after its status: nothing, one value, or a tuple.

    Raises:
        RuntimeError: If the status is not success.
    """
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"CUDA: {status.name}{_explanation(status)}")
    return None if not values else values[0] if len(values) == 1 else tuple(values)


def _explanation(status: Any) -> str:
    if not type(status).__name__.startswith("CU"):
        return ""
    _, text = driver().cuGetErrorString(status)
    return f" ({text.decode()})" if text else ""


@functools.cache
def unavailable(device: torch.device) -> str | None:
    """Why programmes cannot be solved on this device, with the remedy; None if they can."""
    if device.type != "cuda":
        return f"{device} is no CUDA device"
    if torch.version.hip is not None:
        return "AMD devices are not supported"
    try:
        compiler = nvrtc_version()
        driver()
    except (ImportError, RuntimeError) as error:
        return f"CUDA's run-time compiler cannot be loaded ({error}); {_REMEDY}"
    if not torch.cuda.is_available():
        return "torch finds no CUDA device"
    version = call(driver().cuDriverGetVersion())
    if compiler[0] > version // 1000:  # within one major version a driver takes machine code of newer compilers
        return (
            f"the driver knows CUDA up to {version // 1000}.{version % 1000 // 10}, which does not take code of the "
            f"run-time compiler {compiler[0]}.{compiler[1]}; {_REMEDY}"
        )
    if torch.cuda.get_device_capability(device) < (7, 0):
        return "its compute capability is below 7.0"
    return None

"""Access to the compiled kernels, which an unbuilt source tree does not have."""

import functools
from types import ModuleType

import torch

__all__ = ["compiled", "threads_for"]

_LARGE = 2**18  # entries of a product below which waking threads takes longer than the work


@functools.cache
def compiled() -> ModuleType | None:
    """The kernels, or None where the engine has not been compiled."""
    try:
        from conelayers import native
    except ImportError:
        return None
    return native


def threads_for(entries: int) -> int:
    """Threads for a product that reads so many entries."""
    return torch.get_num_threads() if entries >= _LARGE else 1

"""Access to the kernels that numba compiles."""

import functools
from types import ModuleType

__all__ = ["compiled"]


@functools.cache
def compiled() -> ModuleType | None:
    """The kernels, or None without numba; importing numba is put off to the first use."""
    try:
        from conelayers.lasso import _kernels
    except ImportError:
        return None
    return _kernels

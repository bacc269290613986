"""The compiled derivative kernels of a structure, made once and kept for as long as the structure lives."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from conelayers.program import ConeStructure
from conelayers.program.codes import CODES, cone_codes

if TYPE_CHECKING:
    from conelayers.native import Differentiator

__all__ = ["ACCEPTED", "compiled_differentiator", "rows", "thread_count"]

# Dense blocks of curved cones beyond this many entries in all make the factor too large; other methods take over.
_LARGEST_BLOCKS = 2_000_000

ACCEPTED = 1e-9
"""Relative residual of a linear system up to which the kernels' solution is taken."""

_kernels: weakref.WeakKeyDictionary[ConeStructure, Differentiator | None] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def compiled_differentiator(structure: ConeStructure) -> Differentiator | None:
    """The kernels, or None where the engine is not compiled or does not suit the cones."""
    with _lock:
        if structure not in _kernels:
            _kernels[structure] = _make(structure)
        return _kernels[structure]


def _make(structure: ConeStructure) -> Differentiator | None:
    blocks = structure.cone.cones
    curved = sum(block.dim**2 for block in blocks if block.dim > 1 and CODES.get(type(block), 0) > 1)
    if curved > _LARGEST_BLOCKS or any(type(block) not in CODES for block in blocks):
        return None
    try:
        from conelayers.native import Differentiator  # only here: the package imports without a compiled engine
    except ImportError:
        return None
    return Differentiator(
        structure.n,
        structure.m,
        structure.P_indptr,
        structure.P_indices,
        structure.A_indptr,
        structure.A_indices,
        *cone_codes(structure.cone),
    )


def rows(values: Tensor) -> np.ndarray:
    """A float64 tensor on the CPU as a contiguous array, without a copy where it is one."""
    return values.detach().contiguous().numpy()


def thread_count() -> int:
    """As many threads as torch uses."""
    return torch.get_num_threads()

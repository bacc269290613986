"""The compiled objects of a structure: its solver and its derivative kernels, made once and kept while it lives."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import PositiveSemidefinite
from conelayers.program.codes import CODES, cone_codes
from conelayers.program.structure import ConeStructure

if TYPE_CHECKING:
    from conelayers.native import Differentiator, Engine
    from conelayers.native.cuda import DeviceDifferentiator

__all__ = [
    "clearly_indefinite",
    "compiled_differentiator",
    "described",
    "device_differentiator",
    "engine",
    "rows",
    "suits_kernels",
]

# Semidefinite blocks are dense: beyond this many entries in all the factor is too large, and other methods take over.
_LARGEST_BLOCKS = 2_000_000

_Made = TypeVar("_Made")
_ABSENT: Any = object()
_lock = threading.Lock()
_engines: weakref.WeakKeyDictionary[ConeStructure, Engine] = weakref.WeakKeyDictionary()
_differentiators: weakref.WeakKeyDictionary[ConeStructure, Differentiator | None] = weakref.WeakKeyDictionary()
_on_devices: weakref.WeakKeyDictionary[ConeStructure, dict[torch.device, DeviceDifferentiator | None]]
_on_devices = weakref.WeakKeyDictionary()


def engine(structure: ConeStructure) -> Engine:
    """The compiled interior-point solver.

    Raises:
        ImportError: If the engine is not compiled.
        KeyError: If it does not take a cone.
    """
    return _kept(_engines, structure, lambda: _make_engine(structure))


def compiled_differentiator(structure: ConeStructure) -> Differentiator | None:
    """The derivative kernels, or None where the engine is not compiled or does not suit the cones."""
    return _kept(_differentiators, structure, lambda: _make_differentiator(structure))


def device_differentiator(structure: ConeStructure, device: torch.device) -> DeviceDifferentiator | None:
    """The derivative kernels on a CUDA device, or None where they do not suit the cones.

    Raises:
        ImportError: If the engine is not compiled.
    """
    from conelayers.native.cuda import DeviceDifferentiator  # only here, as above

    made = _kept(_on_devices, structure, dict)
    with _lock:
        if device not in made:
            suits = suits_kernels(structure)
            made[device] = DeviceDifferentiator(*described(structure), device=device) if suits else None
        return made[device]


def suits_kernels(structure: ConeStructure) -> bool:
    """Whether the derivative kernels take these cones."""
    blocks = structure.cone.cones
    dense = sum(block.dim**2 for block in blocks if isinstance(block, PositiveSemidefinite))
    return dense <= _LARGEST_BLOCKS and all(type(block) in CODES for block in blocks)


def clearly_indefinite(structure: ConeStructure, P: np.ndarray) -> np.ndarray:
    """Whether quadratic objectives are clearly not convex, bool, shape (rows,); False where nothing is compiled.

    Args:
        structure: The pattern of P.
        P: Values, shape (rows, P_nnz).
    """
    if structure.P_nnz:
        try:
            from conelayers.native import clearly_indefinite as judge  # only here, as below
        except ImportError:
            pass
        else:
            return judge(structure.n, structure.P_indptr, structure.P_indices, P)
    return np.zeros(len(P), dtype=bool)


def described(structure: ConeStructure) -> tuple:
    """The arguments from which the engine and the kernels are made."""
    patterns = (structure.P_indptr, structure.P_indices, structure.A_indptr, structure.A_indices)
    return (structure.n, structure.m, *patterns, *cone_codes(structure.cone))


def _make_engine(structure: ConeStructure) -> Engine:
    from conelayers.native import Engine  # only here: the package imports without a compiled engine

    return Engine(*described(structure))


def _make_differentiator(structure: ConeStructure) -> Differentiator | None:
    if not suits_kernels(structure):
        return None
    try:
        from conelayers.native import Differentiator  # only here, as above
    except ImportError:
        return None
    known = _engines.get(structure)  # its KKT matrix has the same pattern
    return Differentiator(*described(structure), order=None if known is None else known.order)


def _kept(
    store: weakref.WeakKeyDictionary[ConeStructure, _Made], structure: ConeStructure, make: Callable[[], _Made]
) -> _Made:
    found: Any = store.get(structure, _ABSENT)
    if found is _ABSENT:
        with _lock:
            if structure not in store:
                store[structure] = make()
            found = store[structure]
    return found


def rows(values: Tensor) -> np.ndarray:
    """A float64 tensor on the CPU as a contiguous array, without a copy where it is one."""
    return values.contiguous().numpy(force=True)

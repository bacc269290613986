"""The compiled derivative kernels of a structure on a device, made once and kept for as long as the structure lives."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from conelayers.program import ConeStructure
from conelayers.program.codes import CODES, cone_codes

if TYPE_CHECKING:
    from conelayers.native import Differentiator

__all__ = ["ACCEPTED", "CompiledKernels", "compiled_kernels"]

# Dense blocks of curved cones beyond this many entries in all make the factor too large; other methods take over.
_LARGEST_BLOCKS = 2_000_000

ACCEPTED = 1e-9
"""Relative residual of a linear system up to which the kernels' solution is taken."""


class CompiledKernels(Protocol):
    """The kernels of one structure; float64 tensors of one device, with one batch axis B (1 in P and A if shared)."""

    def derivative(
        self, P: Tensor, A: Tensor, v: Tensor, r1: Tensor, r2: Tensor, mu: float = 0.0
    ) -> tuple[Tensor, ...]:
        """(dx, dv, relative residual) of J(D(v)) [dx; dv] = [r1; r2]; r1 (B, k, n), r2 (B, k, m)."""
        ...

    def apply_D(self, v: Tensor, u: Tensor, mu: float = 0.0) -> Tensor:
        """D(v) u; u (B, k, m)."""
        ...

    def pullback(
        self, P: Tensor, A: Tensor, x: Tensor, y: Tensor, s: Tensor, gx: Tensor, gy: Tensor, gs: Tensor
    ) -> dict[str, Tensor]:
        """dP, dq, dA, db and the relative residual of the adjoint system."""
        ...

    def polish(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, x: Tensor, y: Tensor, s: Tensor, steps: int, target: float
    ) -> tuple[Tensor, ...]:
        """x, y, s, their residual, and (B, 3): relative primal residual, dual residual and gap."""
        ...


_kernels: weakref.WeakKeyDictionary[ConeStructure, dict[torch.device, CompiledKernels | None]]
_kernels = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def compiled_kernels(structure: ConeStructure, device: torch.device) -> CompiledKernels | None:
    """The kernels for a device, or None where there are none or they do not suit the cones."""
    with _lock:
        found = _kernels.setdefault(structure, {})
        if device not in found:
            found[device] = _make(structure, device) if _suits(structure) else None
        return found[device]


def _suits(structure: ConeStructure) -> bool:
    blocks = structure.cone.cones
    curved = sum(block.dim**2 for block in blocks if block.dim > 1 and CODES.get(type(block), 0) > 1)
    return curved <= _LARGEST_BLOCKS and all(type(block) in CODES for block in blocks)


def _make(structure: ConeStructure, device: torch.device) -> CompiledKernels | None:
    analysed = (
        structure.n,
        structure.m,
        structure.P_indptr,
        structure.P_indices,
        structure.A_indptr,
        structure.A_indices,
        *cone_codes(structure.cone),
    )
    try:  # only here: the package imports without a compiled engine
        from conelayers.native import Differentiator
        from conelayers.native.cuda import DeviceDifferentiator, unavailable
    except ImportError:
        return None
    if device.type == "cpu":
        return _OnCpu(Differentiator(*analysed))
    return DeviceDifferentiator(*analysed, device=device) if unavailable(device) is None else None


class _OnCpu:
    """The kernels of the CPU for tensors, on as many threads as torch uses."""

    def __init__(self, kernels: Differentiator) -> None:
        self._kernels = kernels

    def derivative(self, P, A, v, r1, r2, mu=0.0):
        found = self._kernels.derivative(*map(_rows, (P, A, v, r1, r2)), mu=mu, threads=torch.get_num_threads())
        return tuple(map(torch.from_numpy, found))

    def apply_D(self, v, u, mu=0.0):
        return torch.from_numpy(self._kernels.apply_D(_rows(v), _rows(u), mu=mu, threads=torch.get_num_threads()))

    def pullback(self, P, A, x, y, s, gx, gy, gs):
        data: Any = map(_rows, (P, A, x, y, s, gx, gy, gs))
        found = self._kernels.pullback(*data, threads=torch.get_num_threads())
        return {name: torch.from_numpy(value) for name, value in found.items()}

    def polish(self, P, q, A, b, x, y, s, steps, target):
        data = map(_rows, (P, q, A, b, x, y, s))
        found = self._kernels.polish(*data, steps=steps, target=target, threads=torch.get_num_threads())
        return tuple(map(torch.from_numpy, found))


def _rows(values: Tensor) -> np.ndarray:
    """A float64 tensor on the CPU as a contiguous array, without a copy where it is one."""
    return values.detach().contiguous().numpy()

"""The compiled derivative kernels of a structure on a device, made once and kept for as long as the structure lives."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from conelayers.program import ConeStructure
from conelayers.program.compiled import compiled_differentiator, device_differentiator, rows
from conelayers.semidefinite import SemidefiniteKernels

if TYPE_CHECKING:
    from conelayers.native import Differentiator

__all__ = ["ACCEPTED", "CompiledKernels", "compiled_kernels"]

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
        self,
        P: Tensor,
        A: Tensor,
        x: Tensor,
        y: Tensor,
        s: Tensor,
        gx: Tensor,
        gy: Tensor,
        gs: Tensor,
        *,
        direction: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """dP, dq, dA, db, the relative residual of the adjoint system, and `outside`, (B, 2): see `Watch.note`."""
        ...

    def probe(self, P: Tensor, A: Tensor, y: Tensor, s: Tensor, rhs: Tensor, accuracy: float) -> tuple[Tensor, ...]:
        """(|z|, relative residual) of J(D(y - s)) z = rhs, (B,) each, solved to about `accuracy`; rhs (n + m,)."""
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
            found[device] = _make(structure, device)
        return found[device]


def _make(structure: ConeStructure, device: torch.device) -> CompiledKernels | None:
    if device.type == "cpu":
        large = SemidefiniteKernels.of(structure)
        kernels = compiled_differentiator(structure) if large is None else None
        return large if kernels is None else _OnCpu(kernels)
    try:  # only here: the package imports without a compiled engine
        from conelayers.native.cuda import unavailable
    except ImportError:
        return None
    return device_differentiator(structure, device) if unavailable(device) is None else None


class _OnCpu:
    """The kernels of the CPU for tensors, on as many threads as torch uses."""

    def __init__(self, kernels: Differentiator) -> None:
        self._kernels = kernels

    def derivative(self, P, A, v, r1, r2, mu=0.0):
        found = self._kernels.derivative(*map(rows, (P, A, v, r1, r2)), mu=mu, threads=torch.get_num_threads())
        return tuple(map(torch.from_numpy, found))

    def apply_D(self, v, u, mu=0.0):
        return torch.from_numpy(self._kernels.apply_D(rows(v), rows(u), mu=mu, threads=torch.get_num_threads()))

    def pullback(self, P, A, x, y, s, gx, gy, gs, *, direction=None):
        data: Any = map(rows, (P, A, x, y, s, gx, gy, gs))
        moves = None if direction is None else direction.numpy()
        found = self._kernels.pullback(*data, direction=moves, threads=torch.get_num_threads())
        return {name: torch.from_numpy(found[name]) for name in ("dP", "dq", "dA", "db", "residual", "outside")}

    def probe(self, P, A, y, s, rhs, accuracy):
        data: Any = map(rows, (P, A, y, s, rhs))
        found = self._kernels.probe(*data, accuracy=accuracy, threads=torch.get_num_threads())
        return tuple(map(torch.from_numpy, found))

    def polish(self, P, q, A, b, x, y, s, steps, target):
        data = map(rows, (P, q, A, b, x, y, s))
        found = self._kernels.polish(*data, steps=steps, target=target, threads=torch.get_num_threads())
        return tuple(map(torch.from_numpy, found))

"""The engine and the derivative kernels of one structure on one device; tensors in, tensors out.

The methods are those of `conelayers.native.Engine` and `Differentiator`. Nothing here waits for the device: a problem
runs to its own end, so that there is no convergence to ask for from the host.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from conelayers.native import derivative_image, engine_image
from conelayers.native.cuda.launcher import Kernel, launcher
from conelayers.native.cuda.plan import WARP, Problem, plan

__all__ = ["DeviceDifferentiator", "DeviceEngine"]

_INPUTS, _OUTPUTS = 10, 8  # of Task in task.cuh
# Zero, nonnegative and free cones are in every kernel; others only where a structure has them.
_ALWAYS = 1 << 0 | 1 << 1 | 1 << 8
_LARGEST_SHARE = 4  # work takes at most one fourth of the device's memory


class _Kernels:
    """The analysis of a structure in a device's memory, and launches with it.

    Args:
        image: Makes the view's image from the structure's arrays.
        structure: n, m, then the arrays of `conelayers.native.Engine`.
        device: Where the kernels run.
    """

    def __init__(self, image: Callable[..., tuple], structure: Sequence, device: torch.device) -> None:
        self.n, self.m = structure[:2]
        self.P_nnz, self.A_nnz = len(structure[3]), len(structure[5])
        self.device = device
        self._cones = _ALWAYS | int(np.bitwise_or.reduce(1 << structure[6].astype(np.int64), initial=0))
        view, arrays, pointers, self.entries, factor = image(*structure)
        self._problem = Problem(self.n, self.m, self.A_nnz + 2 * self.P_nnz, *factor)
        self._arrays = torch.frombuffer(bytearray(arrays) or bytearray(1), dtype=torch.uint8).to(device)
        if device.type == "cuda":
            self._stream = torch.cuda.current_stream(device)
            self._stream.synchronize()  # other streams may read it from now on
        self.view = _with_addresses(view, pointers, self._arrays.data_ptr())

    def _launch(
        self,
        name: str,
        views: Sequence[bytes],
        entries: int,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        items: int,
        *,
        count: int = 1,
        steps: int = 0,
        places: tuple[int, int] = (0, 0),
        number: float = 0.0,
    ) -> None:
        """Run a kernel on `items` items; each input has one row, or one per item, of contiguous numbers."""
        if items == 0:
            return
        run = launcher(self.device)
        team, shared = plan(items, entries, self._problem, run.device)
        kernel, lanes = Kernel(name, self._cones, team), WARP // team
        warps = min(-(-items // lanes), run.resident(kernel, shared))
        if not shared:
            warps = min(warps, max(1, run.device.memory // _LARGEST_SHARE // max(1, entries * lanes * 8)))
        work, warps = self._work(0 if shared else max(1, entries) * lanes, warps)
        rows = [(i.data_ptr(), 0 if i.shape[0] == 1 else i[0].numel()) for i in inputs]
        rows += [(0, 0)] * (_INPUTS - len(rows))
        addresses = [o.data_ptr() for o in outputs] + [0] * (_OUTPUTS - len(outputs))
        words = [word for row in rows for word in row] + addresses
        words += [0 if shared else work.data_ptr(), entries, items, count, steps, *places]
        task = struct.pack(f"{len(words)}qd", *words, number)
        run.launch(kernel, [*views, task], warps, shared)
        self.keep_for_stream()

    def _work(self, table: int, warps: int) -> tuple[Tensor, int]:
        """Tables of so many numbers, and how many there are: one per warp, or fewer where memory is short."""
        while True:
            try:
                return self._empty(warps * table), warps
            except torch.OutOfMemoryError:
                if warps == 1:
                    raise
                warps //= 2

    def keep_for_stream(self) -> None:
        """The analysis is not to be freed while another stream than the one it was made on uses it."""
        if self.device.type != "cuda":
            return
        stream = torch.cuda.current_stream(self.device)
        if stream != self._stream:
            self._arrays.record_stream(stream)

    def _empty(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    def _rows(self, name: str, values: Tensor, batch: int, size: int) -> Tensor:
        """Contiguous float64 rows of the right size; raises ValueError naming the argument."""
        if values.dim() != 2 or values.shape[1] != size or values.shape[0] not in (1, batch):
            raise ValueError(f"{name} must have shape (1 or {batch}, {size}), got {tuple(values.shape)}")
        return _contiguous(values, self.device, name)

    def _cube(self, name: str, values: Tensor, batch: int, size: int) -> Tensor:
        if values.dim() != 3 or values.shape[0] != batch or values.shape[2] != size:
            raise ValueError(f"{name} must have shape ({batch}, k, {size}), got {tuple(values.shape)}")
        return _contiguous(values, self.device, name)


class DeviceEngine(_Kernels):
    """`conelayers.native.Engine` on a device; arguments as there, then the device."""

    def __init__(self, *structure, device: torch.device) -> None:
        super().__init__(engine_image, structure, device)

    def solve(
        self,
        P: Tensor,
        q: Tensor,
        A: Tensor,
        b: Tensor,
        batch: int,
        *,
        differentiator: DeviceDifferentiator | None = None,
        tol: float = 1e-8,
        max_iter: int = 100,
    ) -> dict[str, Tensor]:
        """Solve `batch` programmes; each of P, q, A, b has `batch` rows, or one that all share.

        Args:
            P: Values of the upper triangle, in the order of the pattern, (1 or batch, entries).
            q: Linear terms, (1 or batch, n).
            A: Values, (1 or batch, entries).
            b: Right-hand sides, (1 or batch, m).
            batch: How many.
            differentiator: That of the same structure and device, with which the interior-point method ends in Newton
                steps on the optimality conditions; None to go without.
            tol: Of residuals, gap and certificates.
            max_iter: Limit on interior-point iterations.

        Returns:
            x, y, s, status, iterations, primal_residual, dual_residual and gap; a normalised certificate in x, y, s
            where the status is infeasible.

        Raises:
            ValueError: If a shape or device does not fit.
        """
        inputs = [
            self._rows("P", P, batch, self.P_nnz),
            self._rows("q", q, batch, self.n),
            self._rows("A", A, batch, self.A_nnz),
            self._rows("b", b, batch, self.m),
        ]
        found = {
            "x": self._empty(batch, self.n),
            "y": self._empty(batch, self.m),
            "s": self._empty(batch, self.m),
            "primal_residual": self._empty(batch),
            "dual_residual": self._empty(batch),
            "gap": self._empty(batch),
            "status": self._empty(batch, dtype=torch.int8),
            "iterations": self._empty(batch, dtype=torch.int64),
        }
        views, entries, places = [self.view, _no_derivative()], sum(self.entries), (self.entries[0], 0)
        if differentiator is not None:
            views[1] = differentiator.view
            entries, places = self._with_newton(differentiator)
        outputs = list(found.values())
        self._launch("solve", views, entries, inputs, outputs, batch, steps=max_iter, places=places, number=tol)
        if differentiator is not None:
            differentiator.keep_for_stream()
        return found

    def _with_newton(self, differentiator: DeviceDifferentiator) -> tuple[int, tuple[int, int]]:
        """Entries of a table, and where the scratch and the part of the Newton steps begin: see solve.cu."""
        if (differentiator.n, differentiator.m, differentiator.P_nnz, differentiator.A_nnz, differentiator.device) != (
            self.n,
            self.m,
            self.P_nnz,
            self.A_nnz,
            self.device,
        ):
            raise ValueError("differentiator must be that of the same patterns on the same device")
        kept, scratch = self.entries
        newton = kept + max(0, scratch - differentiator.entries)
        return newton + differentiator.entries + self.n + 2 * self.m, (kept, newton)


class DeviceDifferentiator(_Kernels):
    """`conelayers.native.Differentiator` on a device; arguments as there, then the device."""

    def __init__(self, *structure, device: torch.device) -> None:
        super().__init__(derivative_image, structure, device)

    def _run(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], items: int, **options) -> None:
        self._launch(name, [self.view], self.entries, inputs, outputs, items, **options)

    def derivative(
        self, P: Tensor, A: Tensor, v: Tensor, r1: Tensor, r2: Tensor, mu: float = 0.0, shortest: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dx, dv, relative residual) of J(D(v)) [dx; dv] = [r1; r2]; r1 (B, k, n), r2 (B, k, m).

        Where J is singular, the shortest solution for what is consistent, and the residual of that, if `shortest`.
        """
        batch, count = r1.shape[:2]
        inputs = [
            self._rows("P", P, batch, self.P_nnz),
            self._rows("A", A, batch, self.A_nnz),
            self._rows("v", v, batch, self.m),
            self._cube("r1", r1, batch, self.n),
            self._cube("r2", r2, batch, self.m),
        ]
        if r2.shape[1] != count:
            raise ValueError("r1 and r2 must have equal k")
        found = self._empty(batch, count, self.n), self._empty(batch, count, self.m), self._empty(batch, count)
        steps = 0 if shortest else 1
        self._run("derivative", inputs, found, batch, count=count, steps=steps, number=_smoothing(mu))
        return found

    def probe(self, P: Tensor, A: Tensor, y: Tensor, s: Tensor, rhs: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
        """(|z|, relative residual) of J(D(y - s)) z = rhs, (B,) each; rhs (n + m,). As accurate as `derivative` is."""
        r1, r2 = (part.expand(y.shape[0], 1, -1) for part in rhs.split([self.n, self.m]))
        dx, dv, residual = self.derivative(P, A, y - s, r1, r2, shortest=False)
        return torch.hypot(dx.norm(dim=-1), dv.norm(dim=-1))[:, 0], residual[:, 0]

    def apply_D(self, v: Tensor, u: Tensor, mu: float = 0.0) -> Tensor:
        """D(v) u; u (B, k, m)."""
        batch, count = u.shape[:2]
        inputs = [self._rows("v", v, batch, self.m), self._cube("u", u, batch, self.m)]
        found = self._empty(batch, count, self.m)
        self._run("apply", inputs, [found], batch, count=count, number=_smoothing(mu))
        return found

    def project_dual(self, v: Tensor, mu: float = 0.0) -> Tensor:
        """The projection of v onto the dual cone, smoothed for mu > 0."""
        batch = v.shape[0]
        found = self._empty(batch, self.m)
        self._run("project", [self._rows("v", v, batch, self.m)], [found], batch, number=_smoothing(mu))
        return found

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
        mu: float = 0.0,
        direction: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """dP, dq, dA, db, lam, u and the relative residual of the adjoint system.

        `direction`, a row or one per item, holds tangents of P, q, A and b, one after another; `outside`, (B, 2), tells
        what of that motion the linearised conditions cannot follow.
        """
        batch, n, m = x.shape[0], self.n, self.m
        sizes = {"P": self.P_nnz, "A": self.A_nnz, "x": n, "y": m, "s": m, "gx": n, "gy": m, "gs": m}
        values = (P, A, x, y, s, gx, gy, gs)
        inputs = [self._rows(name, value, batch, size) for (name, size), value in zip(sizes.items(), values)]
        if direction is not None:
            inputs.append(self._rows("direction", direction, batch, self.P_nnz + n + self.A_nnz + m))
        found = {
            "dP": self._empty(batch, self.P_nnz),
            "dq": self._empty(batch, n),
            "dA": self._empty(batch, self.A_nnz),
            "db": self._empty(batch, m),
            "lam": self._empty(batch, n),
            "u": self._empty(batch, m),
            "residual": self._empty(batch),
            "outside": self._empty(batch, 2),
        }
        if direction is None:
            found["outside"].zero_()
        self._run("pullback", inputs, list(found.values()), batch, number=_smoothing(mu))
        return found

    def polish(
        self,
        P: Tensor,
        q: Tensor,
        A: Tensor,
        b: Tensor,
        x: Tensor,
        y: Tensor,
        s: Tensor,
        steps: int = 2,
        target: float = 1e-14,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x, y, s, their residual, and (B, 3): relative primal residual, dual residual and gap."""
        batch, n, m = x.shape[0], self.n, self.m
        sizes = {"P": self.P_nnz, "q": n, "A": self.A_nnz, "b": m, "x": n, "y": m, "s": m}
        values = (P, q, A, b, x, y, s)
        inputs = [self._rows(name, value, batch, size) for (name, size), value in zip(sizes.items(), values)]
        found = (
            self._empty(batch, n),
            self._empty(batch, m),
            self._empty(batch, m),
            self._empty(batch),
            self._empty(batch, 3),
        )
        self._run("polish", inputs, found, batch, steps=steps, number=target)
        return found


@functools.cache
def _no_derivative() -> bytes:
    """The view of no conditions at all: what a kernel is given in place of one that it does not use."""
    none, start = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    return derivative_image(0, 0, start, none, start, none, none, none, np.zeros(0))[0]


def _with_addresses(view: bytes, pointers: Sequence[tuple[int, int]], base: int) -> bytes:
    """The view with the addresses of its arrays, which begin at `base`."""
    filled = bytearray(view)
    width = ctypes.sizeof(ctypes.c_void_p)
    for member, array in pointers:
        filled[member : member + width] = (base + array).to_bytes(width, "little")
    return bytes(filled)


def _contiguous(values: Tensor, device: torch.device, name: str) -> Tensor:
    if values.device != device:
        raise ValueError(f"{name} must be on {device}, got {values.device}")
    return values.detach().to(torch.float64).contiguous()


def _smoothing(mu: float) -> float:
    if not mu >= 0.0:
        raise ValueError("mu must be at least 0")
    return mu

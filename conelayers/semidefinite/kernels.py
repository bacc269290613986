"""The derivative kernels of programmes with large semidefinite blocks, one item after another.

They have the interface of the compiled kernels of the engine (`conelayers.residual.compiled.CompiledKernels`). An item
whose values do not have the form that its pattern allows comes back with an infinite residual: dense methods take it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.program import ConeProgram, ConeStructure, residuals
from conelayers.program.products import A_transpose_times, outer, symmetric_outer
from conelayers.semidefinite.form import Form, semidefinite_form
from conelayers.semidefinite.item import Item, Unsuited
from conelayers.semidefinite.point import Point

__all__ = ["SemidefiniteKernels"]


# Newton steps in a row that may leave a larger residual than the best one.
_WORSE = 2


class SemidefiniteKernels:
    """J(D) and what is solved with it, for one structure.

    Args:
        structure: Patterns and cone.
        form: Its form.
    """

    def __init__(self, structure: ConeStructure, form: Form) -> None:
        self.structure, self.form = structure, form

    @classmethod
    def of(cls, structure: ConeStructure) -> SemidefiniteKernels | None:
        """The kernels, or None where the structure has no large blocks that fit."""
        form = semidefinite_form(structure)
        return None if form is None else cls(structure, form)

    def derivative(
        self, P: Tensor, A: Tensor, v: Tensor, r1: Tensor, r2: Tensor, mu: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dx, dv, relative residual) of J(D(v)) [dx; dv] = [r1; r2]; r1 (B, k, n), r2 (B, k, m)."""
        found = [self._solved(*_item(i, P, A, v, r1, r2), mu=mu)[:3] for i in range(len(v))]
        dx, dv, residual = (torch.from_numpy(np.stack(parts)) for parts in zip(*found, strict=True))
        return dx, dv, residual

    def apply_D(self, v: Tensor, u: Tensor, mu: float = 0.0) -> Tensor:
        """D(v) u; u (B, k, m)."""
        applied = [Point(self.form, _item(i, v)[0], mu or None).apply(u[i].numpy()) for i in range(len(v))]
        return torch.from_numpy(np.stack(applied))

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
        """dP, dq, dA, db and the relative residual of the adjoint system; see `ConicConditions`.

        Whether the data may move along `direction` is not looked at: `outside` is zero.
        """
        first, v = gx - A_transpose_times(self.structure, A, gs), y - s
        found = [self._solved(*_item(i, P, A, v, first[:, None], gy[:, None]), mu=0.0) for i in range(len(v))]
        lam, _, residual, w = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*found, strict=True))
        nu = w + gs
        return {
            "dP": -symmetric_outer(self.structure, lam, x),
            "dq": -lam,
            "dA": -(outer(self.structure, y, lam) + outer(self.structure, nu, x)),
            "db": nu,
            "residual": residual,
            "outside": residual.new_zeros(len(residual), 2),
        }

    def probe(self, P: Tensor, A: Tensor, y: Tensor, s: Tensor, rhs: Tensor, accuracy: float) -> tuple[Tensor, Tensor]:
        """(|z|, relative residual) of J(D(y - s)) z = rhs, (B,) each; rhs (n + m,)."""
        count, n = len(y), self.structure.n
        first, second = rhs[:n].expand(count, 1, -1), rhs[n:].expand(count, 1, -1)
        dx, dv, residual = self.derivative(P, A, y - s, first, second)
        return torch.cat([dx, dv], -1).norm(dim=-1)[:, 0], residual[:, 0]

    def polish(
        self, P: Tensor, q: Tensor, A: Tensor, b: Tensor, x: Tensor, y: Tensor, s: Tensor, steps: int, target: float
    ) -> tuple[Tensor, ...]:
        """x, y, s, their residual, and (B, 3): relative primal residual, dual residual and gap.

        Semismooth Newton steps (Qi & Sun 1993); the best point on the way is what remains.
        """
        points = [self._polished(*_item(i, P, q, A, b, x, y - s), steps=steps, target=target) for i in range(len(x))]
        x, y, s, relative = (torch.from_numpy(np.stack(parts)) for parts in zip(*points, strict=True))
        return x, y, s, relative.amax(-1), relative

    def _polished(self, P, q, A, b, x, v, steps: int, target: float) -> tuple[np.ndarray, ...]:
        """The best point of one item, and its residuals."""
        program = ConeProgram(self.structure, *map(torch.from_numpy, (P, q, A, b)))
        item, best, worse = self._sorted(P, A), None, 0
        for step in range(steps + 1):
            point = Point(self.form, v)
            y = point.projection
            s = y - v
            measured = residuals(program, *map(torch.from_numpy, (x, y, s)))
            relative = np.array([float(measured.primal), float(measured.dual), float(measured.gap)])
            if best is None or relative.max() < best[3].max():
                best, worse = (x, y, s, relative), 0
            else:
                worse += 1  # a wrong guess of the ranks is often right one step later
            if item is None or step == steps or relative.max() <= target or worse > _WORSE:
                break
            first = item.P @ x + q + item.A.T @ y
            second = item.A @ x + s - b
            dx, dv = point.system(item).solve(-first[None], -second[None])
            x, v = x + dx[0], v + dv[0]
        assert best is not None
        return best

    def _solved(self, P, A, v, r1, r2, mu: float) -> tuple[np.ndarray, ...]:
        """dx, dv, relative residual and D dv of one item; one round of refinement against J, where it helps."""
        item = self._sorted(P, A) if np.isfinite(v).all() else None
        if item is None:
            return np.zeros_like(r1), np.zeros_like(r2), np.full(len(r1), np.inf), np.zeros_like(r2)
        point = Point(self.form, v, mu or None)
        system = point.system(item)
        dx, dv = system.solve(r1, r2)
        first, second, residual, w = _missing(item, point, dx, dv, r1, r2)
        changes = system.solve(first, second)
        better = dx + changes[0], dv + changes[1]
        _, _, after, w_after = _missing(item, point, *better, r1, r2)
        keep = (after < residual)[:, None]
        dx, dv, w = (np.where(keep, new, old) for new, old in zip((*better, w_after), (dx, dv, w), strict=True))
        return dx, dv, np.minimum(after, residual), w

    def _sorted(self, P: np.ndarray, A: np.ndarray) -> Item | None:
        """One programme's data, or None if it does not suit."""
        try:
            return Item(self.structure, self.form, P, A)
        except Unsuited:
            return None


def _missing(item: Item, point: Point, dx, dv, r1, r2) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What J leaves of the right-hand sides, its relative size (k,), and D dv."""
    w = point.apply(dv)
    first = r1 - dx @ item.P - w @ item.A
    second = r2 - dx @ item.A.T - w + dv
    size = np.abs(np.concatenate([r1, r2, dx, dv], 1)).max(1, initial=0.0)
    error = np.abs(np.concatenate([first, second], 1)).max(1, initial=0.0)
    return first, second, np.divide(error, size, out=error, where=size > 0), w


def _item(i: int, *values: Tensor) -> tuple[Any, ...]:
    """The i-th item's data, of batches or of shared values."""
    return tuple(value[min(i, len(value) - 1)].numpy() for value in values)

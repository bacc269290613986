"""Conjugate gradients, matrix-free and batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.krylov import KrylovSolver, KrylovState, divide, inner, norm

__all__ = ["CG"]


@dataclasses.dataclass(frozen=True)
class CG(KrylovSolver):
    """Conjugate gradients (Hestenes & Stiefel 1952) for positive (semi)definite operators.

    The preconditioner, if any, must be symmetric positive definite.
    """

    symmetric = True
    definite = True
    singular = True

    def run_pass(self, state: KrylovState, residual: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """One pass of the three-term recurrence; a direction without curvature stops its item."""
        x, r = torch.zeros_like(residual), residual
        z = state.precondition(r)
        p, rz = z, inner(r, z)
        active = norm(r) > target
        iterations = torch.zeros(active.shape, dtype=torch.int64, device=r.device)
        for iteration in range(limit):
            if self.finished(iteration, active):
                break
            Ap = state.operator.matvec(p)
            curvature = inner(p, Ap)
            active = active & (curvature > 0)
            alpha = torch.where(active, divide(rz, curvature), torch.zeros_like(rz))
            x, r = x + alpha * p, r - alpha * Ap
            iterations = iterations + active
            z = state.precondition(r)
            rz_next = inner(r, z)
            p = torch.where(active, z + divide(rz_next, rz) * p, p)
            rz = torch.where(active, rz_next, rz)
            active = active & (norm(r) > target)
        return x, iterations

    def improved(self, step: Tensor, residual: Tensor, candidate_residual: Tensor) -> Tensor:
        """Also those of smaller x'Ax / 2 - b'x, which every step lowers; the residual may rise on the way.

        Along a step d from residual r to s it changes by -d'(r + s) / 2.
        """
        lower = inner(step, residual + candidate_residual) > 0
        return lower & candidate_residual.isfinite().all(-1, keepdim=True) | super().improved(
            step, residual, candidate_residual
        )

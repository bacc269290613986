"""BiCGSTAB, matrix-free and batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.krylov import KrylovSolver, KrylovState, divide, inner, norm

__all__ = ["BiCGSTAB"]


@dataclasses.dataclass(frozen=True)
class BiCGSTAB(KrylovSolver):
    """Stabilised biconjugate gradients (van der Vorst 1992), right-preconditioned, for any square operator.

    The recurrences are short. The residual may rise on the way; a pass that ends above its start is not kept. GMRES is
    the safer choice where its memory fits.
    """

    def run_pass(self, state: KrylovState, residual: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """One pass; a vanishing pivot stops its item, and the next pass restarts it from its measured residual."""
        shadow, r = residual, residual
        x, p, v = torch.zeros_like(r), torch.zeros_like(r), torch.zeros_like(r)
        rho = alpha = omega = torch.ones_like(norm(r))
        active = norm(r) > target
        iterations = torch.zeros(active.shape, dtype=torch.int64, device=r.device)
        for iteration in range(limit):
            if self.finished(iteration, active):
                break
            rho_next = inner(shadow, r)
            p = r + divide(rho_next, rho) * divide(alpha, omega) * (p - omega * v)
            p_hat = state.precondition(p)
            v = state.operator.matvec(p_hat)
            pivot = inner(shadow, v)
            active = active & (rho_next != 0) & (pivot != 0)
            alpha = divide(rho_next, pivot)
            half = r - alpha * v
            half_hat = state.precondition(half)
            t = state.operator.matvec(half_hat)
            omega = divide(inner(t, half), inner(t, t))
            x = torch.where(active, x + alpha * p_hat + omega * half_hat, x)
            r = torch.where(active, half - omega * t, r)
            rho = rho_next
            iterations = iterations + active
            active = active & (norm(r) > target) & (omega != 0)
        return x, iterations

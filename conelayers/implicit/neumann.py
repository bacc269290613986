"""The Neumann series as a linear solver."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.krylov import KrylovSolver, KrylovState, norm

__all__ = ["Neumann"]


@dataclasses.dataclass(frozen=True)
class Neumann(KrylovSolver):
    """x <- x + (b - A x): for A = I - J the partial sums of sum_j J^j b, which converge if the spectral radius of J is below 1.

    The adjoint counterpart of Picard iteration: one product per step, no memory beyond two vectors.
    """

    def run_pass(
        self, state: KrylovState, residual: Tensor, target: Tensor, limit: int
    ) -> tuple[Tensor, Tensor]:
        """Sum terms until the residual, which each step measures, meets the target; diverging items stop."""
        x, r = torch.zeros_like(residual), residual
        start = norm(residual)
        active = start > target
        iterations = torch.zeros(active.shape, dtype=torch.int64, device=r.device)
        for iteration in range(limit):
            if iteration % self.check_every == 0 and not bool(active.any()):
                break
            x = torch.where(active, x + r, x)
            r = torch.where(active, residual - state.operator.matvec(x), r)
            iterations = iterations + active
            size = norm(r)
            active = active & (size > target) & (size < 1e8 * start)
        return x, iterations

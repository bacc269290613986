"""MINRES, matrix-free and batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.krylov import KrylovSolver, KrylovState, divide, inner

__all__ = ["MINRES"]


@dataclasses.dataclass(frozen=True)
class MINRES(KrylovSolver):
    """Minimal residuals (Paige & Saunders 1975) for symmetric operators, indefinite or singular ones included.

    The preconditioner, if any, must be symmetric positive definite. The recurrences are those of the Lanczos process
    with one Givens rotation per step, as in Elman, Silvester & Wathen, *Finite Elements and Fast Iterative Solvers*,
    algorithm 4.1.
    """

    symmetric = True
    singular = True

    def run_pass(self, state: KrylovState, residual: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """One Lanczos pass; `eta` is the residual norm in the metric of the preconditioner."""
        zero = torch.zeros_like(residual)
        x, w_old, w = zero, zero, zero
        v_old, v = zero, residual
        z = state.precondition(v)
        gamma = inner(z, v).clamp(min=0).sqrt()
        gamma_old = torch.ones_like(gamma)
        # In the preconditioner's metric the target keeps its ratio to the first residual.
        eta, goal = gamma, gamma * divide(target, torch.linalg.vector_norm(v, dim=-1, keepdim=True))
        c_old, c = torch.ones_like(gamma), torch.ones_like(gamma)
        s_old, s = torch.zeros_like(gamma), torch.zeros_like(gamma)
        active = eta > goal
        iterations = torch.zeros(active.shape, dtype=torch.int64, device=v.device)
        tiny = torch.finfo(residual.dtype).eps
        for iteration in range(limit):
            if self.finished(iteration, active):
                break
            z = divide(z, gamma)
            Az = state.operator.matvec(z)
            delta = inner(Az, z)
            v_next = Az - divide(delta, gamma) * v - divide(gamma, gamma_old) * v_old
            z_next = state.precondition(v_next)
            gamma_next = inner(z_next, v_next).clamp(min=0).sqrt()
            # Rotate the new column of the tridiagonal matrix; r1 is its diagonal entry in the triangular factor.
            r0 = c * delta - c_old * s * gamma
            r1 = torch.hypot(r0, gamma_next)
            r2 = s * delta + c_old * c * gamma
            r3 = s_old * gamma
            # A vanishing diagonal entry means that A maps the Krylov space onto a smaller one: stop there.
            active = active & (r1 > tiny * torch.hypot(delta, gamma))
            c_next, s_next = divide(r0, r1), divide(gamma_next, r1)
            w_next = divide(z - r3 * w_old - r2 * w, r1)
            x = torch.where(active, x + c_next * eta * w_next, x)
            eta = torch.where(active, -s_next * eta, eta)
            iterations = iterations + active
            v_old, v, z, gamma_old, gamma = v, v_next, z_next, gamma, gamma_next
            w_old, w, c_old, c, s_old, s = w, w_next, c, c_next, s, s_next
            active = active & (eta.abs() > goal) & (gamma > 0)
        return x, iterations

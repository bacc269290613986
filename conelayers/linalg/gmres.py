"""Restarted GMRES, matrix-free and batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.linalg.krylov import KrylovSolver, KrylovState, norm

__all__ = ["GMRES"]


@dataclasses.dataclass(frozen=True)
class GMRES(KrylovSolver):
    """Generalised minimal residuals (Saad & Schultz 1986), right-preconditioned, restarted.

    Attributes:
        restart: Largest Krylov space kept; memory is restart + 1 vectors per item.
    """

    singular = True

    restart: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restart < 1:
            raise InvalidArgument(f"restart is {self.restart}; it must be at least 1.")

    def run_pass(self, state: KrylovState, residual: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """One cycle: Arnoldi by twice-applied Gram-Schmidt, least squares by accumulated Givens rotations."""
        length = max(min(self.restart, limit, residual.shape[-1]), 1)
        beta = norm(residual)
        # shape: (*rhs, *batch, length + 1, n); rows times a matrix run three times faster than a matrix times columns
        basis = residual.new_zeros(*residual.shape[:-1], length + 1, residual.shape[-1])
        basis[..., 0, :] = residual / torch.where(beta > 0, beta, torch.ones_like(beta))
        triangle = _Triangle(beta.squeeze(-1), length)
        active = (beta > target).squeeze(-1)
        iterations = torch.zeros(active.shape, dtype=torch.int64, device=residual.device)
        steps = 0
        for step in range(length):
            if self.finished(step, active):
                break
            w = state.operator.matvec(state.precondition(basis[..., step, :]))
            column, direction = _orthogonalise(basis[..., : step + 1, :], w)
            iterations = iterations + active
            active = triangle.append(column, active, target.squeeze(-1))
            basis[..., step + 1, :] = torch.where(active.unsqueeze(-1), direction, torch.zeros_like(direction))
            steps += 1
        coefficients = triangle.solve(steps)  # shape: (*rhs, *batch, steps)
        combination = (coefficients.unsqueeze(-2) @ basis[..., :steps, :]).squeeze(-2)
        return state.precondition(combination), iterations.unsqueeze(-1)


def _orthogonalise(basis: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Column of the Hessenberg matrix, shape (..., k + 1), and the next basis vector, for basis (..., k, n)."""
    first = (w.unsqueeze(-2) @ basis.mT).squeeze(-2)
    w = w - (first.unsqueeze(-2) @ basis).squeeze(-2)
    # The second sweep restores orthogonality to working precision ("twice is enough").
    second = (w.unsqueeze(-2) @ basis.mT).squeeze(-2)
    w = w - (second.unsqueeze(-2) @ basis).squeeze(-2)
    height = norm(w)
    column = torch.cat([first + second, height], dim=-1)
    vanished = height <= torch.finfo(w.dtype).eps * norm(column)
    height = torch.where(vanished, torch.zeros_like(height), height)
    column = torch.cat([column[..., :-1], height], dim=-1)
    return column, w / torch.where(vanished, torch.full_like(height, torch.inf), height)


class _Triangle:
    """The least-squares problem min ||beta e_1 - H y|| as H grows by columns.

    The product G of all rotations is kept as one matrix, so that a new column costs one product and one rotation
    however many columns there are.
    """

    def __init__(self, beta: Tensor, length: int) -> None:
        shape = beta.shape
        self.beta = beta
        self.G = torch.eye(length + 1, dtype=beta.dtype, device=beta.device).repeat(*shape, 1, 1)
        self.R = torch.eye(length, dtype=beta.dtype, device=beta.device).repeat(*shape, 1, 1)
        self.g = torch.zeros(*shape, length, dtype=beta.dtype, device=beta.device)
        self.k = 0

    def append(self, column: Tensor, active: Tensor, target: Tensor) -> Tensor:
        """Take in a Hessenberg column of active items; returns who is still active."""
        k, size = self.k, self.k + 2
        rotated = torch.einsum("...ij,...j->...i", self.G[..., :size, :size], column)
        diagonal = torch.hypot(rotated[..., k], rotated[..., k + 1])
        # A vanishing diagonal: A is singular on this Krylov space, and y_k = 0 is a least-squares choice.
        usable = active & (diagonal > torch.finfo(column.dtype).eps * torch.linalg.vector_norm(column, dim=-1))
        safe = torch.where(usable, diagonal, torch.ones_like(diagonal))
        cosine = torch.where(usable, rotated[..., k] / safe, torch.ones_like(safe)).unsqueeze(-1)
        sine = torch.where(usable, rotated[..., k + 1] / safe, torch.zeros_like(safe)).unsqueeze(-1)
        upper, lower = self.G[..., k, :].clone(), self.G[..., k + 1, :].clone()
        self.G[..., k, :] = cosine * upper + sine * lower
        self.G[..., k + 1, :] = cosine * lower - sine * upper
        kept = usable.unsqueeze(-1)
        self.R[..., :k, k] = torch.where(kept, rotated[..., :k], torch.zeros_like(rotated[..., :k]))
        self.R[..., k, k] = safe
        self.g[..., k] = torch.where(usable, self.beta * self.G[..., k, 0], torch.zeros_like(self.beta))
        residual = (self.beta * self.G[..., k + 1, 0]).abs()
        self.k += 1
        return usable & (residual > target) & (column[..., -1] > 0)

    def solve(self, steps: int) -> Tensor:
        """Coefficients of the first `steps` basis vectors."""
        R, g = self.R[..., :steps, :steps], self.g[..., :steps].unsqueeze(-1)
        return torch.linalg.solve_triangular(R, g, upper=True).squeeze(-1)

"""Dense matrices of small programmes, their Jacobians J(D) and inverses of these."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.program import ConeStructure

__all__ = ["DENSE_SIZE", "Matrices", "inverses", "jacobians"]

#: Beyond this many rows and columns an item is tested by sparse factorization.
DENSE_SIZE = 700
# An equilibrated Jacobian is singular to rounding if its inverse has entries beyond this.
_LARGEST = 1e13


@dataclasses.dataclass(frozen=True, eq=False)
class Matrices:
    """P (B, n, n), symmetric, and A (B, m, n); B may be one."""

    P: Tensor
    A: Tensor

    @classmethod
    def of(cls, structure: ConeStructure, P: Tensor, A: Tensor) -> Matrices:
        """From stored values (B, nnz)."""
        dense_A = A.new_zeros(A.shape[0], structure.m, structure.n)
        dense_A[:, torch.as_tensor(structure.A_indices), torch.as_tensor(structure.A_columns)] = A
        rows, columns = torch.as_tensor(structure.P_indices), torch.as_tensor(structure.P_columns)
        dense_P = P.new_zeros(P.shape[0], structure.n, structure.n)
        dense_P[:, rows, columns] = P
        dense_P[:, columns, rows] = P
        return cls(dense_P, dense_A)

    def take(self, items: Tensor) -> Matrices:
        """Those of some items."""
        return Matrices(*(value if value.shape[0] == 1 else value[items] for value in (self.P, self.A)))


def jacobians(matrices: Matrices, D: Tensor) -> Tensor:
    """J(D) = [[P, A'D], [A, D - I]] for elements D (B, m, m), shape (B, n + m, n + m)."""
    batch, m = D.shape[:2]
    P, A = (value.expand(batch, *value.shape[1:]) for value in (matrices.P, matrices.A))
    return torch.cat([torch.cat([P, A.mT @ D], -1), torch.cat([A, D - torch.eye(m, dtype=D.dtype)], -1)], -2)


def inverses(J: Tensor, largest: float = _LARGEST) -> tuple[Tensor, Tensor]:
    """Inverses of square matrices, without directions in which they exceed `largest` after equilibration.

    Args:
        J: shape (B, N, N).
        largest: The bound.

    Returns:
        The inverses, not finite where J is not, and where directions were left out, bool, (B,).
    """
    if J.shape[-1] == 0 or J.shape[0] == 0:
        return J, torch.zeros(J.shape[0], dtype=torch.bool)
    rows, columns = _equilibration(J)
    scaled = rows[..., None] * J * columns[..., None, :]
    inverse, info = torch.linalg.inv_ex(scaled)
    singular = (info != 0) | ~(inverse.abs().amax((-1, -2)) <= largest)
    again = singular & scaled.isfinite().all(-1).all(-1)
    if bool(again.any()):
        inverse[again] = torch.linalg.pinv(scaled[again], rtol=1 / largest)
    return columns[..., None] * inverse * rows[..., None, :], singular


def _equilibration(J: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of rows and columns that bring their largest entries near one."""
    rows, columns = torch.ones_like(J[..., 0]), torch.ones_like(J[..., 0, :])
    size = J.abs()
    for _ in range(3):
        scaled = rows[..., None] * size * columns[..., None, :]
        rows = rows / _root(scaled.amax(-1))
        columns = columns / _root(scaled.amax(-2))
    return rows, columns


def _root(size: Tensor) -> Tensor:
    return torch.where(size > 0, size, 1.0).sqrt()

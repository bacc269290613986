"""Minimum-norm least squares by the singular value decomposition, batched and dense."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.base import LinearInfo, LinearSolver, direct_info
from conelayers.linalg.operators import LinearOperator

__all__ = ["MinimumNorm", "SVDState"]


@dataclasses.dataclass(frozen=True, eq=False)
class SVDState:
    """Thin factors A = U diag(sigma) V' and the pseudo-inverted singular values."""

    operator: LinearOperator
    U: Tensor
    inverse_sigma: Tensor
    Vt: Tensor


@dataclasses.dataclass(frozen=True)
class MinimumNorm(LinearSolver[SVDState]):
    """x = A^+ b: of all x that minimise ||b - A x||, the shortest.

    Attributes:
        rank_tolerance: Singular values at or below this multiple of the largest count as zero; None means
            max(rows, columns) times the unit roundoff, as LAPACK and NumPy take it.
    """

    square = False
    singular = True
    minimum_norm = True

    rank_tolerance: float | None = None

    def init(self, operator: LinearOperator) -> SVDState:
        """Decompose the dense matrices."""
        self.check(operator)
        matrix = operator.as_matrix()
        U, sigma, Vt = torch.linalg.svd(matrix, full_matrices=False)
        tolerance = self.rank_tolerance
        if tolerance is None:
            tolerance = max(operator.shape) * torch.finfo(matrix.dtype).eps
        if sigma.shape[-1] == 0:
            return SVDState(operator, U, sigma, Vt)
        kept = sigma > tolerance * sigma[..., :1]
        inverse = torch.where(kept, 1 / torch.where(kept, sigma, torch.ones_like(sigma)), torch.zeros_like(sigma))
        return SVDState(operator, U, inverse, Vt)

    def solve(self, state: SVDState, rhs: Tensor) -> tuple[Tensor, LinearInfo]:
        """V diag(1 / sigma) U' b."""
        coefficients = state.inverse_sigma * torch.einsum("...ij,...i->...j", state.U, rhs)
        solution = torch.einsum("...ij,...i->...j", state.Vt, coefficients)
        return solution, direct_info(state.operator, solution, rhs)

    def transpose(self, state: SVDState) -> SVDState:
        """A' = V diag(sigma) U'."""
        return SVDState(state.operator.transpose(), state.Vt.mT, state.inverse_sigma, state.U.mT)

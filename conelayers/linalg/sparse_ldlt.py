"""Sparse LDL' of symmetric quasidefinite matrices, one item after another, by QDLDL."""

from __future__ import annotations

import dataclasses

import numpy as np
import qdldl
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.linalg.base import LinearInfo, LinearSolver, direct_info
from conelayers.linalg.operators import LinearOperator
from conelayers.linalg.sparse import SymmetricOperator, require_triangle

__all__ = ["SparseLDLT", "SparseLDLTState"]


@dataclasses.dataclass(frozen=True, eq=False)
class SparseLDLTState:
    """One factorization per item; None where a pivot vanished."""

    operator: SymmetricOperator
    factors: tuple[qdldl.Solver | None, ...]


@dataclasses.dataclass(frozen=True)
class SparseLDLT(LinearSolver[SparseLDLTState]):
    """A = L D L' with an approximate-minimum-degree order and diagonal D of either sign.

    For large sparse matrices in double precision on the CPU. Quasidefinite matrices, [[H, B'], [B, -G]] with H and G
    positive definite, have this factorization in every order (Vanderbei 1995), so no pivoting disturbs the sparsity.
    Where a pivot vanishes nevertheless, that item's solutions are NaN and its residual infinite or NaN.
    """

    symmetric = True

    def init(self, operator: LinearOperator) -> SparseLDLTState:
        """Order and factorize each item.

        Raises:
            InvalidArgument: If the operator is not a `SymmetricOperator`.
        """
        self.check(operator)
        operator = require_triangle(operator, "SparseLDLT")
        pattern = operator.pattern
        values = (
            operator.values.detach().cpu().to(torch.float64).reshape(operator.batch_shape.numel(), pattern.nnz).numpy()
        )
        factors = []
        for item in values:
            upper = sp.csc_matrix((item, pattern.indices, pattern.indptr), shape=pattern.shape)
            factors.append(_factor(upper))
        return SparseLDLTState(operator, tuple(factors))

    def solve(self, state: SparseLDLTState, rhs: Tensor) -> tuple[Tensor, LinearInfo]:
        """Solve for right-hand sides of shape (*rhs, *batch, n)."""
        operator = state.operator
        batch = torch.broadcast_shapes(rhs.shape[:-1], operator.batch_shape)
        n = operator.shape[0]
        vectors = rhs.expand(*batch, n).detach().cpu().to(torch.float64).reshape(batch.numel(), n).numpy()
        which = torch.arange(len(state.factors)).reshape(operator.batch_shape).expand(batch).reshape(-1)
        solution = np.full_like(vectors, np.nan)
        for position, item in enumerate(which.tolist()):
            factor = state.factors[item]
            if factor is not None:
                solution[position] = factor.solve(vectors[position])
        x = torch.from_numpy(solution).reshape(*batch, n).to(rhs)
        return x, direct_info(operator, x, rhs)

    def transpose(self, state: SparseLDLTState) -> SparseLDLTState:
        """The matrices are symmetric: the same state."""
        return state


def _factor(upper: sp.csc_matrix) -> qdldl.Solver | None:
    """The factorization, or None where it breaks down."""
    if upper.nnz == 0 or not np.isfinite(upper.data).all():
        return None
    try:
        return qdldl.Solver(upper, upper=True)
    except (RuntimeError, ValueError):
        return None

"""Dense LU with partial pivoting, batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.base import LinearInfo, LinearSolver, direct_info, from_columns, to_columns
from conelayers.linalg.operators import LinearOperator

__all__ = ["DenseLU", "LUState"]


@dataclasses.dataclass(frozen=True, eq=False)
class LUState:
    """Factors of the stored matrices, and whether solves use their transpose."""

    operator: LinearOperator
    factors: Tensor
    pivots: Tensor
    transposed: bool


@dataclasses.dataclass(frozen=True)
class DenseLU(LinearSolver[LUState]):
    """A = P L U on the dense matrices, for small nonsingular systems on any device."""

    def init(self, operator: LinearOperator) -> LUState:
        """Factorize; a singular matrix is not an error here but gives infinite or NaN solutions."""
        self.check(operator)
        factors, pivots, _ = torch.linalg.lu_factor_ex(operator.as_matrix())
        return LUState(operator, factors, pivots, False)

    def solve(self, state: LUState, rhs: Tensor) -> tuple[Tensor, LinearInfo]:
        """Two triangular solves, all right-hand sides of an item at once."""
        columns, extra = to_columns(rhs, len(state.operator.batch_shape))
        # A' = (P L U)': torch's `adjoint` flag uses the same factors.
        solution = torch.linalg.lu_solve(state.factors, state.pivots, columns, adjoint=state.transposed)
        solution = from_columns(solution, extra)
        return solution, direct_info(state.operator, solution, rhs)

    def transpose(self, state: LUState) -> LUState:
        """The same factors, read the other way."""
        return LUState(state.operator.transpose(), state.factors, state.pivots, not state.transposed)

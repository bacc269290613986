"""Dense symmetric indefinite LDL' with Bunch-Kaufman pivoting, batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.base import LinearInfo, LinearSolver, direct_info, from_columns, to_columns
from conelayers.linalg.operators import LinearOperator

__all__ = ["DenseLDL", "LDLState"]


@dataclasses.dataclass(frozen=True, eq=False)
class LDLState:
    """Bunch-Kaufman factors as LAPACK's sytrf packs them."""

    operator: LinearOperator
    factors: Tensor
    pivots: Tensor


@dataclasses.dataclass(frozen=True)
class DenseLDL(LinearSolver[LDLState]):
    """A = L D L' with 1x1 and 2x2 pivots: half the work of LU for symmetric nonsingular systems."""

    symmetric = True

    def init(self, operator: LinearOperator) -> LDLState:
        """Factorize the lower triangles."""
        self.check(operator)
        factors, pivots, _ = torch.linalg.ldl_factor_ex(operator.as_matrix())
        return LDLState(operator, factors, pivots)

    def solve(self, state: LDLState, rhs: Tensor) -> tuple[Tensor, LinearInfo]:
        """Solve all right-hand sides of an item at once."""
        columns, extra = to_columns(rhs, len(state.operator.batch_shape))
        batch = torch.broadcast_shapes(columns.shape[:-2], state.factors.shape[:-2])
        factors = state.factors.expand(*batch, *state.factors.shape[-2:])
        pivots = state.pivots.expand(*batch, state.pivots.shape[-1])
        solution = torch.linalg.ldl_solve(factors, pivots, columns.expand(*batch, *columns.shape[-2:]))
        solution = from_columns(solution, extra)
        return solution, direct_info(state.operator, solution, rhs)

    def transpose(self, state: LDLState) -> LDLState:
        """The matrices are symmetric: the same state."""
        return state

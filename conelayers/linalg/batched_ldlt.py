"""Sparse LDL' of batches of symmetric matrices with one pattern, by the compiled engine."""

from __future__ import annotations

import dataclasses
import threading
import weakref
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.linalg.base import LinearInfo, LinearSolver, direct_info
from conelayers.linalg.operators import LinearOperator
from conelayers.linalg.sparse import SparsePattern, SymmetricOperator, require_triangle

if TYPE_CHECKING:
    from conelayers.native import LDLT, LDLTFactor

__all__ = ["BatchedLDLT", "BatchedLDLTState"]


@dataclasses.dataclass(frozen=True, eq=False)
class BatchedLDLTState:
    """The factors of S A S, one for each item of the operator's batch.

    Attributes:
        operator: The matrices A.
        factor: Compiled factors; None for an empty batch or empty matrices.
        scale: The diagonal of S, float64 on the CPU, shape (*batch, n).
    """

    operator: SymmetricOperator
    factor: LDLTFactor | None
    scale: Tensor


@dataclasses.dataclass(frozen=True)
class BatchedLDLT(LinearSolver[BatchedLDLTState]):
    """A = L D L' with an approximate-minimum-degree order and diagonal D of either sign, many matrices at a time.

    Four or eight matrices share the lanes of a vector register; the order is found once per pattern. Made for
    quasidefinite matrices, [[H, B'], [B, -G]] with H and G positive definite, which have this factorization in every
    order (Vanderbei 1995). Each matrix is first scaled symmetrically to rows of largest entry near one; there a pivot
    below 1e-13 is replaced by 2e-7, and refinement on the matrix itself takes the difference out again where it is not
    singular. The residual tells. Computed in double precision on the CPU, whatever the operator's.

    Attributes:
        refinements: Steps of iterative refinement per solve.
        threads: Threads over packs of matrices; None for `torch.get_num_threads()`.
    """

    symmetric = True

    refinements: int = 2
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.refinements < 0 or (self.threads is not None and self.threads < 1):
            raise InvalidArgument(
                "BatchedLDLT needs refinements >= 0 and threads >= 1 or None; got "
                f"refinements={self.refinements}, threads={self.threads}."
            )

    def init(self, operator: LinearOperator) -> BatchedLDLTState:
        """Factorize all items.

        Raises:
            InvalidArgument: If the operator is not a `SymmetricOperator`.
        """
        self.check(operator)
        operator = require_triangle(operator, "BatchedLDLT")
        pattern = operator.pattern
        values = operator.values.detach().to("cpu", torch.float64)
        rows, columns = torch.as_tensor(pattern.indices), torch.as_tensor(pattern.columns)
        scale = _equilibrium(values, rows, columns, pattern.shape[0])
        scaled = values * scale[..., rows] * scale[..., columns]
        items = operator.batch_shape.numel()
        if items == 0 or pattern.shape[0] == 0:
            return BatchedLDLTState(operator, None, scale)
        factor = _symbolic(pattern).factor(scaled.reshape(items, pattern.nnz).contiguous().numpy(), self._threads())
        return BatchedLDLTState(operator, factor, scale)

    def solve(self, state: BatchedLDLTState, rhs: Tensor) -> tuple[Tensor, LinearInfo]:
        """Solve for right-hand sides of shape (*rhs, *batch, n), of the operator's dtype and device or others."""
        batch = torch.broadcast_shapes(rhs.shape[:-1], state.operator.batch_shape)
        b = rhs.detach().to("cpu", torch.float64).expand(*batch, rhs.shape[-1])
        operator = SymmetricOperator(state.operator.pattern, state.operator.values.detach().to("cpu", torch.float64))
        x = self._sweep(state, b)
        r = b - operator.matvec(x)
        size = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
        for _ in range(self.refinements):
            moved = x + self._sweep(state, r)
            left = b - operator.matvec(moved)
            length = torch.linalg.vector_norm(left, dim=-1, keepdim=True)
            better = length < size
            x, r, size = torch.where(better, moved, x), torch.where(better, left, r), torch.where(better, length, size)
        x = x.to(rhs)
        return x, direct_info(state.operator, x, rhs)

    def transpose(self, state: BatchedLDLTState) -> BatchedLDLTState:
        """The matrices are symmetric: the same state."""
        return state

    def _threads(self) -> int:
        return self.threads or torch.get_num_threads()

    def _sweep(self, state: BatchedLDLTState, b: Tensor) -> Tensor:
        """S (L D L')^-1 S b for b of shape (*rhs, *batch, n), the operator's axes broadcast."""
        if state.factor is None:
            return torch.zeros_like(b)
        own = state.operator.batch_shape
        lead = b.dim() - 1
        # Axes that the factors lack count several right-hand sides: shape (k, items, n), then (items, k, n).
        held = [axis for axis in range(lead) if axis >= lead - len(own) and own[axis - lead] == b.shape[axis]]
        extra = [axis for axis in range(lead) if axis not in held]
        order = [*held, *extra, lead]
        scaled = (b * state.scale).permute(order)
        packed = scaled.reshape(own.numel(), -1, b.shape[-1]).contiguous()
        found = torch.from_numpy(state.factor.solve(packed.numpy(), self._threads())).reshape(scaled.shape)
        inverse = [order.index(axis) for axis in range(lead + 1)]
        return found.permute(inverse) * state.scale


def _equilibrium(values: Tensor, rows: Tensor, columns: Tensor, n: int) -> Tensor:
    """Positive s with the largest entries of the rows of diag(s) A diag(s) near one (Ruiz 2001), shape (*batch, n)."""
    batch = values.shape[:-1]
    size = values.abs()
    scale = torch.ones(*batch, n, dtype=values.dtype)
    for _ in range(4):
        entries = size * scale[..., rows] * scale[..., columns]
        largest = torch.zeros(*batch, n, dtype=values.dtype)
        for index in (rows, columns):
            largest = largest.scatter_reduce(-1, index.expand(*batch, -1), entries, "amax")
        scale = scale / torch.where(largest > 0, largest, 1.0).sqrt()
    return scale


_lock = threading.Lock()
_analysed: weakref.WeakKeyDictionary[SparsePattern, LDLT] = weakref.WeakKeyDictionary()


def _symbolic(pattern: SparsePattern) -> LDLT:
    """Order and symbolic factorization, once per pattern."""
    from conelayers.native import LDLT  # only here: the package imports without a compiled engine

    with _lock:
        if pattern not in _analysed:
            indptr, indices = (np.ascontiguousarray(a, dtype=np.int64) for a in (pattern.indptr, pattern.indices))
            _analysed[pattern] = LDLT(pattern.shape[0], indptr, indices)
        return _analysed[pattern]

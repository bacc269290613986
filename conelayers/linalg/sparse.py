"""Sparse operators: one pattern, batched values."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.linalg.operators import LinearOperator

__all__ = ["SparseOperator", "SparsePattern", "SymmetricOperator", "require_triangle"]


@dataclasses.dataclass(frozen=True, eq=False)
class SparsePattern:
    """Compressed-column positions of the entries of a matrix.

    Attributes:
        shape: (rows, columns).
        indptr: Column pointers, int64, shape (columns + 1,).
        indices: Row of each entry, int64, shape (nnz,).
    """

    shape: tuple[int, int]
    indptr: np.ndarray
    indices: np.ndarray

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.indices)

    @cached_property
    def columns(self) -> np.ndarray:
        """Column of each entry, shape (nnz,)."""
        return np.repeat(np.arange(self.shape[1]), np.diff(self.indptr))


@dataclasses.dataclass(frozen=True, eq=False)
class _PatternOperator(LinearOperator):
    """What operators with stored entries share."""

    pattern: SparsePattern
    values: Tensor

    def __post_init__(self) -> None:
        if self.values.dim() == 0 or self.values.shape[-1] != self.pattern.nnz:
            raise InvalidArgument(
                f"values has shape {tuple(self.values.shape)}; its last axis must have size {self.pattern.nnz}."
            )

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(rows, columns)."""
        return self.pattern.shape

    @property
    def batch_shape(self) -> torch.Size:  # type: ignore[override]
        """Leading axes of `values`."""
        return self.values.shape[:-1]

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Type of `values`."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Device of `values`."""
        return self.values.device

    @property
    def _rows(self) -> Tensor:
        return torch.as_tensor(self.pattern.indices, device=self.values.device)

    @property
    def _columns(self) -> Tensor:
        return torch.as_tensor(self.pattern.columns, device=self.values.device)


@dataclasses.dataclass(frozen=True, eq=False)
class SparseOperator(_PatternOperator):
    """Matrices with one pattern and batched values.

    Attributes:
        pattern: Positions of the entries.
        values: Their values, shape (*batch, nnz).
        transposed: Whether the operator is the transpose of the stored matrix.
    """

    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(rows, columns)."""
        rows, columns = self.pattern.shape
        return (columns, rows) if self.transposed else (rows, columns)

    def matvec(self, x: Tensor) -> Tensor:
        """A x, shape (*rhs, *batch, rows)."""
        return self._product(x, self.transposed)

    def rmatvec(self, y: Tensor) -> Tensor:
        """A'y, shape (*rhs, *batch, columns)."""
        return self._product(y, not self.transposed)

    def transpose(self) -> SparseOperator:
        """A' with the same values."""
        return SparseOperator(self.pattern, self.values, not self.transposed)

    def as_matrix(self) -> Tensor:
        """The dense matrices, shape (*batch, rows, columns)."""
        rows, columns = self.pattern.shape
        dense = self.values.new_zeros(*self.batch_shape, rows * columns)
        dense = dense.index_add(-1, self._rows * columns + self._columns, self.values)
        dense = dense.reshape(*self.batch_shape, rows, columns)
        return dense.mT if self.transposed else dense

    def _product(self, x: Tensor, transposed: bool) -> Tensor:
        source, target = (self._rows, self._columns) if transposed else (self._columns, self._rows)
        terms = self.values * x[..., source]
        out = terms.new_zeros(*terms.shape[:-1], self.pattern.shape[1 if transposed else 0])
        return out.index_add(-1, target, terms)


@dataclasses.dataclass(frozen=True, eq=False)
class SymmetricOperator(_PatternOperator):
    """Symmetric matrices with one pattern, given by the upper triangle with its diagonal.

    Attributes:
        pattern: Positions of the upper triangle, square.
        values: Their values, shape (*batch, nnz).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        rows, columns = self.pattern.shape
        if rows != columns or (self.pattern.indices > self.pattern.columns).any():
            raise InvalidArgument("pattern must hold the upper triangle of a square matrix.")

    def matvec(self, x: Tensor) -> Tensor:
        """A x: the stored triangle and, without the diagonal again, its mirror image."""
        rows, columns = self._rows, self._columns
        above = self.values * x[..., columns]
        out = above.new_zeros(*above.shape[:-1], self.shape[0]).index_add(-1, rows, above)
        below = self.values * (rows != columns).to(x.dtype) * x[..., rows]
        return out.index_add(-1, columns, below)

    def rmatvec(self, y: Tensor) -> Tensor:
        """A'y = A y."""
        return self.matvec(y)

    def transpose(self) -> SymmetricOperator:
        """The operator itself."""
        return self


def require_triangle(operator: LinearOperator, solver: str) -> SymmetricOperator:
    """The operator, which must be given by its upper triangle.

    Raises:
        InvalidArgument: If it is not, naming the solver and one that takes it.
    """
    if not isinstance(operator, SymmetricOperator):
        raise InvalidArgument(
            f"{solver} needs a SymmetricOperator (an upper triangle); got {type(operator).__name__}. "
            "DenseLDL takes other operators."
        )
    return operator

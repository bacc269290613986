"""What all programmes of a family share: shapes, sparsity patterns and the cone."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from conelayers.cones import ProductCone
from conelayers.errors import InvalidArgument

__all__ = ["ConeStructure"]


@dataclasses.dataclass(frozen=True, eq=False)
class ConeStructure:
    """The fixed part of a family of cone programmes.

        minimise    1/2 x'Px + q'x
        subject to  Ax + s = b,  s in K

    Equality is identity: backends and linear solvers keep their symbolic analysis per structure (weakly referenced),
    so one structure should be made once and used for every batch.

    Attributes:
        P_indptr, P_indices: CSC pattern of the upper triangle of P with its diagonal, row indices sorted within a
            column, int64. Empty when the objective is linear.
        A_indptr, A_indices: CSC pattern of A, row indices sorted within a column, int64.
        n: Number of primal variables.
        m: Number of rows, `cone.dim`.
        cone: The product cone K, whose blocks follow the rows of A.
    """

    n: int
    m: int
    P_indptr: np.ndarray
    P_indices: np.ndarray
    A_indptr: np.ndarray
    A_indices: np.ndarray
    cone: ProductCone

    def __post_init__(self) -> None:
        if self.cone.dim != self.m:
            raise InvalidArgument(f"cone has {self.cone.dim} rows but A has {self.m}; they must agree.")
        _check_pattern("P", self.P_indptr, self.P_indices, (self.n, self.n))
        _check_pattern("A", self.A_indptr, self.A_indices, (self.m, self.n))
        if np.any(self.P_indices > self.P_columns):
            raise InvalidArgument("P must be given by its upper triangle: an entry lies below the diagonal.")

    @classmethod
    def from_matrices(
        cls, P: sp.sparray | sp.spmatrix | None, A: sp.sparray | sp.spmatrix, cone: ProductCone
    ) -> ConeStructure:
        """The structure of given scipy matrices (any format; P symmetric, or its upper triangle, or None)."""
        A_csc = sp.csc_array(A)
        A_csc.sort_indices()
        m, n = (int(size) for size in A_csc.shape or ())
        P_csc = sp.csc_array((n, n)) if P is None else sp.csc_array(sp.triu(P, format="csc"))
        P_csc.sort_indices()
        return cls(n, m, _int64(P_csc.indptr), _int64(P_csc.indices), _int64(A_csc.indptr), _int64(A_csc.indices), cone)

    @property
    def P_nnz(self) -> int:
        """Number of stored entries of P's upper triangle."""
        return len(self.P_indices)

    @property
    def A_nnz(self) -> int:
        """Number of stored entries of A."""
        return len(self.A_indices)

    @cached_property
    def P_columns(self) -> np.ndarray:
        """Column of each stored entry of P, shape (P_nnz,)."""
        return _columns(self.P_indptr)

    @cached_property
    def A_columns(self) -> np.ndarray:
        """Column of each stored entry of A, shape (A_nnz,)."""
        return _columns(self.A_indptr)

    def P_matrix(self, values: np.ndarray) -> sp.csc_array:
        """Upper triangle of P as a scipy matrix; `values` has shape (P_nnz,)."""
        return sp.csc_array((values, self.P_indices, self.P_indptr), shape=(self.n, self.n))

    def A_matrix(self, values: np.ndarray) -> sp.csc_array:
        """A as a scipy matrix; `values` has shape (A_nnz,)."""
        return sp.csc_array((values, self.A_indices, self.A_indptr), shape=(self.m, self.n))

    def __repr__(self) -> str:
        return (
            f"ConeStructure(n={self.n}, m={self.m}, P_nnz={self.P_nnz}, A_nnz={self.A_nnz}, "
            f"cones={len(self.cone.cones)})"
        )


def _int64(indices: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(indices, dtype=np.int64)


def _columns(indptr: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def _check_pattern(name: str, indptr: np.ndarray, indices: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuse a pattern that is not a sorted CSC pattern without duplicates."""
    rows, columns = shape
    if indptr.shape != (columns + 1,) or indptr[0] != 0 or indptr[-1] != len(indices):
        raise InvalidArgument(f"{name}_indptr is not a CSC column pointer for {columns} columns.")
    if len(indices) and (indices.min() < 0 or indices.max() >= rows):
        raise InvalidArgument(f"{name}_indices holds a row outside 0..{rows - 1}.")
    within_column = np.ones(max(len(indices) - 1, 0), dtype=bool)
    starts = indptr[1:-1]
    within_column[starts[(starts > 0) & (starts < len(indices))] - 1] = False
    if np.any(np.diff(indices)[within_column] <= 0):
        raise InvalidArgument(f"{name}_indices must increase within each column; sort the matrix's indices first.")

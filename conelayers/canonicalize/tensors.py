"""Matrices whose entries are affine in the parameters, on their union sparsity pattern."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp

__all__ = ["AffineMatrix", "compress"]


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMatrix:
    """A sparse matrix whose stored entries are affine functions of a parameter vector u.

    Entry e sits at (rows[e], columns[e]) and has the value coefficients[e, :-1] @ u + coefficients[e, -1]. Entries are
    unique and sorted by column, then row (the order of CSC), and none is identically zero.

    Attributes:
        shape: (rows, columns) of the matrix.
        rows, columns: Position of each entry, int64, shape (entries,).
        coefficients: CSR, shape (entries, parameters + 1).
    """

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    coefficients: sp.csr_array

    @classmethod
    def from_entries(
        cls, shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray, coefficients: sp.sparray
    ) -> AffineMatrix:
        """Sum entries at equal positions, drop those that vanish for every u, and sort."""
        flat = columns.astype(np.int64) * shape[0] + rows
        kept, coefficients = compress(flat, coefficients)
        height = max(shape[0], 1)
        return cls(shape, kept % height, kept // height, coefficients)

    @classmethod
    def zero(cls, shape: tuple[int, int], width: int) -> AffineMatrix:
        """No entries; `width` is the number of parameters plus one."""
        nowhere = np.zeros(0, dtype=np.int64)
        return cls(shape, nowhere, nowhere, sp.csr_array((0, width)))

    @property
    def indptr(self) -> np.ndarray:
        """CSC column pointer of the pattern, int64, shape (columns + 1,)."""
        counts = np.bincount(self.columns, minlength=self.shape[1])
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @property
    def constant(self) -> np.ndarray:
        """Which entries no parameter enters, bool, shape (entries,)."""
        return np.diff(sp.csr_array(self.coefficients[:, :-1]).indptr) == 0

    @property
    def constant_values(self) -> np.ndarray:
        """The constant part of each entry, shape (entries,)."""
        return self.coefficients[:, [-1]].toarray()[:, 0]

    def left_multiply(self, matrix: Any) -> AffineMatrix:
        """The product matrix @ self for a constant sparse matrix."""
        # Entry e of column j spreads over the rows i with matrix[i, rows[e]] != 0.
        spread = sp.coo_array(sp.csc_array(matrix)[:, self.rows])
        coefficients = sp.csr_array(self.coefficients)[spread.col] * spread.data[:, None]
        return AffineMatrix.from_entries(
            (matrix.shape[0], self.shape[1]), spread.row.astype(np.int64), self.columns[spread.col], coefficients
        )

    def keep_columns(self, kept: np.ndarray) -> AffineMatrix:
        """The columns where `kept`, bool of shape (columns,), is True; renumbered."""
        stays = np.flatnonzero(kept[self.columns])
        columns = (np.cumsum(kept) - 1)[self.columns[stays]]
        return AffineMatrix((self.shape[0], int(kept.sum())), self.rows[stays], columns, self.coefficients[stays])

    def keep_rows(self, kept: np.ndarray) -> AffineMatrix:
        """The rows where `kept`, bool of shape (rows,), is True; renumbered."""
        stays = np.flatnonzero(kept[self.rows])
        rows = (np.cumsum(kept) - 1)[self.rows[stays]]
        return AffineMatrix((int(kept.sum()), self.shape[1]), rows, self.columns[stays], self.coefficients[stays])

    def upper_triangle(self) -> AffineMatrix:
        """The upper triangle, with its diagonal, of the symmetric part of a square matrix."""
        lower, upper = np.minimum(self.rows, self.columns), np.maximum(self.rows, self.columns)
        factor = np.where(self.rows == self.columns, 1.0, 0.5)
        return AffineMatrix.from_entries(self.shape, lower, upper, sp.csr_array(self.coefficients * factor[:, None]))


def compress(positions: np.ndarray, coefficients: sp.sparray) -> tuple[np.ndarray, sp.csr_array]:
    """Sum rows of `coefficients` with equal positions, drop zero rows; returns sorted positions and their rows."""
    unique, inverse = np.unique(positions, return_inverse=True)
    gather = sp.csr_array(
        (np.ones(len(positions)), (inverse.ravel(), np.arange(len(positions)))), shape=(len(unique), len(positions))
    )
    summed = sp.csr_array(gather @ sp.csr_array(coefficients))
    summed.sum_duplicates()
    summed.eliminate_zeros()
    nonzero = np.flatnonzero(np.diff(summed.indptr))
    return unique[nonzero], sp.csr_array(summed[nonzero])

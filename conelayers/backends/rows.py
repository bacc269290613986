"""From this package's row order to a solver's and back.

A solver sees the rows T (A x + s - b) = 0 with s' = T s in its own cone, where T is block diagonal up to a permutation:
it reorders cones and triangles, and maps a dual cone that the solver lacks to a cone that it has.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from conelayers.cones import (
    Cone,
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    SecondOrder,
    Zero,
)
from conelayers.cones.svec import svec_size, upper_order
from conelayers.program import ConeStructure

__all__ = [
    "SOLVER_CONES",
    "Block",
    "RowMap",
    "dual_exponential_block",
    "dual_power_block",
    "per_structure",
    "upper_triangle_block",
]


SOLVER_CONES: frozenset[type[Cone]] = frozenset(
    {Zero, Nonnegative, SecondOrder, PositiveSemidefinite, Exponential, DualExponential, Power, DualPower}
)
"""What Clarabel and SCS take, directly or through a change of rows."""

Block = tuple[Any, Any]
"""A diagonal block of T and its inverse, sparse (scipy's CSR)."""


class RowMap:
    """The rows T A, T b of a solver, and its points (s', y') taken back: s = T^-1 s', y = T'y'.

    Keeps patterns and index maps only, so it may outlive the structure it was made from.

    Args:
        structure: The programme's structure.
        order: Positions of the cones in the order in which the solver wants them.
        blocks: For each cone, in the programme's order, its diagonal block of T and its inverse; None for the identity.
    """

    def __init__(self, structure: ConeStructure, order: Sequence[int], blocks: Sequence[Block | None]) -> None:
        offsets = structure.cone.offsets
        # The cones in the solver's order, then each cone's block.
        into_order = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in order] or [np.zeros(0, int)])
        pairs = [blocks[k] or _identity(offsets[k + 1] - offsets[k]) for k in order]
        empty: Any = sp.csr_array((structure.m, structure.m))
        self.T: Any = sp.csr_array(sp.block_diag([pair[0] for pair in pairs], "csr")) if pairs else empty
        self.T_inverse: Any = sp.csr_array(sp.block_diag([pair[1] for pair in pairs], "csr")) if pairs else empty
        ones = np.ones(structure.m)
        permutation: Any = sp.csr_array((ones, (np.arange(structure.m), into_order)), shape=self.T.shape)
        self.T, self.T_inverse = sp.csr_array(self.T @ permutation), sp.csr_array(permutation.T @ self.T_inverse)
        self.is_identity = structure.m == 0 or (self.T - sp.eye_array(structure.m)).nnz == 0
        self._map_pattern(structure)

    def A(self, values: np.ndarray) -> np.ndarray:
        """Values of T A on its pattern, for values of A of shape (B, A_nnz); shape (B, nnz')."""
        return values if self.is_identity else np.ascontiguousarray((self._entries @ values.T).T)

    def b(self, b: np.ndarray) -> np.ndarray:
        """T b for b of shape (B, m)."""
        return b if self.is_identity else np.ascontiguousarray((self.T @ b.T).T)

    def to_solver(self, y: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(y', s') = (T^-' y, T s) of one item."""
        return (y, s) if self.is_identity else (self.T_inverse.T @ y, self.T @ s)

    def from_solver(self, y: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(y, s) = (T'y', T^-1 s') of one item."""
        return (y, s) if self.is_identity else (self.T.T @ y, self.T_inverse @ s)

    def _map_pattern(self, structure: ConeStructure) -> None:
        """Pattern of T A and the sparse matrix that takes values of A to values of T A."""
        self.shape = (structure.m, structure.n)
        if self.is_identity:
            self.indptr, self.indices = structure.A_indptr, structure.A_indices
            return
        T: Any = sp.csc_array(self.T)
        counts = np.diff(T.indptr)[structure.A_indices]
        old = np.repeat(np.arange(structure.A_nnz), counts)
        # Entries of column `row` of T, for the row of each entry of A.
        starts = np.repeat(T.indptr[structure.A_indices] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
        taken = starts + np.arange(len(old))
        key = structure.A_columns[old] * structure.m + T.indices[taken]
        unique, new = np.unique(key, return_inverse=True)
        self.indices = unique % structure.m
        self.indptr = np.searchsorted(unique, np.arange(structure.n + 1) * structure.m).astype(np.int64)
        self._entries: Any = sp.csr_array((T.data[taken], (new, old)), shape=(len(unique), structure.A_nnz))


def per_structure(make: Callable[[ConeStructure], RowMap]) -> Callable[[ConeStructure], RowMap]:
    """Keep the row map of each structure for as long as the structure lives."""
    kept: weakref.WeakKeyDictionary[ConeStructure, RowMap] = weakref.WeakKeyDictionary()

    @functools.wraps(make)
    def row_map(structure: ConeStructure) -> RowMap:
        rows = kept.get(structure)
        if rows is None:
            rows = kept[structure] = make(structure)
        return rows

    return row_map


def upper_triangle_block(order: int) -> Block:
    """From the lower triangle by columns (this package, SCS) to the upper triangle by columns (Clarabel)."""
    size = svec_size(order)
    block: Any = sp.csr_array((np.ones(size), (np.arange(size), upper_order(order).numpy())), shape=(size, size))
    return block, block.T.tocsr()


def dual_exponential_block() -> Block:
    """(u, v, w) is in the dual exponential cone iff (u - v, -u, w) is in the exponential cone.

    From -u exp(v/u) <= e w, u < 0: with y' = -u this is y' exp((-v - y')/y') <= w.
    """
    return _small_block(np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


def dual_power_block(alpha: float) -> Block:
    """(u, v, w) is in the dual power cone iff (u/a, v/(1 - a), w) is in the power cone."""
    return _small_block(np.diag([1 / alpha, 1 / (1 - alpha), 1.0]))


def _small_block(block: np.ndarray) -> Block:
    return sp.csr_array(block), sp.csr_array(np.linalg.inv(block))


def _identity(size: int) -> Block:
    identity: Any = sp.eye_array(size, format="csr")
    return identity, identity

"""Affine maps between several vectors at once: from the parameters to all of a programme's data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from conelayers.canonicalize.affine_map import AffineMap
from conelayers.canonicalize.sparse_product import SparseProduct

__all__ = ["BlockMap"]


class BlockMap:
    """(theta_1, theta_2, ...) -> (z_1, z_2, ...) with z_k = sum over b of M_kb theta_b, plus c_k; without autograd.

    Args:
        matrix: The blocks M_kb, CSR, shape (sum of rows, sum of columns).
        rows: Entries of each z_k.
        columns: Entries of each theta_b; each enters some z_k.
        offset: All c_k, one after another; None for zeros.
    """

    def __init__(
        self, matrix: sp.csr_array, rows: Sequence[int], columns: Sequence[int], offset: np.ndarray | None = None
    ) -> None:
        self.matrix, self.rows, self.columns, self.offset = matrix, tuple(rows), tuple(columns), offset
        self._selected: dict[tuple[tuple[bool, ...], tuple[bool, ...]], BlockMap] = {}

    @classmethod
    def join(cls, maps: Sequence[AffineMap], takes: Sequence[Sequence[int]], columns: Sequence[int]) -> BlockMap:
        """Maps side by side; the k-th one acts on the vectors numbered takes[k], whose sizes are among `columns`."""
        ends = np.cumsum(columns, dtype=np.int64)
        rows = []
        for affine, blocks in zip(maps, takes, strict=True):
            places = np.concatenate([np.arange(ends[b] - columns[b], ends[b]) for b in blocks])
            part: Any = sp.coo_array(affine.matrix[:, :-1])
            rows.append(sp.coo_array((part.data, (part.row, places[part.col])), shape=(affine.size, int(ends[-1]))))
        offset = np.concatenate([affine.offset for affine in maps])
        return cls(sp.csr_array(sp.vstack(rows)), [affine.size for affine in maps], columns, offset)

    def apply(self, *thetas: Tensor) -> tuple[Tensor, ...]:
        """The vectors z_k, shape (*batch, rows[k]), float64.

        Args:
            *thetas: Shape (*batch, columns[b]), float64; z_k has the broadcast batch axes of those that enter it.
        """
        return self._product(*thetas)

    def multiply(self, thetas: Sequence[np.ndarray], items: Sequence[int]) -> list[np.ndarray]:
        """`apply` for arrays where the engine is compiled, see `SparseProduct.multiply`."""
        return self._product.multiply(thetas, items)

    @property
    def entering(self) -> tuple[tuple[int, ...], ...]:
        """For each z_k the numbers of the vectors that enter it."""
        return self._product.entering

    @property
    def linear(self) -> BlockMap:
        """The map without its constants."""
        return self._linear

    @property
    def transpose(self) -> BlockMap:
        """(z_1, z_2, ...) -> (theta_1, theta_2, ...) by the blocks M_kb'."""
        return self._transpose

    def select(self, rows: tuple[bool, ...], columns: tuple[bool, ...]) -> BlockMap:
        """The map to some of the z_k from some of the vectors, the others being zero."""
        if all(rows) and all(columns):
            return self
        if (rows, columns) not in self._selected:
            chosen, entries = np.repeat(rows, self.rows), np.repeat(columns, self.columns)
            self._selected[rows, columns] = BlockMap(
                sp.csr_array(self.matrix[np.flatnonzero(chosen)][:, np.flatnonzero(entries)]),
                [size for size, use in zip(self.rows, rows, strict=True) if use],
                [size for size, use in zip(self.columns, columns, strict=True) if use],
                None if self.offset is None else self.offset[chosen],
            )
        return self._selected[rows, columns]

    @cached_property
    def _linear(self) -> BlockMap:
        return BlockMap(self.matrix, self.rows, self.columns)

    @cached_property
    def _transpose(self) -> BlockMap:
        return BlockMap(sp.csr_array(self.matrix.T), self.columns, self.rows)

    @cached_property
    def _product(self) -> SparseProduct:
        return SparseProduct(self.matrix, self.rows, self.columns, self.offset)

    def __getstate__(self) -> dict[str, Any]:
        # Derived maps, arrays and device copies are made again on demand.
        names = ("matrix", "rows", "columns", "offset")
        return {**{name: self.__dict__[name] for name in names}, "_selected": {}}

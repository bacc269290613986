"""The derivative D of the projections onto the other cones, in its eigenvectors of nonzero eigenvalue."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from conelayers.cones import ConeDerivative

__all__ = ["SmallBlocks"]


class SmallBlocks:
    """D = U diag(values) U' on the rows of a product of small cones, restricted to the hard rows.

    Args:
        vectors: U, orthonormal columns, sparse, (m_o, count).
        values: Eigenvalues in [0, 1], (count,).
        hard: The rows that stay, as positions among them; the others belong to equalities.
    """

    def __init__(self, vectors: Any, values: np.ndarray, hard: np.ndarray) -> None:
        kept = np.flatnonzero(values > 0)
        U = sp.csr_array(vectors)[hard][:, kept]
        alive = np.flatnonzero(np.diff(sp.csc_array(U).indptr) > 0)  # soft rows are gone
        self._U = sp.csr_array(U[:, alive])
        self._values = values[kept][alive]
        self.size = len(alive)
        self.slack = (1 - self._values) / self._values

    @classmethod
    def of(cls, derivative: ConeDerivative, rows: int, hard: np.ndarray) -> SmallBlocks:
        """The blocks of the derivative of a projection on so many rows."""
        columns, places, entries, values, count = [], [], [], [np.zeros(0)], 0
        for group in derivative.spectrum():
            size = group.values.shape[-1]
            places.append(group.rows[..., :, None].expand(-1, -1, size).reshape(-1).numpy())
            numbers = count + np.arange(group.values.numel()).reshape(-1, 1, size)
            columns.append(np.broadcast_to(numbers, group.vectors.shape).reshape(-1))
            entries.append(group.vectors.reshape(-1).numpy())
            values.append(group.values.reshape(-1).numpy())
            count += group.values.numel()
        U = sp.coo_array((np.concatenate([[], *entries]), (_join(places), _join(columns))), shape=(rows, count))
        return cls(U, np.concatenate(values), hard)

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """D applied to the last axis, (..., rows)."""
        return self.push(self.pull(rows) * self._values)

    def pull(self, rows: np.ndarray) -> np.ndarray:
        """U' applied to the last axis, (..., rows) to (..., size)."""
        return rows @ self._U

    def push(self, multipliers: np.ndarray) -> np.ndarray:
        """U applied to the last axis."""
        return multipliers @ self._U.T

    def unfold(self, multipliers: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Return dv of the hard rows, where (D - I) dv = r2 - A dx.

        Args:
            multipliers: U'D dv, (k, size).
            missing: r2 - A dx, (k, rows).
        """
        return self.push(multipliers / self._values) - (missing - self.push(self.pull(missing)))


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

"""Symmetric matrices in the eigenbasis of a block, where the derivative of the projection is entrywise."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import scipy.sparse as sp

from conelayers.cones.svec import triangle

__all__ = ["MatrixStack", "SpectralBlock", "smat", "svec"]


# Eigenvalues below this part of the largest one are rounding.
_LOST = 8e-16
# From this part of nonzero entries on, dense products are faster than sparse ones.
_DENSE = 0.2


@functools.lru_cache(maxsize=64)
def _indices(order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of each entry of svec, the scale of each, and the entry at each place of the matrix."""
    rows, columns = (index.numpy() for index in triangle(order))
    places = np.zeros((order, order), dtype=np.int64)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return rows, columns, np.where(rows == columns, 1.0, np.sqrt(2.0)), places


def smat(vectors: np.ndarray, order: int) -> np.ndarray:
    """Symmetric matrices (..., order, order) of vectors (..., d)."""
    _, _, scales, places = _indices(order)
    return (vectors / scales)[..., places]


def svec(matrices: np.ndarray) -> np.ndarray:
    """Vectors (..., d) of symmetric matrices (..., order, order)."""
    rows, columns, scales, _ = _indices(matrices.shape[-1])
    return matrices[..., rows, columns] * scales


class MatrixStack:
    """The rows of a sparse matrix (k, d) as symmetric matrices (k, order, order).

    Args:
        rows: Vectors of symmetric matrices, sparse, (k, d).
        order: Their order.
    """

    def __init__(self, rows: Any, order: int) -> None:
        self.count, self.order = rows.shape[0], order
        coo = rows.tocoo()
        i, j, scales, _ = _indices(order)
        values = coo.data / scales[coo.col]
        first, second = i[coo.col], j[coo.col]
        off = first != second
        at = np.concatenate([coo.row * order + first, coo.row[off] * order + second[off]])
        columns = np.concatenate([second, first[off]])
        self._flat: Any = sp.csr_array(
            (np.concatenate([values, values[off]]), (at, columns)), shape=(self.count * order, order)
        )
        filled = self._flat.nnz > _DENSE * self.count * order**2
        self._product: Any = self._flat.toarray() if filled else self._flat
        # Rows of the matrices that are not zero: E = U V' with U columns of the identity.
        self._rows = np.flatnonzero(np.diff(self._flat.indptr))

    @property
    def is_thin(self) -> bool:
        """Whether the matrices have few nonzero rows in all, so that `gram` is cheap."""
        return len(self._rows) <= max(2 * self.count, 4 * self.order)

    def rotate(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return left' E right for every E, (k, a, b), with left (order, a) and right (order, b)."""
        product = (self._product @ right).reshape(self.count, self.order, right.shape[1])
        return left.T @ product

    def gram(self, G: np.ndarray) -> np.ndarray:
        """<E_i, G E_j G> for all pairs, (k, k); cheap where the matrices have few nonzero rows."""
        V = self._flat[self._rows]  # sparse, (thickness, order)
        crossed = (V @ G)[:, self._rows % self.order]
        owners = self._rows // self.order
        sums: Any = sp.csr_array((np.ones(len(owners)), (owners, np.arange(len(owners)))), (self.count, len(owners)))
        return sums @ (sums @ (crossed * crossed.T)).T


@dataclasses.dataclass(frozen=True, eq=False)
class SpectralBlock:
    """The projection onto semidefinite matrices and its derivative at one point: D[X] = Q (B o (Q'XQ)) Q'.

    Attributes:
        basis: Q, orthogonal, (order, order).
        weights: B, entries in [0, 1], symmetric, (order, order).
        projection: The projection, (d,); empty for scalings.
        scaling: G and its inverse, if 1/B - 1 = g g' for the eigenvalues g of G, as in an interior-point method.
    """

    basis: np.ndarray
    weights: np.ndarray
    projection: np.ndarray
    scaling: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def at(cls, v: np.ndarray, order: int, mu: float | None = None) -> SpectralBlock:
        """The smallest element of the Clarke Jacobian at v (d,), or projection and derivative smoothed by mu.

        See `conelayers.cones.semidefinite`.
        """
        values, basis = np.linalg.eigh(smat(v, order))
        if mu:
            roots = np.sqrt(values**2 + 4 * mu)
            up = (values + roots) / 2
            weights = (up[:, None] + up) / (roots[:, None] + roots)
        else:
            up, down = np.maximum(values, 0), np.maximum(-values, 0)
            above = up > _LOST * np.abs(values).max(initial=0.0)  # what rounding leaves of a zero is no active face
            mixed = np.divide(up[:, None], up[:, None] + down, out=np.zeros((order, order)), where=above[:, None])
            weights = np.where(above[:, None], mixed, mixed.T) * (above[:, None] | above)
        return cls(basis, weights, svec((basis * up) @ basis.T))

    def rotate(self, matrices: np.ndarray) -> np.ndarray:
        """Q'XQ for matrices (..., order, order)."""
        return self.basis.T @ matrices @ self.basis

    def restore(self, matrices: np.ndarray) -> np.ndarray:
        """QXQ' as vectors (..., d)."""
        return svec(self.basis @ matrices @ self.basis.T)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """D u for vectors (..., d)."""
        return self.restore(self.weights * self.rotate(smat(vectors, len(self.basis))))

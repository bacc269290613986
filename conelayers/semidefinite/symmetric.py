"""Dense symmetric systems that may be singular and are consistent then."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import lapack as _lapack

__all__ = ["SymmetricFactor"]

lapack: Any = _lapack  # its functions come without type information

# Relative residual up to which the triangular factor's solution is taken, and eigenvalues that count as zero.
_ACCEPTED, _ZERO = 1e-10, 1e-12


class SymmetricFactor:
    """Bunch and Kaufman's factorization after scaling rows and columns; eigenvectors where that does not do.

    Args:
        matrix: Symmetric, (size, size).
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = matrix
        self.size = len(matrix)
        scale = np.ones(self.size)
        for _ in range(3):
            largest = np.abs(matrix * scale[:, None] * scale).max(1, initial=0.0)
            scale /= np.sqrt(np.where(largest > 0, largest, 1.0))
        self._scale = scale
        self._scaled = matrix * scale[:, None] * scale
        self._eigen: tuple[np.ndarray, np.ndarray] | None = None
        if self.size:
            work = int(lapack.dsytrf_lwork(self.size, lower=1)[0])
            self._ldu, self._pivots, self._info = lapack.dsytrf(self._scaled, lower=1, lwork=work)

    def solve(self, right: np.ndarray) -> np.ndarray:
        """The solution, (k, size), for right-hand sides of this shape; of least norm if the matrix is singular."""
        if not self.size:
            return right
        scaled = (right * self._scale).T
        found = self._refined(self._by_factor, scaled) if self._info == 0 else np.full_like(scaled, np.nan)
        grown = np.abs(found).max(initial=0.0) > np.abs(scaled).max(initial=0.0) / _ZERO
        if grown or not self._residual(found, scaled) <= _ACCEPTED:
            found = self._refined(self._by_eigenvectors, scaled)
        return found.T * self._scale

    def _refined(self, solve, right: np.ndarray) -> np.ndarray:
        found = solve(right)
        for _ in range(2):
            found = found + solve(right - self._scaled @ found)
        return found

    def _residual(self, found: np.ndarray, right: np.ndarray) -> float:
        size = np.abs(right).max(initial=0.0) + np.abs(found).max(initial=0.0)
        error = np.abs(self._scaled @ found - right).max(initial=0.0)
        return float(error / size) if size > 0 else float(error)

    def _by_factor(self, right: np.ndarray) -> np.ndarray:
        return lapack.dsytrs(self._ldu, self._pivots, right, lower=1)[0]

    def _by_eigenvectors(self, right: np.ndarray) -> np.ndarray:
        if self._eigen is None:
            self._eigen = np.linalg.eigh(self._scaled)
        values, vectors = self._eigen
        keep = np.abs(values) > _ZERO * np.abs(values).max()
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=keep)
        return vectors @ (inverse[:, None] * (vectors.T @ right))

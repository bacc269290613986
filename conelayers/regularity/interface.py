"""What of a programme belongs to its user, and what its parameters move."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

from conelayers.program import ConeStructure

__all__ = ["Interface"]

# Relative size of what counts as zero, for vectors known to the accuracy of a solution.
_ZERO = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Interface:
    """A user's variables, multipliers and parameters, as they appear in a cone programme.

    Attributes:
        structure: The programme's patterns.
        variables: Columns of the user's own variables, bool, (n,).
        duals: The multipliers of the user's constraints as images of y, CSR, (any number, m); None if all of y is
            the user's.
        P, q, A, b: How the stored entries depend on the parameters: coefficients, CSR, (entries, parameters).
        hermitian: Semidefinite blocks that are lifted Hermitian matrices, bool, (number of cones,); None for none.
    """

    structure: ConeStructure
    variables: np.ndarray
    duals: sp.csr_array | None
    P: sp.csr_array
    q: sp.csr_array
    A: sp.csr_array
    b: sp.csr_array
    hermitian: np.ndarray | None = None

    @classmethod
    def everything(cls, structure: ConeStructure) -> Interface:
        """All variables and multipliers are the user's: no null direction is an artefact."""
        sizes = (structure.P_nnz, structure.n, structure.A_nnz, structure.m)
        P, q, A, b = (sp.csr_array((size, 0)) for size in sizes)
        return cls(structure, np.ones(structure.n, dtype=bool), None, P, q, A, b)

    def reads(self, u: np.ndarray) -> bool:
        """Whether a multiplier of the user changes along the columns of u, (m, k)."""
        if self.duals is None:
            return bool(u.any())
        return _nonzero(np.abs(self.duals @ u), _largest(self.duals) * np.abs(u).max(initial=0.0))

    def moved_costs(self, directions: np.ndarray) -> np.ndarray:
        """Parameters on which q'n depends, for a column n of `directions`, (n, k): their positions."""
        moves = np.abs(self.q.T @ directions)
        return (
            np.flatnonzero((moves > _ZERO * _largest(self.q)).any(axis=1)) if directions.shape[1] else np.zeros(0, int)
        )

    def moves_curvature(self, directions: np.ndarray) -> bool:
        """Whether Pn depends on the parameters, for a column n of `directions`, (n, k)."""
        s = self.structure
        touched = np.abs(directions).max(axis=1, initial=0.0) > _ZERO
        if not touched[self._columns_with_parameters_in_P].any():
            return False
        pairs = [(s.P_indices, s.P_columns), (s.P_columns[off := s.P_indices != s.P_columns], s.P_indices[off])]
        values = [self.P, self.P[np.flatnonzero(off)]]
        for n in directions.T:
            product = sum(_scattered(i, n[j], C, s.n) for (i, j), C in zip(pairs, values, strict=True))
            if _nonzero(np.abs(sp.csr_array(product).data), _largest(self.P)):
                return True
        return False

    def moved_coefficients(self, directions: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, bool]:
        """Rows whose entry of An depends on the parameters, bool, (m,); whether y'An does, for a column n."""
        s = self.structure
        rows, pushed = np.zeros(s.m, dtype=bool), False
        entries = np.unique(self.A.nonzero()[0])
        touched = np.abs(directions).max(axis=1, initial=0.0) > _ZERO
        if not touched[s.A_columns[entries]].any():
            return rows, False
        limit = _ZERO * _largest(self.A)
        for n in directions.T:
            product = _scattered(s.A_indices, n[s.A_columns], self.A, s.m)
            rows |= abs(product).max(axis=1).toarray().reshape(-1) > limit
            pushed = pushed or bool(np.any(np.abs(product.T @ y) > limit * np.abs(y).max(initial=0.0)))
        return rows, pushed

    def moves_constraints(self, u: np.ndarray) -> bool:
        """Whether u'b or A'u depends on the parameters, for a column of u, (m, k)."""
        s = self.structure
        size = np.abs(u).max(initial=0.0)
        if _nonzero(np.abs(self.b.T @ u), _largest(self.b) * size):
            return True
        products = (_scattered(s.A_columns, column[s.A_indices], self.A, s.n) for column in u.T)
        return any(_nonzero(np.abs(product.data), _largest(self.A) * size) for product in products)

    @property
    def _columns_with_parameters_in_P(self) -> np.ndarray:
        entries = np.unique(self.P.nonzero()[0])
        return np.unique(np.concatenate([self.structure.P_indices[entries], self.structure.P_columns[entries]]))


def _scattered(target: np.ndarray, factors: np.ndarray, coefficients: sp.csr_array, size: int) -> sp.csr_array:
    """Sum of the coefficient rows times factors over entries with the same target, (size, parameters)."""
    scatter = sp.csr_array((factors, (target, np.arange(len(target)))), shape=(size, len(target)))
    return sp.csr_array(scatter @ coefficients)


def _largest(matrix: sp.csr_array) -> float:
    return float(np.abs(matrix.data).max(initial=0.0))


def _nonzero(values: np.ndarray, scale: float) -> bool:
    return bool(np.any(values > _ZERO * scale))

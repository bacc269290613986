"""Random cone programmes with known solutions, and dense reference formulas, for the tests of the compiled engine."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp

from conelayers.native import Differentiator

ZERO, NONNEGATIVE, SECOND_ORDER, SEMIDEFINITE, EXPONENTIAL, DUAL_EXPONENTIAL, POWER, DUAL_POWER, FREE = range(9)

#: One of each, with two sizes of the symmetric ones. Entries: kind, dimension (order for semidefinite), exponent.
EVERY_CONE = (
    (ZERO, 2, 0.0),
    (NONNEGATIVE, 5, 0.0),
    (SECOND_ORDER, 4, 0.0),
    (SEMIDEFINITE, 3, 0.0),
    (EXPONENTIAL, 3, 0.0),
    (DUAL_EXPONENTIAL, 3, 0.0),
    (POWER, 3, 0.3),
    (DUAL_POWER, 3, 0.65),
    (SECOND_ORDER, 2, 0.0),
    (SEMIDEFINITE, 2, 0.0),
    (SECOND_ORDER, 1, 0.0),
    (FREE, 2, 0.0),
)


def rows_of(cones: tuple[tuple[int, int, float], ...]) -> int:
    """Rows m of a product of cones."""
    return sum(size * (size + 1) // 2 if kind == SEMIDEFINITE else size for kind, size, _ in cones)


@dataclasses.dataclass
class Family:
    """Programmes of one pattern: values of P (upper triangle, columns) and A (columns), a row per item."""

    n: int
    cones: tuple[tuple[int, int, float], ...]
    P_pattern: sp.csc_matrix
    A_pattern: sp.csc_matrix
    P: np.ndarray
    A: np.ndarray

    def __post_init__(self) -> None:
        self.m = rows_of(self.cones)
        kinds, sizes, exponents = zip(*self.cones, strict=True) if self.cones else ((), (), ())
        self.engine = Differentiator(
            self.n,
            self.m,
            *(np.asarray(a, dtype=np.int64) for a in (self.P_pattern.indptr, self.P_pattern.indices)),
            *(np.asarray(a, dtype=np.int64) for a in (self.A_pattern.indptr, self.A_pattern.indices)),
            np.array(kinds, dtype=np.int64),
            np.array(sizes, dtype=np.int64),
            np.array(exponents, dtype=np.float64),
        )

    def dense_P(self, item: int) -> np.ndarray:
        """Symmetric P of one item."""
        pattern = self.P_pattern
        upper = sp.csc_matrix((self.P[item], pattern.indices, pattern.indptr), shape=(self.n, self.n)).toarray()
        return upper + np.triu(upper, 1).T

    def dense_A(self, item: int) -> np.ndarray:
        """A of one item."""
        pattern = self.A_pattern
        return sp.csc_matrix((self.A[item], pattern.indices, pattern.indptr), shape=(self.m, self.n)).toarray()

    def dense_D(self, v: np.ndarray, mu: float = 0.0) -> np.ndarray:
        """D of every item, (batch, m, m)."""
        basis = np.tile(np.eye(self.m), (len(v), 1, 1))
        return np.ascontiguousarray(self.engine.apply_D(v, basis, mu).transpose(0, 2, 1))

    def jacobian(self, item: int, D: np.ndarray) -> np.ndarray:
        """J(D) of one item."""
        A = self.dense_A(item)
        return np.block([[self.dense_P(item), A.T @ D], [A, D - np.eye(self.m)]])


def random_family(
    cones: tuple[tuple[int, int, float], ...], n: int, batch: int, rng: np.random.Generator, density: float = 0.5
) -> Family:
    """Strongly convex programmes with a random sparse A."""
    m = rows_of(cones)
    A_pattern = sp.csc_matrix(rng.random((m, n)) < density).astype(float)
    A_pattern.sort_indices()
    P_pattern = sp.csc_matrix(np.triu(np.ones((n, n))))
    P = np.empty((batch, P_pattern.nnz))
    for item in range(batch):
        root = rng.standard_normal((n, n))
        dense = np.triu(root @ root.T / n + 0.1 * np.eye(n))
        P[item] = dense.T[np.tril_indices(n)]  # row-major lower of the transpose: the upper triangle by columns
    A = rng.standard_normal((batch, A_pattern.nnz))
    return Family(n, cones, P_pattern, A_pattern, P, A)


@dataclasses.dataclass
class Solved:
    """Right-hand sides for which (x, y, s) solves the family's programmes."""

    q: np.ndarray
    b: np.ndarray
    x: np.ndarray
    y: np.ndarray
    s: np.ndarray

    @property
    def v(self) -> np.ndarray:
        """y - s."""
        return self.y - self.s


def solved(family: Family, v: np.ndarray, rng: np.random.Generator) -> Solved:
    """Choose q and b so that a random x and y = Pi(v), s = y - v are optimal."""
    y = family.engine.project_dual(v)
    x = rng.standard_normal((len(v), family.n))
    q = np.stack([-(family.dense_P(i) @ x[i] + family.dense_A(i).T @ y[i]) for i in range(len(v))])
    b = np.stack([family.dense_A(i) @ x[i] + y[i] - v[i] for i in range(len(v))])
    return Solved(q, b, x, y, y - v)

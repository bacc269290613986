"""Random cone programmes of every cone mix with known solutions, and Clarabel as the reference.

A cone is a pair (kind, parameter): ("z", rows), ("l", rows), ("q", rows), ("s", order), ("e", 0), ("de", 0),
("p", exponent), ("dp", exponent). Each programme is built from a complementary-feasible start, so it has a solution.
"""

from __future__ import annotations

import dataclasses

import clarabel
import numpy as np
import scipy.sparse as sp

KINDS = {"z": 0, "l": 1, "q": 2, "s": 3, "e": 4, "de": 5, "p": 6, "dp": 7}
DUALS = {"e": "de", "de": "e", "p": "dp", "dp": "p"}


def rows_of(cone):
    kind, size = cone
    if kind == "s":
        return size * (size + 1) // 2
    return 3 if kind in ("e", "de", "p", "dp") else size


def cone_arrays(cones):
    kinds = np.array([KINDS[kind] for kind, _ in cones], dtype=np.int64)
    sizes = np.array([3 if kind in ("e", "de", "p", "dp") else size for kind, size in cones], dtype=np.int64)
    exponents = np.array([float(p) if kind in ("p", "dp") else 0.0 for kind, p in cones])
    return kinds, sizes, exponents


def svec(matrix):
    order = len(matrix)
    return np.array([matrix[i, j] * (1 if i == j else 2**0.5) for j in range(order) for i in range(j, order)])


def member(rng, cone):
    """A random point of the cone, often on its boundary."""
    kind, size = cone
    d = rows_of(cone)
    if kind == "z":
        return np.zeros(d)
    if kind == "l":
        return rng.exponential(size=d) * (rng.random(d) < 0.5)
    if kind == "q":
        w = rng.standard_normal(d)
        w[:1] = np.linalg.norm(w[1:]) * (1 + 0.5 * (rng.random() < 0.5))
        return w
    if kind == "s":
        factor = rng.standard_normal((size, max(1, size // 2)))
        return svec(factor @ factor.T)
    if kind == "e":
        x, y = rng.standard_normal(), rng.exponential() + 0.3
        return np.array([x, y, y * np.exp(x / y) + rng.exponential()])
    if kind == "de":
        u, v = -rng.exponential() - 0.3, rng.standard_normal()
        return np.array([u, v, -u * np.exp(v / u - 1) + rng.exponential()])
    x, y = rng.exponential(size=2) + 0.1
    a = size
    if kind == "p":
        return np.array([x, y, rng.uniform(-1, 1) * x**a * y ** (1 - a)])
    return np.array([x, y, rng.uniform(-1, 1) * (x / a) ** a * (y / (1 - a)) ** (1 - a)])


def dual_member(rng, cone):
    kind, size = cone
    return rng.standard_normal(size) if kind == "z" else member(rng, (DUALS.get(kind, kind), size))


def concatenated(parts):
    return np.concatenate(parts) if parts else np.zeros(0)


@dataclasses.dataclass
class Batch:
    """Programmes of one structure: patterns as scipy CSC matrices, values with a leading batch axis."""

    cones: list
    P_pattern: sp.csc_matrix  # upper triangle
    A_pattern: sp.csc_matrix
    P: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray

    def engine(self):
        from conelayers.native import Engine

        m, n = self.A_pattern.shape
        patterns = (as_int64(v) for M in (self.P_pattern, self.A_pattern) for v in (M.indptr, M.indices))
        return Engine(n, m, *patterns, *cone_arrays(self.cones))

    def solve(self, **settings):
        return self.engine().solve(self.P, self.q, self.A, self.b, len(self.q), **settings)

    def strengthened(self):
        """The same with the identity added to P: one primal solution each."""
        P = self.P.copy()
        P[:, self.P_pattern.indptr[1:] - 1] += 1.0
        return dataclasses.replace(self, P=P)

    def head(self, count):
        """The first items."""
        return dataclasses.replace(self, **{name: getattr(self, name)[:count] for name in "PqAb"})

    def objective(self, i, x):
        upper, _ = self.matrices(i)
        return 0.5 * x @ (upper + sp.triu(upper, 1).T) @ x + self.q[i] @ x

    def matrices(self, i):
        upper = sp.csc_matrix((self.P[i], self.P_pattern.indices, self.P_pattern.indptr), self.P_pattern.shape)
        A = sp.csc_matrix((self.A[i], self.A_pattern.indices, self.A_pattern.indptr), self.A_pattern.shape)
        return upper, A


def as_int64(values):
    return np.ascontiguousarray(values, dtype=np.int64)


def random_batch(rng, n, cones, batch, quadratic=True, density=0.5, scale=1.0):
    """`batch` programmes of one random structure. quadratic: P of half rank; False: no P."""
    m = sum(map(rows_of, cones))
    A = sp.random(m, n, density, random_state=rng, format="csc")
    A.sort_indices()
    P = sp.csc_matrix(np.triu(np.ones((n, n))) if quadratic else np.zeros((n, n)))
    data = {name: [] for name in "PqAb"}
    for _ in range(batch):
        factor = rng.standard_normal((n, n // 2 + 1))
        dense = factor @ factor.T if quadratic else np.zeros((n, n))
        values = scale * rng.standard_normal(A.nnz)
        A_i = sp.csc_matrix((values, A.indices, A.indptr), A.shape)
        x = rng.standard_normal(n)
        s, y = concatenated([member(rng, c) for c in cones]), concatenated([dual_member(rng, c) for c in cones])
        data["P"].append(np.array([dense[i, j] for j in range(n) for i in range(j + 1)] if quadratic else []))
        data["q"].append(-dense @ x - A_i.T @ y)
        data["A"].append(values)
        data["b"].append(A_i @ x + s)
    stacked = {name: np.ascontiguousarray(np.stack(values)) for name, values in data.items()}
    return Batch(list(cones), P, A, **stacked)


def clarabel_cones(cones):
    """Clarabel's cones and the block-diagonal T that maps our rows to its rows."""
    made, blocks = [], []
    for cone in cones:
        kind, size = cone
        d = rows_of(cone)
        if d == 0:
            continue
        block = sp.eye_array(d)
        if kind == "z":
            made.append(clarabel.ZeroConeT(d))
        elif kind == "l" or (kind == "q" and d == 1):
            made.append(clarabel.NonnegativeConeT(d))
        elif kind == "q":
            made.append(clarabel.SecondOrderConeT(d))
        elif kind == "s":
            made.append(clarabel.PSDTriangleConeT(size))
            place = {}
            for j in range(size):
                for i in range(j, size):
                    place[i, j] = len(place)
            order = [place[j, i] for j in range(size) for i in range(j + 1)]
            block = sp.csr_array((np.ones(d), (range(d), order)), shape=(d, d))
        elif kind in ("e", "de"):
            made.append(clarabel.ExponentialConeT())
            if kind == "de":
                block = sp.csr_array(np.array([[1.0, -1, 0], [-1, 0, 0], [0, 0, 1]]))
        else:
            made.append(clarabel.PowerConeT(size))
            if kind == "dp":
                block = sp.diags_array([1 / size, 1 / (1 - size), 1.0])
        blocks.append(block)
    return made, sp.csc_array(sp.block_diag(blocks)) if blocks else sp.csc_array((0, 0))


def clarabel_solve(batch, i, tol=1e-10):
    """(status, x, objective) of one item."""
    upper, A = batch.matrices(i)
    made, T = clarabel_cones(batch.cones)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_feas = settings.tol_gap_abs = settings.tol_gap_rel = tol
    solution = clarabel.DefaultSolver(upper, batch.q[i], sp.csc_matrix(T @ A), T @ batch.b[i], made, settings).solve()
    return str(solution.status), np.array(solution.x), solution.obj_val

"""Batches that go wrong in every way: what each item is, and what must become of it, by construction."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from native.native_programmes import as_int64, cone_arrays, random_batch, rows_of

SOLVED, INFEASIBLE, UNBOUNDED, FAILED = 0, 2, 3, 5


def structure_of(P_pattern, A_pattern, cones):
    m, n = A_pattern.shape
    patterns = (as_int64(v) for M in (P_pattern, A_pattern) for v in (M.indptr, M.indices))
    return (n, m, *patterns, *cone_arrays(cones))


def mixed_batch(cones, quadratic=True):
    """A structure, its data (P, q, A, b), and per item the status that it must have, or None.

    Programmes with a solution, scaled ones, and between them ones without: A = 0 with b outside the cone is infeasible,
    A, P and b = 0 with q = 1 is unbounded, and data that are not finite are refused.
    """
    rows = sum(map(rows_of, cones))
    batch = random_batch(np.random.default_rng(5), max(4, (2 * rows) // 3), cones, 37, quadratic=quadratic)
    batch = batch.strengthened() if quadratic else batch
    P, q, A, b = (values.copy() for values in (batch.P, batch.q, batch.A, batch.b))
    statuses: list[int | None] = [SOLVED if quadratic else None] * len(q)
    for item, scale in zip(range(20, 37), np.logspace(-8, 8, 17), strict=True):
        part = (q, b, P, A)[item % 4]
        part[item] *= scale
        statuses[item] = None
    A[1], b[1] = 0.0, -1.0
    statuses[1] = INFEASIBLE if rows else SOLVED
    P[4], q[4], A[4], b[4] = 0.0, 1.0, 0.0, 0.0
    statuses[4] = UNBOUNDED
    P[7], q[7], A[7], b[7] = 0.0, 0.0, 0.0, 0.0
    statuses[7] = None
    for item, (values, bad) in enumerate([(P, np.nan), (q, np.inf), (A, -np.inf), (b, np.nan), (q, np.nan)], start=9):
        if values.shape[1]:
            values[item, -1] = bad
            statuses[item] = FAILED
    return structure_of(batch.P_pattern, batch.A_pattern, cones), (P, q, A, b), statuses


def odd_structures():
    """Structures at the edge of what there is, each with data (P, q, A, b) of 5 items."""
    rng = np.random.default_rng(6)
    box = sp.csc_matrix(np.vstack([np.eye(3), -np.eye(3)]))
    empty = sp.csc_matrix((3, 3))
    full = sp.csc_matrix(np.triu(np.ones((3, 3))))
    identity = sp.csc_matrix(np.eye(3))

    def data(P, A, m):
        values = [np.tile(M.data, (5, 1)) for M in (P, A)]
        return values[0], rng.standard_normal((5, 3)), values[1], np.ones((5, m))

    def case(P, A, cones):
        return structure_of(P, A, cones), data(P, A, A.shape[0])

    sparse = sp.random(150, 150, 4 / 150, random_state=rng)
    filling = sp.csc_matrix(sp.triu(sparse + sparse.T + 9 * sp.eye(150)))
    filling.sort_indices()
    values = np.tile(filling.data, (5, 1)), rng.standard_normal((5, 150)), np.zeros((5, 0)), np.zeros((5, 0))
    return {
        "much fill": (structure_of(filling, sp.csc_matrix((0, 150)), []), values),
        "linear programme": case(empty, box, [("l", 6)]),
        "no rows": case(identity, sp.csc_matrix((0, 3)), []),
        "no rows, no pattern": case(empty, sp.csc_matrix((0, 3)), []),
        "empty cones": case(identity, box, [("z", 0), ("l", 4), ("l", 0), ("q", 2)]),
        "nothing in A": case(identity, sp.csc_matrix((6, 3)), [("l", 6)]),
        "dense": case(full + 3 * identity, box, [("q", 3), ("l", 3)]),
    }

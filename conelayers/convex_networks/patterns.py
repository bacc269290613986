"""The cells of a hyperplane arrangement: which rows of X a ReLU neuron can be active on.

Neuron g is active on the rows with x_i'g >= 0. The hyperplanes x_i'g = 0 cut the space of g into cells, on each of
which this pattern is constant; in general position there are 2 sum_{k < r} C(n - 1, k) of them, r the rank of X
(Cover 1965).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from conelayers.convex_networks.features import as_matrix
from conelayers.errors import InvalidArgument
from conelayers.settings import check_count

__all__ = ["activation_patterns"]

_VANISHES = 1e-9  # of unit rows
_LARGEST = 200_000


def activation_patterns(X: Any, count: int | None = None, seed: int = 0) -> np.ndarray:
    """Return the activation patterns 1[Xg >= 0] of the cells of the arrangement, or of random directions.

    Every cell is a pointed cone (after projecting on the row space) and so touches a ray where r - 1 independent
    hyperplanes meet. For each such ray the rows that do not vanish have their signs, and the cells of the vanishing
    ones, an arrangement of rank r - 1, say what is around it: exact for any rows, also repeated, opposite, or in a
    lattice.
    Rows of zeros count as active.

    Args:
        X: Shape (n, d).
        count: None for all cells; else as many directions are drawn, and the distinct patterns among theirs returned.
        seed: Of the directions.

    Returns:
        Booleans of shape (patterns, n), distinct, in lexicographic order.

    Raises:
        InvalidArgument: If X is not a finite matrix, or has too many cells to list; ask for a `count` then.
    """
    rows = as_matrix("X", X)
    if count is not None:
        check_count("count", count)
        directions = np.random.default_rng(seed).standard_normal((rows.shape[1], count))
        return np.unique((rows @ directions >= 0).T, axis=0)
    lines, line_of, sign_of = _distinct_lines(rows)
    if not len(lines):
        return np.ones((1, len(rows)), dtype=bool)
    rank = int(np.linalg.matrix_rank(lines, tol=_VANISHES))
    if math.comb(len(lines), max(rank - 1, 0)) > _LARGEST:
        raise InvalidArgument(
            f"X has {len(lines)} distinct directions of rank {rank}, too many cells to list: give a count."
        )
    signs = np.array(sorted(_cells(lines)), dtype=float).reshape(-1, len(lines))
    patterns = np.ones((len(signs), len(rows)), dtype=bool)
    counted = line_of >= 0
    patterns[:, counted] = signs[:, line_of[counted]] * sign_of[counted] > 0
    return np.unique(patterns, axis=0)


def _distinct_lines(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors, no two parallel; for each row which of them it is (-1 for zero) and with which sign."""
    lengths = np.linalg.norm(rows, axis=1)
    line_of, sign_of = np.full(len(rows), -1), np.ones(len(rows))
    lines: list[np.ndarray] = []
    for i in np.flatnonzero(lengths):  # units differ between rows: only zero itself has no direction
        unit = rows[i] / lengths[i]
        known = np.array(lines).reshape(-1, rows.shape[1])
        signs = np.where(known @ unit >= 0, 1.0, -1.0)
        same = np.flatnonzero(np.linalg.norm(signs[:, None] * known - unit, axis=1) <= _VANISHES)
        if len(same):
            line_of[i], sign_of[i] = same[0], signs[same[0]]
        else:
            line_of[i] = len(lines)
            lines.append(unit)
    return np.array(lines).reshape(-1, rows.shape[1]), line_of, sign_of


def _cells(lines: np.ndarray) -> set[tuple[int, ...]]:
    """Signs of all rows in every cell of the arrangement of distinct lines."""
    count = len(lines)
    _, values, axes = np.linalg.svd(lines, full_matrices=False)
    rank = int((values > _VANISHES).sum())
    if count == rank:  # independent: every combination
        return set(itertools.product((-1, 1), repeat=count))
    lines = lines @ axes[:rank].T
    found: set[tuple[int, ...]] = set()
    known: set[bytes] = set()
    for subset in itertools.combinations(range(count), rank - 1):
        _, values, axes = np.linalg.svd(lines[list(subset)])
        if values.min(initial=1.0) <= _VANISHES:
            continue  # dependent: they meet in more than a ray
        heights = lines @ axes[-1]
        vanish = np.abs(heights) <= _VANISHES
        key = vanish.tobytes()
        if key in known:
            continue  # the ray of an earlier subset
        known.add(key)
        signs = np.sign(heights).astype(int)
        for local in _cells(lines[vanish]):
            signs[vanish] = local
            found.add(tuple(signs.tolist()))
            signs[vanish] = -np.array(local)
            found.add(tuple((-signs).tolist()))
    return found

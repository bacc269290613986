"""Enumerated cells against the count in general position, and against exhaustive sampling where rows are special."""

from math import comb

import numpy as np
import pytest
import torch

from conelayers.convex_networks import activation_patterns
from conelayers.errors import InvalidArgument


@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 1), (6, 2), (8, 3), (10, 3), (8, 4), (4, 4), (3, 5)])
def test_general_position(n, d):
    X = np.random.default_rng(n + d).standard_normal((n, d))
    patterns = activation_patterns(X)
    assert len(patterns) == 2 * sum(comb(n - 1, k) for k in range(min(d, n)))
    assert len(np.unique(patterns, axis=0)) == len(patterns)


LATTICE = np.array([[i, j, 1] for i in range(3) for j in range(3)], float)
ROWS = np.random.default_rng(0).standard_normal((5, 3))
SPECIAL = {
    "lattice": LATTICE,
    "cube": np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float),
    "repeated and opposite rows": np.vstack([ROWS, 2 * ROWS[:2], -ROWS[2:3], np.zeros((1, 3))]),
    "a plane in space": ROWS[:, :2] @ np.random.default_rng(1).standard_normal((2, 4)),
    "four rows through one line": np.vstack([ROWS[:2], ROWS[0] + ROWS[1], ROWS[0] - ROWS[1], ROWS[2:]]),
    "nothing but zeros": np.zeros((4, 2)),
    "large and small units": np.diag([1e-6, 1, 1e6, 1, 1]) @ ROWS,
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_rows_are_sampled_exhaustively(name):
    exact = activation_patterns(SPECIAL[name])
    sampled = activation_patterns(torch.tensor(SPECIAL[name]), count=200_000)
    np.testing.assert_array_equal(exact, sampled)
    if name == "lattice":
        assert len(exact) == 58


def test_some_patterns_are_among_all():
    X = np.random.default_rng(0).standard_normal((8, 3))
    some, every = activation_patterns(X, count=20, seed=1), activation_patterns(X)
    assert {tuple(row) for row in some} < {tuple(row) for row in every}
    np.testing.assert_array_equal(some, activation_patterns(X, count=20, seed=1))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.zeros(3),), ["X", "(3,)"]),
        ((np.full((2, 2), np.nan),), ["X", "finite"]),
        ((np.random.default_rng(0).standard_normal((200, 10)),), ["200", "count"]),
        ((np.eye(2), 0), ["count"]),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(InvalidArgument) as caught:
        activation_patterns(*arguments)
    assert all(word in str(caught.value) for word in words), caught.value

"""The batched LDL^T against dense solves, over patterns, scales and batch sizes."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("conelayers.native")
from conelayers.native import LDLT  # noqa: E402


def quasidefinite(rng, n, m, density, batch, scale=1.0):
    """Pattern (upper triangle) and values of [M'M + I, A'; A, -(N'N + I)], and the signs of its pivots."""
    mask_P, mask_W = (np.triu(rng.random((k, k)) < density) | np.eye(k, dtype=bool) for k in (n, m))
    mask_A = rng.random((m, n)) < density
    mask = np.block([[mask_P, mask_A.T], [np.zeros((m, n), bool), mask_W]])
    pattern = sp.csc_matrix(mask.astype(float))
    columns = np.repeat(np.arange(n + m), np.diff(pattern.indptr))
    dense = np.zeros((batch, n + m, n + m))
    for k in range(batch):
        P = np.triu(rng.standard_normal((n, n))) * mask_P
        W = np.triu(rng.standard_normal((m, m))) * mask_W
        P, W = P + np.triu(P, 1).T, W + np.triu(W, 1).T
        for block in (P, W):  # diagonal dominance keeps the pattern and gives definiteness
            np.fill_diagonal(block, 1 + np.abs(block).sum(1) + rng.random(len(block)))
        A = scale * rng.standard_normal((m, n)) * mask_A
        dense[k] = np.block([[P, A.T], [A, -W]])
    signs = np.r_[np.ones(n), -np.ones(m)].astype(np.int8)
    return pattern, np.ascontiguousarray(dense[:, pattern.indices, columns]), dense, signs


def factorization(pattern, signs=None):
    return LDLT(pattern.shape[0], pattern.indptr.astype(np.int64), pattern.indices.astype(np.int64), signs)


def check(pattern, values, dense, signs, rng, threads=1, right_hand_sides=3, tol=1e-12):
    rhs = rng.standard_normal((len(dense), right_hand_sides, len(dense[0])))
    x = factorization(pattern, signs).factor(values, threads=threads).solve(rhs, threads=threads)
    residual = np.einsum("bij,bkj->bki", dense, x) - rhs
    size = np.abs(dense).max((1, 2))[:, None] * np.abs(x).max(2, initial=0) + 1
    assert (np.abs(residual).max(2, initial=0) / size).max(initial=0) <= tol


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 9, 24])
@pytest.mark.parametrize("density", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("n, m", [(1, 0), (1, 1), (6, 3), (30, 45), (40, 0)])
def test_solves(n, m, density, batch):
    rng = np.random.default_rng(n + m)
    check(*quasidefinite(rng, n, m, density, batch), rng)


def test_banded_and_diagonal():
    rng = np.random.default_rng(0)
    for width in (0, 1, 3):
        n = 60
        mask = np.triu(np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= width)
        pattern = sp.csc_matrix(mask.astype(float))
        dense = rng.standard_normal((5, n, n)) * mask
        dense = dense + np.triu(dense, 1).transpose(0, 2, 1) + 20 * np.eye(n)
        columns = np.repeat(np.arange(n), np.diff(pattern.indptr))
        values = np.ascontiguousarray(dense[:, pattern.indices, columns])
        ldlt = factorization(pattern)
        assert ldlt.fill == sum(n - k for k in range(1, width + 1))  # a band needs no fill
        check(pattern, values, dense, None, rng)


def test_order_of_a_quadratic_programme_is_optimal():
    """min |Fx - g|^2, Gx <= h: eliminating t, then the rows, then x leaves n + 2 n^2 + n (n - 1) / 2 entries."""
    n = 12
    full, eye = np.ones((n, n)), np.eye(n)
    A = np.block([[full, eye], [full, np.zeros((n, n))]])
    K = np.block([[np.eye(2 * n), A.T], [A, np.eye(2 * n)]])
    ldlt = factorization(sp.csc_matrix(np.triu(K)))
    assert ldlt.fill == n + 2 * n * n + n * (n - 1) // 2
    assert ldlt.supernodes <= n + 3  # the 2 n independent rows form groups


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 25), st.integers(0, 25), st.floats(0, 1), st.integers(1, 9), st.integers(0, 2**31),
    st.sampled_from([1e-8, 1e-4, 1.0, 1e4, 1e8]),
)  # fmt: skip
def test_random_patterns_and_scales(n, m, density, batch, seed, scale):
    rng = np.random.default_rng(seed)
    pattern, values, dense, signs = quasidefinite(rng, n, m, density, batch, scale)
    # Pivots grow with |A|^2 (no pivoting), so the error is bounded by that growth.
    check(pattern, values, dense, signs, rng, threads=2, tol=1e-13 * max(1.0, scale))
    check(pattern, values, dense, None, rng, right_hand_sides=1, tol=1e-13 * max(1.0, scale))


def test_shared_values():
    rng = np.random.default_rng(0)
    pattern, values, dense, signs = quasidefinite(rng, 10, 10, 0.3, 1)
    rhs = rng.standard_normal((11, 2, 20))
    factor = factorization(pattern, signs).factor(values, batch=11)
    np.testing.assert_allclose(factor.solve(rhs), np.linalg.solve(dense[0], rhs.transpose(0, 2, 1)).transpose(0, 2, 1))


def test_missing_pivots_are_regularised():
    """A zero matrix has no pivots: each is replaced by its sign times the replacement."""
    pattern = sp.csc_matrix(np.triu(np.ones((3, 3))))
    factor = factorization(pattern, np.array([1, -1, 1], np.int8)).factor(np.zeros((2, 6)), replacement=0.5)
    np.testing.assert_array_equal(factor.solve(np.ones((2, 1, 3))), np.broadcast_to([2.0, -2, 2], (2, 1, 3)))


def test_nan_stays_in_its_lane():
    rng = np.random.default_rng(0)
    pattern, values, dense, signs = quasidefinite(rng, 8, 8, 0.4, 9)
    rhs = rng.standard_normal((9, 1, 16))
    clean = factorization(pattern, signs).factor(values).solve(rhs)
    values[3] = np.nan
    x = factorization(pattern, signs).factor(values).solve(rhs)
    others = [i for i in range(9) if i != 3]
    np.testing.assert_array_equal(x[others], clean[others])


def test_bad_arguments():
    pattern = sp.csc_matrix(np.eye(3))
    with pytest.raises(ValueError, match="upper triangle"):
        LDLT(2, np.array([0, 1, 1]), np.array([1]))
    with pytest.raises(ValueError, match="n \\+ 1"):
        LDLT(2, np.array([0, 1]), np.array([0]))
    with pytest.raises(ValueError, match="entries of the pattern"):
        factorization(pattern).factor(np.ones((1, 2)))
    with pytest.raises(ValueError, match="rhs"):
        factorization(pattern).factor(np.ones((2, 3))).solve(np.ones((1, 1, 3)))

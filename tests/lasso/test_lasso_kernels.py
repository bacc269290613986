"""Compiled coordinate descent: few sweeps where coordinates are strongly coupled, and books that balance."""

import numpy as np
import pytest

from conelayers import native


def _minimise(Q, c, l1, lower, upper):
    k = len(c)
    w, gradient = np.zeros(k), c.copy()
    term = np.array([np.full(k, v) for v in (0.0, l1, 0.0, lower, upper)])
    sweeps = native.descend_gram(Q, gradient, w, term, 2000, 1e-11)
    np.testing.assert_allclose(gradient, Q @ w + c, atol=1e-9)
    inside = (w > lower) & (w < upper)
    slope = gradient + l1 * np.sign(w)
    assert np.abs(slope[inside & (w != 0)]).max() < 1e-9 and np.abs(gradient[w == 0]).max(initial=0) <= l1 + 1e-9
    assert (slope[w == upper] <= 1e-9).all() and (slope[w == lower] >= -1e-9).all()
    return sweeps, w


@pytest.mark.parametrize("bound", [np.inf, 0.3])
@pytest.mark.parametrize("copies", [False, True])
def test_newton_steps_inside_the_descent(bound, copies):
    # condition number 1e6: plain coordinate descent needs thousands of sweeps; copies make Q singular
    rng = np.random.default_rng(0)
    V, _ = np.linalg.qr(rng.standard_normal((40, 40)))
    X = (V * np.sqrt(np.geomspace(1, 1e-6, 40))) @ V.T
    X = np.hstack([X, X[:, :5]]) if copies else X
    Q, c = np.ascontiguousarray(X.T @ X), -(X.T @ rng.standard_normal(40))
    sweeps, w = _minimise(Q, c, 0.05, -bound, bound)
    assert sweeps < 200 and 0 < np.count_nonzero(w) < len(w)

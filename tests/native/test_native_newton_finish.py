"""The end of a compiled solve: Newton steps from rough points, more iterations where they fail."""

import dataclasses

import numpy as np
import pytest
from native.native_programmes import as_int64, cone_arrays, random_batch

from conelayers.native import Differentiator
from conelayers.program import Status

MIXES = {
    "qp": [("z", 3), ("l", 12)],
    "soc": [("q", 4), ("l", 3), ("q", 6)],
    "bordered": [("q", 20), ("l", 3), ("q", 13)],
    "psd": [("s", 4), ("l", 2)],
    "exp": [("e", 0), ("de", 0), ("l", 4)],
    "power": [("p", 0.3), ("dp", 0.6), ("l", 3)],
    "all": [("z", 2), ("l", 5), ("q", 4), ("s", 3), ("e", 0), ("de", 0), ("p", 0.4), ("dp", 0.7)],
}


def differentiator(batch):
    m, n = batch.A_pattern.shape
    patterns = (as_int64(v) for M in (batch.P_pattern, batch.A_pattern) for v in (M.indptr, M.indices))
    return Differentiator(n, m, *patterns, *cone_arrays(batch.cones))


def finished(batch, **settings):
    return batch.solve(differentiator=differentiator(batch), **settings)


def worst(result):
    return np.max([result[key] for key in ("primal_residual", "dual_residual", "gap")], axis=0)


def programmes(name, items=33, seed=0):
    batch = random_batch(np.random.default_rng(seed), 9, MIXES[name], items).strengthened()
    rng = np.random.default_rng(seed + 1)  # away from the kinks of the construction
    return dataclasses.replace(batch, q=batch.q + 0.1 * rng.standard_normal(batch.q.shape))


@pytest.mark.parametrize("name", MIXES)
def test_solutions_are_exact_and_those_of_the_plain_method(name):
    batch = programmes(name)
    plain, result = batch.solve(tol=1e-10), finished(batch)
    assert (result["status"] == Status.SOLVED).all()
    assert np.median(worst(result)) < 1e-13 and worst(result).max() < 1e-10
    np.testing.assert_allclose(result["x"], plain["x"], atol=2e-5)  # what a gap of 1e-10 leaves open
    assert result["iterations"].mean() < batch.solve()["iterations"].mean() - 1


@pytest.mark.parametrize("name", ["qp", "all"])
def test_lanes_regroup_without_a_trace(name):
    """Items change packs while they are solved; where one ends must not matter to it, nor who fails beside it."""
    batch = programmes(name, items=50)
    straight = finished(batch)
    order = np.random.default_rng(2).permutation(50)
    shuffled = finished(dataclasses.replace(batch, **{key: getattr(batch, key)[order] for key in "PqAb"}), threads=2)
    for key in ("status", "iterations"):
        np.testing.assert_array_equal(shuffled[key], straight[key][order])
    for key in ("x", "y", "s"):  # projections on curved cones iterate until the last lane is done
        np.testing.assert_allclose(shuffled[key], straight[key][order], rtol=0, atol=0 if name == "qp" else 1e-12)
    spoiled = dataclasses.replace(batch, q=batch.q.copy())
    spoiled.q[::7] = np.nan
    result, whole = finished(spoiled), np.arange(50) % 7 != 0
    assert (result["status"][~whole] == Status.FAILED).all()
    for key in ("x", "y", "s", "status", "iterations"):
        np.testing.assert_allclose(result[key][whole], straight[key][whole], rtol=0, atol=0 if name == "qp" else 1e-12)


def test_certificates_come_through():
    """x <= -1 and x >= 1 has no solution, minimise x without a bound none either; both beside a solvable item."""
    batch = random_batch(np.random.default_rng(0), 1, [("l", 2)], 3, quadratic=False, density=1.0)
    A = np.array([[1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    batch = dataclasses.replace(
        batch, A=A, b=np.array([[-1.0, -1.0], [1.0, 2.0], [2.0, 1.0]]), q=np.array([[0.0], [1.0], [1.0]])
    )
    result = finished(batch)
    expected = [Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE, Status.SOLVED]
    assert result["status"].tolist() == expected
    assert result["x"][2, 0] == pytest.approx(-1.0, abs=1e-12)
    assert batch.b[0] @ result["y"][0] == pytest.approx(-1.0, rel=1e-8)


def least_squares(condition, items=16, n=20):
    """min |R x - c|^2, x >= k, in the lifted form of CVXPY, with a known solution; R has this condition number."""
    rng = np.random.default_rng(1)
    lists = {"A": [], "b": [], "x": []}
    for _ in range(items):
        left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
        R = left @ np.diag(np.geomspace(1.0, 1 / condition, n)) @ right.T
        x, k = rng.standard_normal(n), np.zeros(n)
        multiplier, active = np.zeros(n), rng.choice(n, 5, replace=False)
        multiplier[active] = rng.random(5)
        k = np.where(multiplier > 0, x, x - 1 - rng.random(n))
        c = R @ x - np.linalg.solve(R.T, multiplier) / 2
        rows = np.block([[R, -np.eye(n)], [-np.eye(n), np.zeros((n, n))]])
        lists["A"].append(rows)
        lists["b"].append(np.concatenate([c, -k]))
        lists["x"].append(x)
    return {key: np.array(value) for key, value in lists.items()}, n, items


def test_ill_conditioned_least_squares_are_solved_to_the_end():
    """Residuals of 1e-9 leave errors above 1 here: Newton steps must be tried again from a better point."""
    import scipy.sparse as sp

    data, n, items = least_squares(1 / 6e-5)
    pattern = sp.csc_matrix(np.abs(data["A"]).sum(0) > 0)
    P = sp.csc_matrix(np.diag(np.r_[np.zeros(n), np.ones(n)]))
    batch = random_batch(np.random.default_rng(0), 2 * n, [("z", n), ("l", n)], items)
    columns = np.repeat(np.arange(2 * n), np.diff(pattern.indptr))
    batch = dataclasses.replace(
        batch,
        P_pattern=P,
        A_pattern=pattern,
        P=np.full((items, n), 2.0),
        q=np.zeros((items, 2 * n)),
        A=np.ascontiguousarray(data["A"][:, pattern.indices, columns]),
        b=data["b"],
    )
    result = finished(batch)
    assert (result["status"] == Status.SOLVED).all()
    assert np.abs(result["x"][:, :n] - data["x"]).max() < 1e-3


def test_differentiator_of_other_patterns_is_refused():
    batch, other = programmes("qp"), programmes("soc")
    with pytest.raises(ValueError, match="differentiator"):
        batch.solve(differentiator=differentiator(other))

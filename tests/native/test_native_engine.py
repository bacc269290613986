"""The batched interior-point method against Clarabel, on its own certificates, and on data that must not break it."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native.native_programmes import Batch, clarabel_solve, random_batch, rows_of

pytest.importorskip("conelayers.native")
from conelayers.cones import (  # noqa: E402
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
)
from conelayers.native import Engine  # noqa: E402
from conelayers.program import Status  # noqa: E402

MIXES = {
    "lp": [("z", 3), ("l", 20)],
    "second-order": [("z", 2), ("l", 5), ("q", 4), ("q", 7), ("q", 2)],
    "large second-order": [("q", 30), ("q", 1), ("q", 13)],
    "semidefinite": [("z", 2), ("l", 3), ("s", 3), ("s", 5), ("s", 1)],
    "exponential": [("z", 2), ("l", 5), ("e", 0), ("e", 0), ("e", 0)],
    "dual exponential": [("l", 5), ("de", 0), ("de", 0)],
    "power": [("z", 2), ("l", 5), ("p", 0.3), ("p", 0.5), ("p", 0.9)],
    "dual power": [("l", 5), ("dp", 0.2), ("dp", 0.6)],
    "all": [("z", 2), ("l", 5), ("q", 4), ("s", 3), ("e", 0), ("p", 0.7), ("de", 0), ("dp", 0.2)],
}
MAKE = {
    "z": Zero,
    "l": Nonnegative,
    "q": SecondOrder,
    "s": PositiveSemidefinite,
    "e": lambda _: Exponential(),
    "de": lambda _: DualExponential(),
    "p": Power,
    "dp": DualPower,
}


def certify(batch, result, tol):
    """Residuals and cone membership of every item, from the data alone."""
    import torch

    cone = ProductCone([MAKE[kind](size) for kind, size in batch.cones])
    for i in range(len(batch.q)):
        upper, A = batch.matrices(i)
        P = upper + sp.triu(upper, 1).T
        x, y, s = result["x"][i], result["y"][i], result["s"][i]
        scale = 1 + max(np.abs(v).max(initial=0) for v in (x, y, s, batch.b[i], batch.q[i], A @ x, A.T @ y))
        assert np.abs(A @ x + s - batch.b[i]).max(initial=0) <= tol * scale
        assert np.abs(P @ x + batch.q[i] + A.T @ y).max(initial=0) <= tol * scale
        size = 1 + abs(batch.q[i] @ x)
        assert abs(x @ P @ x + batch.q[i] @ x + batch.b[i] @ y) <= 10 * tol * size
        if len(s):
            v_s, v_y = torch.from_numpy(s), torch.from_numpy(y)
            assert (cone.project(v_s) - v_s).abs().max() <= tol * scale
            assert (cone.project_dual(v_y) - v_y).abs().max() <= tol * scale


@pytest.mark.parametrize("quadratic", [True, False], ids=["quadratic", "linear"])
@pytest.mark.parametrize("name", MIXES)
def test_reaches_1e_10(name, quadratic):
    batch = random_batch(np.random.default_rng(len(name)), 12, MIXES[name], 40, quadratic)
    result = batch.solve(tol=1e-10)
    solved = result["status"] == Status.SOLVED
    # Half of the entries of s and y are zero: degenerate on purpose. One in forty may end a digit early.
    assert solved.sum() >= 39 and (result["status"] <= Status.INACCURATE).all()
    for key in ("primal_residual", "dual_residual", "gap"):
        assert result[key][solved].max() <= 1e-10 and result[key].max() <= 1e-8
    certify(batch, result, 1e-8)


@pytest.mark.parametrize("name", MIXES)
def test_default_tolerance(name):
    batch = random_batch(np.random.default_rng(11), 14, MIXES[name], 64)
    result = batch.solve()
    assert (result["status"] == Status.SOLVED).all()
    certify(batch, result, 1e-7)


@pytest.mark.parametrize("name", MIXES)
def test_agrees_with_clarabel(name):
    batch = random_batch(np.random.default_rng(7), 10, MIXES[name], 19)
    result = batch.solve(tol=1e-10)
    compared = 0
    for i in range(len(batch.q)):
        status, _, objective = clarabel_solve(batch, i, 1e-9)
        if status == "Solved":
            compared += 1
            assert abs(batch.objective(i, result["x"][i]) - objective) <= 3e-9 * (1 + abs(objective))
    assert compared >= 10


def distance_bound(objective, gap):
    """How far two points of objectives within `gap` (relative) of the optimum can be apart when P >= I."""
    return 2 * np.sqrt(2 * gap * max(1.0, abs(objective)))


def test_unique_solutions_agree_with_clarabel():
    batch = random_batch(np.random.default_rng(3), 8, [("z", 2), ("l", 6), ("q", 5), ("s", 3)], 32).strengthened()
    result = batch.solve(tol=1e-10)
    for i in range(32):
        status, x, objective = clarabel_solve(batch, i, 1e-10)
        assert status in ("Solved", "AlmostSolved")
        gap = 2e-10 if status == "Solved" else 1e-7
        assert np.linalg.norm(result["x"][i] - x) <= distance_bound(objective, gap)


@pytest.mark.parametrize("name", ["all", "second-order", "semidefinite"])
class TestNeighbours:
    """Single problems, up to four and more of them may go by different instructions, which round differently."""

    @pytest.mark.parametrize(("size", "most"), [(2, 4), (3, 4), (5, 17), (7, 17), (8, 17), (9, 17), (17, 17)])
    def test_results_do_not_depend_on_them(self, name, size, most):
        batch = random_batch(np.random.default_rng(0), 6, MIXES[name], 17).strengthened()
        full, part = batch.head(most).solve(tol=1e-9), batch.head(size).solve(tol=1e-9, threads=2)
        for key in ("x", "y", "s", "status", "iterations"):
            np.testing.assert_array_equal(part[key], full[key][:size])

    @pytest.mark.parametrize(("first", "copies"), [(3, 2), (16, 5)])
    def test_nor_on_the_place(self, name, first, copies):
        """Here in a lane or pack of its own, there in all."""
        batch = random_batch(np.random.default_rng(0), 6, MIXES[name], 17).strengthened().head(first + 1)
        values = {key: getattr(batch, key)[first:].repeat(copies, axis=0) for key in "PqAb"}
        alone = dataclasses.replace(batch, **values).solve(tol=1e-9)
        np.testing.assert_array_equal(alone["x"], batch.solve(tol=1e-9)["x"][[first] * copies])

    @pytest.mark.parametrize("size", [1, 4])
    def test_other_instructions_agree_to_the_tolerance(self, name, size):
        batch = random_batch(np.random.default_rng(0), 6, MIXES[name], 17).strengthened()
        full, part = batch.solve(tol=1e-9), batch.head(size).solve(tol=1e-9)
        for i in range(size):
            bound = distance_bound(batch.objective(i, full["x"][i]), 1e-9)
            assert np.linalg.norm(full["x"][i] - part["x"][i]) <= bound


def test_shared_values_equal_repeated_values():
    batch = random_batch(np.random.default_rng(1), 6, MIXES["lp"], 9)
    engine, one_row = batch.engine(), (batch.P[:1], batch.A[:1], batch.b[:1] + 1.0)
    P, A, b = one_row
    shared = engine.solve(P, batch.q, A, b, 9)
    P, A, b = (np.repeat(values, 9, 0) for values in one_row)
    repeated = engine.solve(P, batch.q, A, b, 9)
    for key in shared:
        np.testing.assert_array_equal(shared[key], repeated[key])


def one(P, q, A, b, cones, **settings):
    """Solve with dense P and A; q and b may have a batch axis."""
    A = sp.csc_matrix(np.asarray(A, float).reshape(-1, len(P)))
    upper = sp.csc_matrix(np.triu(np.asarray(P, float)))
    q, b = np.atleast_2d(np.asarray(q, float)), np.atleast_2d(np.asarray(b, float))
    B = max(len(q), len(b))
    return (
        Batch(cones, upper, A, upper.data[None], q, A.data[None], b)
        .engine()
        .solve(upper.data[None].copy(), q, A.data[None].copy(), b, B, **settings)
    )


ZERO = np.zeros((2, 2))
INFEASIBLE = {
    "lp": (ZERO, [1, 0], [[1, 0], [-1, 0]], [-1, -1], [("l", 2)]),
    "qp": (np.eye(2), [1, 1], [[1, 1], [-1, -1]], [-1, -1], [("l", 2)]),
    "equalities": (np.eye(2), [1, 1], [[1, 1], [1, 1]], [0, 1], [("z", 2)]),
    "zero row": (np.eye(2), [1, 1], [[0, 0]], [-1], [("l", 1)]),
    "second-order": (ZERO, [1, 1], [[0, 0], [1, 0], [0, 1], [1, 0]], [1, 0, 0, -5], [("q", 3), ("l", 1)]),
    "semidefinite": (np.zeros((3, 3)), [1, 0, 1], [*(-np.eye(3)), [1, 0, 0]], [0, 0, 0, -1], [("s", 2), ("z", 1)]),
    "exponential": (ZERO, [1, 0], [[0, 0], [0, 0], [1, 0], [-1, 0]], [1, 1, -1, 0], [("e", 0), ("l", 1)]),
}
UNBOUNDED = {
    "lp": (ZERO, [-1, 0], [[-1, 0]], [0], [("l", 1)]),
    "equality": (ZERO, [1, 0], [[0, 1]], [1], [("z", 1)]),
    "qp": (np.diag([1.0, 0]), [0, 1], [[1, 0]], [1], [("l", 1)]),
    "second-order": (ZERO, [-1, 0], [[-1, 0], [0, -1]], [0, 0], [("q", 2)]),
    "semidefinite": (np.zeros((3, 3)), [-1, 0, -1], -np.eye(3), [0, 0, 0], [("s", 2)]),
    "exponential": (ZERO, [1, 0], [[-1, 0], [0, 0], [0, 0]], [0, 1, 1], [("e", 0)]),
    "no rows": (ZERO, [1, 2], np.zeros((0, 2)), [], []),
}


@pytest.mark.parametrize("name", INFEASIBLE)
def test_primal_infeasible(name):
    P, q, A, b, cones = INFEASIBLE[name]
    result = one(P, q, A, b, cones)
    assert result["status"][0] == Status.PRIMAL_INFEASIBLE
    y = result["y"][0]
    assert np.dot(b, y) == pytest.approx(-1, rel=1e-6)
    assert np.abs(np.asarray(A, float).T @ y).max() <= 1e-6


@pytest.mark.parametrize("name", UNBOUNDED)
def test_dual_infeasible(name):
    P, q, A, b, cones = UNBOUNDED[name]
    result = one(P, q, A, b, cones)
    assert result["status"][0] == Status.DUAL_INFEASIBLE
    x, s = result["x"][0], result["s"][0]
    assert np.dot(q, x) == pytest.approx(-1, rel=1e-6)
    assert np.abs(np.asarray(P) @ x).max() <= 1e-6
    assert np.abs(np.asarray(A, float) @ x + s).max(initial=0) <= 1e-6


@pytest.mark.parametrize("exponent", [-8, -4, 4, 8])
@pytest.mark.parametrize("scaled", ["b and q", "A", "P and q"])
def test_units_do_not_matter(scaled, exponent):
    batch = random_batch(np.random.default_rng(0), 8, [("z", 2), ("l", 10), ("q", 4)], 8)
    factor = 10.0**exponent
    for name in {"b and q": "bq", "A": "A", "P and q": "Pq"}[scaled]:
        setattr(batch, name, getattr(batch, name) * factor)
    result = batch.solve()
    assert (result["status"] <= Status.INACCURATE).all()
    assert max(result[key].max() for key in ("primal_residual", "dual_residual")) <= 1e-8


def test_statuses_within_one_pack():
    b = np.array([[1.0, 2], [-1, -1], [np.nan, 1], [2, 2], [np.inf, 0], [-2, -3], [1, 0], [-3, 4]])
    result = one(np.eye(1), [1.0], [[1.0], [-1.0]], b, [("l", 2)])
    expected = [Status.SOLVED, Status.PRIMAL_INFEASIBLE, Status.FAILED, Status.SOLVED, Status.SOLVED,
                Status.PRIMAL_INFEASIBLE, Status.SOLVED, Status.SOLVED]  # fmt: skip
    assert result["status"].tolist() == [int(s) for s in expected]
    np.testing.assert_allclose(result["x"][[0, 3, 4, 6, 7], 0], [-1, -1, 0, 0, -3], atol=1e-6)


@pytest.mark.parametrize("which", ["P", "q", "A", "b"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_bad_data_fails_alone(which, value):
    batch = random_batch(np.random.default_rng(2), 5, MIXES["all"], 11)
    clean = batch.solve()
    getattr(batch, which)[4, 0] = value
    result = batch.solve()
    if not np.isfinite(value):
        assert result["status"][4] == Status.FAILED
    others = [i for i in range(11) if i != 4]
    for key in ("x", "y", "s", "status"):
        np.testing.assert_array_equal(result[key][others], clean[key][others])


def test_empty_and_degenerate_shapes():
    solved = int(Status.SOLVED)
    assert one(np.eye(2), [1, 2], np.zeros((0, 2)), [], [])["x"][0] == pytest.approx([-1, -2])
    assert one(ZERO, [0, 0], np.zeros((0, 2)), [], [])["status"][0] == solved
    empty = one(np.eye(2), [1, 2], [[1, 0]], [-3], [("z", 0), ("l", 1), ("q", 0), ("s", 0)])
    assert empty["x"][0] == pytest.approx([-3, -2], abs=1e-6)
    dependent = one(np.eye(2), [1, 1], [[1, 1], [1, 1], [2, 2]], [1, 1, 2], [("z", 3)])
    assert dependent["status"][0] == solved and dependent["x"][0] == pytest.approx([0.5, 0.5])
    assert one(np.eye(1), [1], [[0.0]], [0], [("z", 1)])["status"][0] == solved
    assert one(np.eye(1), [1], [[1.0]], [2], [("z", 1)])["x"][0] == pytest.approx([2])


def test_empty_batch():
    batch = random_batch(np.random.default_rng(0), 4, MIXES["lp"], 1)
    result = batch.engine().solve(batch.P, batch.q[:0], batch.A, batch.b, 0)
    assert result["x"].shape == (0, 4) and result["status"].shape == (0,)


def test_large_results_that_are_in_use_keep_their_values():
    """Memory of large results is used again, but not before Python has let go of all views of them."""
    batch = random_batch(np.random.default_rng(3), 32, [("l", 40)], 600)
    kept, views = [], []
    for seed in range(4):
        batch.q[:] = np.random.default_rng(seed).standard_normal(batch.q.shape)
        result = batch.solve()
        assert result["x"].nbytes >= 1 << 17  # smaller ones are not kept
        kept.append((result["x"], result["x"].copy()))
        views.append((torch.from_numpy(result["y"])[5:], result["y"][5:].copy()))
    for x, expected in kept:
        np.testing.assert_array_equal(x, expected)
    for y, expected in views:
        np.testing.assert_array_equal(y, expected)
    addresses = {x.ctypes.data for x, _ in kept}
    del kept, x, result
    again = [batch.solve()["x"] for _ in range(4)]
    assert addresses & {x.ctypes.data for x in again}


def test_iteration_limit():
    batch = random_batch(np.random.default_rng(0), 8, MIXES["lp"], 8)
    result = batch.solve(max_iter=2)
    assert (result["status"] == Status.ITERATION_LIMIT).all() and (result["iterations"] == 2).all()


def test_wrong_structure_is_refused():
    empty, pointer = np.zeros(0, np.int64), np.zeros(3, np.int64)
    kinds, sizes, exponents = np.array([1]), np.array([2]), np.zeros(1)
    with pytest.raises(ValueError, match="add up to m"):
        Engine(2, 1, pointer, empty, pointer, empty, kinds, sizes, exponents)
    with pytest.raises(ValueError, match="range"):
        Engine(2, 2, pointer, empty, np.array([0, 1, 1]), np.array([5]), kinds, sizes, exponents)
    with pytest.raises(ValueError, match="exponent"):
        Engine(2, 3, pointer, empty, pointer, empty, np.array([6]), np.array([3]), np.array([1.5]))
    engine = Engine(2, 2, pointer, empty, pointer, empty, kinds, sizes, exponents)
    with pytest.raises(ValueError, match="columns"):
        engine.solve(np.zeros((1, 0)), np.zeros((1, 3)), np.zeros((1, 0)), np.zeros((1, 2)), 1)


cones = st.lists(
    st.one_of(
        st.tuples(st.just("z"), st.integers(0, 2)),
        st.tuples(st.just("l"), st.integers(0, 6)),
        st.tuples(st.just("q"), st.integers(0, 6)),
        st.tuples(st.just("s"), st.integers(0, 4)),
        st.tuples(st.sampled_from(["e", "de"]), st.just(0)),
        st.tuples(st.sampled_from(["p", "dp"]), st.floats(0.05, 0.95)),
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=60)
@given(
    cones, st.integers(1, 9), st.integers(1, 10), st.booleans(), st.integers(0, 2**31), st.sampled_from([1e-3, 1, 1e3])
)
def test_random_structures(cones, n, batch, quadratic, seed, scale):
    made = random_batch(np.random.default_rng(seed), n, cones, batch, quadratic, scale=scale)
    result = made.solve()
    assert result["x"].shape == (batch, n) and result["y"].shape == (batch, sum(map(rows_of, cones)))
    assert set(result["status"]) <= set(range(6))
    # Feasible and bounded by construction; rank-deficient ones may stop early but never with a false certificate.
    assert not set(result["status"]) & {Status.PRIMAL_INFEASIBLE, Status.DUAL_INFEASIBLE}
    done = result["status"] == Status.SOLVED
    assert max(result[key][done].max(initial=0) for key in ("primal_residual", "dual_residual")) <= 1e-8

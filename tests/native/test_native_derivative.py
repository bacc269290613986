"""The compiled derivative against dense algebra, central differences, the torch cones and diffcp."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

native = pytest.importorskip("conelayers.native")

from native import native_programs as programs  # noqa: E402
from native.native_programmes import as_int64, cone_arrays, random_batch  # noqa: E402
from native.native_programs import EVERY_CONE, Family, random_family, rows_of, solved  # noqa: E402

CONES = {
    "mixed": EVERY_CONE,
    "qp": ((programs.ZERO, 3, 0.0), (programs.NONNEGATIVE, 12, 0.0)),
    "soc": ((programs.SECOND_ORDER, 6, 0.0),) * 3,
    "bordered": ((programs.SECOND_ORDER, 13, 0.0), (programs.SECOND_ORDER, 4, 0.0), (programs.SECOND_ORDER, 21, 0.0)),
    "psd": ((programs.SEMIDEFINITE, 4, 0.0), (programs.SEMIDEFINITE, 1, 0.0)),
    "exp": ((programs.EXPONENTIAL, 3, 0.0),) * 3 + ((programs.DUAL_EXPONENTIAL, 3, 0.0),) * 2,
    "pow": ((programs.POWER, 3, 0.5), (programs.POWER, 3, 0.2), (programs.DUAL_POWER, 3, 0.8)),
}
# Active blocks so often that the Jacobian is well conditioned, for n somewhat above the number of active rows.
VARIABLES = {name: rows_of(cones) for name, cones in CONES.items()}


@pytest.fixture(params=list(CONES))
def family(request):
    """Thirteen programmes, so that one pack is not full."""
    rng = np.random.default_rng(7)
    return random_family(CONES[request.param], VARIABLES[request.param], 13, rng)


def relative(a, b):
    """Largest difference relative to the largest entry."""
    return np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)


@pytest.mark.parametrize("mu", [0.0, 1e-3, 1.0])
def test_element_is_the_jacobian_of_the_projection(family, mu):
    v = np.random.default_rng(0).standard_normal((13, family.m))
    step = 1e-6
    D = family.dense_D(v, mu)
    project = family.engine.project_dual
    differences = np.stack(
        [(project(v + step * e, mu) - project(v - step * e, mu)) / (2 * step) for e in np.eye(family.m)], axis=2
    )
    assert np.abs(D - differences).max() < 1e-8
    assert np.abs(D - D.transpose(0, 2, 1)).max() < 1e-14
    eigenvalues = np.linalg.eigvalsh(D)
    assert eigenvalues.min() > -1e-14 and eigenvalues.max() < 1 + 1e-14


@pytest.mark.parametrize("mu", [0.0, 0.1])
def test_solution_matches_dense_algebra(family, mu):
    rng = np.random.default_rng(1)
    v = rng.standard_normal((13, family.m))
    r1, r2 = rng.standard_normal((13, 6, family.n)), rng.standard_normal((13, 6, family.m))
    r1[:, 1], r2[:, 1] = 0.0, 0.0
    dx, dv, residual = family.engine.derivative(family.P, family.A, v, r1, r2, mu, threads=2)
    D = family.dense_D(v, mu)
    for item in range(13):
        expected = np.linalg.solve(family.jacobian(item, D[item]), np.concatenate([r1[item], r2[item]], 1).T).T
        assert relative(np.concatenate([dx[item], dv[item]], 1), expected) < 1e-10
    assert residual.max() < 1e-10


@pytest.mark.parametrize("accuracy", [0.0, 1e-5])
def test_probe_measures_the_solution(family, accuracy):
    rng = np.random.default_rng(4)
    point = solved(family, rng.standard_normal((13, family.m)), rng)
    rhs = rng.standard_normal(family.n + family.m)
    length, residual = family.engine.probe(family.P, family.A, point.y, point.s, rhs, accuracy, threads=2)
    D = family.dense_D(point.y - point.s)
    expected = [np.linalg.norm(np.linalg.solve(family.jacobian(item, D[item]), rhs)) for item in range(13)]
    assert np.abs(length / expected - 1).max() < max(1e-9, 100 * accuracy)
    assert residual.max() <= max(1e-10, accuracy)


def test_pullback_matches_dense_transpose(family):
    rng = np.random.default_rng(2)
    v = rng.standard_normal((13, family.m))
    point = solved(family, v, rng)
    gx, gy, gs = (rng.standard_normal((13, k)) for k in (family.n, family.m, family.m))
    out = family.engine.pullback(family.P, family.A, point.x, point.y, point.s, gx, gy, gs)
    D = family.dense_D(v)
    eye = np.eye(family.m)
    A_rows, A_columns = family.A_pattern.indices, np.repeat(np.arange(family.n), np.diff(family.A_pattern.indptr))
    P_rows, P_columns = family.P_pattern.indices, np.repeat(np.arange(family.n), np.diff(family.P_pattern.indptr))
    for item in range(13):
        right = np.concatenate([gx[item], D[item] @ gy[item] + (D[item] - eye) @ gs[item]])
        solution = np.linalg.solve(family.jacobian(item, D[item]).T, right)
        lam, nu = solution[: family.n], solution[family.n :]
        x, y = point.x[item], point.y[item]
        both = lam[P_rows] * x[P_columns] + x[P_rows] * lam[P_columns]
        assert relative(out["dq"][item], -lam) < 1e-10
        assert relative(out["db"][item], nu) < 1e-10
        assert relative(out["dA"][item], -(y[A_rows] * lam[A_columns] + nu[A_rows] * x[A_columns])) < 1e-10
        assert relative(out["dP"][item], -both * np.where(P_rows == P_columns, 0.5, 1.0)) < 1e-10
        assert relative(out["lam"][item], lam) < 1e-10


def test_pullback_matches_central_differences_of_polished_solutions(family):
    rng = np.random.default_rng(3)
    point = solved(family, rng.standard_normal((13, family.m)), rng)
    gx, gy, gs = (rng.standard_normal((13, k)) for k in (family.n, family.m, family.m))
    out = family.engine.pullback(family.P, family.A, point.x, point.y, point.s, gx, gy, gs)
    directions = [rng.standard_normal(a.shape) for a in (family.P, point.q, family.A, point.b)]
    expected = sum((out[k] * d).sum(1) for k, d in zip(("dP", "dq", "dA", "db"), directions, strict=True))
    step = 1e-5
    values = []
    for sign in (1, -1):
        P, q, A, b = (
            np.ascontiguousarray(base + sign * step * direction)
            for base, direction in zip((family.P, point.q, family.A, point.b), directions, strict=True)
        )
        x, y, s, residual, _ = family.engine.polish(P, q, A, b, point.x, point.y, point.s, steps=8)
        values.append((gx * x).sum(1) + (gy * y).sum(1) + (gs * s).sum(1))
        good = residual < 1e-12
        assert good.mean() > 0.9
    differences = (values[0] - values[1]) / (2 * step)
    scale = np.abs(expected).max()
    # Items close to a kink change their active set within the step; there are few, and the others agree closely.
    assert np.median(np.abs(differences - expected)) < 1e-7 * scale
    assert (np.abs(differences - expected) < 1e-6 * scale).mean() > 0.75


def test_pushforward_and_pullback_are_adjoint(family):
    rng = np.random.default_rng(4)
    v = rng.standard_normal((13, family.m))
    point = solved(family, v, rng)
    gx, gy = rng.standard_normal((13, family.n)), rng.standard_normal((13, family.m))
    out = family.engine.pullback(family.P, family.A, point.x, point.y, point.s, gx, gy, np.zeros((1, family.m)))
    dq, db = rng.standard_normal((13, family.n)), rng.standard_normal((13, family.m))
    dx, dv, _ = family.engine.derivative(family.P, family.A, v, -dq[:, None], db[:, None])
    dy = family.engine.apply_D(v, dv)[:, 0]
    forward = (gx * dx[:, 0]).sum(1) + (gy * dy).sum(1)
    backward = (out["dq"] * dq).sum(1) + (out["db"] * db).sum(1)
    assert np.abs(forward - backward).max() < 1e-10 * np.abs(forward).max()


def test_lanes_do_not_touch_each_other(family):
    """Each item alone, in packs, on threads, and beside an item of NaN: the same numbers."""
    rng = np.random.default_rng(5)
    v = rng.standard_normal((13, family.m))
    r1, r2 = rng.standard_normal((13, 5, family.n)), rng.standard_normal((13, 5, family.m))
    together = family.engine.derivative(family.P, family.A, v, r1, r2, threads=3)
    for item in (0, 7, 12):
        one = slice(item, item + 1)
        alone = family.engine.derivative(family.P[one], family.A[one], v[one], r1[one], r2[one])
        assert relative(together[0][one], alone[0]) < 1e-11
        assert relative(together[1][one], alone[1]) < 1e-11
    reversed_items = family.engine.derivative(*(np.ascontiguousarray(a[::-1]) for a in (family.P, family.A, v, r1, r2)))
    for a, b in zip(together, reversed_items, strict=True):
        assert np.array_equal(a, b[::-1])
    A = family.A.copy()
    A[3] = np.nan
    beside = family.engine.derivative(family.P, A, v, r1, r2)
    others = np.arange(13) != 3
    assert relative(beside[0][others], together[0][others]) < 1e-11
    assert np.isnan(beside[0][3]).all() and np.isnan(beside[2][3]).all()


def test_shared_values_broadcast(family):
    rng = np.random.default_rng(6)
    v = rng.standard_normal((4, family.m))
    r1, r2 = rng.standard_normal((4, 1, family.n)), rng.standard_normal((4, 1, family.m))
    P, A = family.P[:1], family.A[:1]
    shared = family.engine.derivative(P, A, v, r1, r2)
    tiled = family.engine.derivative(np.tile(P, (4, 1)), np.tile(A, (4, 1)), v, r1, r2)
    for a, b in zip(shared, tiled, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("noise, steps", [(1e-8, 1), (1e-6, 3)])
def test_polish_reaches_machine_precision(family, noise, steps):
    rng = np.random.default_rng(8)
    point = solved(family, rng.standard_normal((13, family.m)), rng)
    start = [a + noise * rng.standard_normal(a.shape) for a in (point.x, point.y, point.s)]
    x, y, s, residual, _ = family.engine.polish(family.P, point.q, family.A, point.b, *start, steps)
    assert residual.max() < 1e-13
    assert relative(x, point.x) < 1e-11 and relative(s, point.s) < 1e-11
    again = family.engine.polish(family.P, point.q, family.A, point.b, x, y, s, steps=0)
    assert np.array_equal(again[0], x) and again[3].max() < 1e-13


def test_polish_never_makes_worse(family):
    rng = np.random.default_rng(9)
    point = solved(family, rng.standard_normal((13, family.m)), rng)
    start = [a + 0.5 * rng.standard_normal(a.shape) for a in (point.x, point.y, point.s)]
    before = family.engine.polish(family.P, point.q, family.A, point.b, *start, steps=0)[3]
    after = family.engine.polish(family.P, point.q, family.A, point.b, *start, steps=2)[3]
    assert (after <= before).all()


def test_singular_consistent_system():
    """min (x - c)^2 / 2 + t free below its bound: |x| <= t, t <= d inactive; t is undetermined, x = c is not."""
    A = sp.csc_matrix(np.array([[0.0, -1.0], [-1.0, 0.0], [0.0, 1.0]]))
    P = sp.csc_matrix(np.array([[1.0, 0.0], [0.0, 0.0]]))
    P.eliminate_zeros()
    cones = ((programs.SECOND_ORDER, 2, 0.0), (programs.NONNEGATIVE, 1, 0.0))
    family = Family(2, cones, P, A, P.data[None], A.data[None])
    x = np.array([[0.3, 1.0]])
    s = np.array([[1.0, 0.3, 4.0]])  # |x| < t < d
    y = np.zeros((1, 3))
    assert np.linalg.matrix_rank(family.jacobian(0, family.dense_D(y - s)[0])) < 5
    gx = np.array([[1.0, 0.0]])
    out = family.engine.pullback(family.P, family.A, x, y, s, gx, np.zeros((1, 3)), np.zeros((1, 3)))
    assert out["residual"][0] < 1e-12
    assert np.allclose(out["dq"], [[-1.0, 0.0]], rtol=0, atol=1e-7)
    assert np.allclose(out["lam"], [[1.0, 0.0]], rtol=0, atol=1e-7)
    x2, _, _, residual, _ = family.engine.polish(
        family.P, np.array([[-0.4, 0.0]]), family.A, np.array([[0.0, 0.0, 5.0]]), x, y, s, steps=2
    )
    assert residual[0] < 1e-12 and abs(x2[0, 0] - 0.4) < 1e-9 and abs(x2[0, 1] - 1.0) < 1e-6


# Where v lies, as t / |w|: inside K and -K, between, and a little off both boundaries.
PLACES = [3.0, -3.0, 0.0, 0.99, -0.99, *(side * (1 + off) for side in (1, -1) for off in (-1e-6, 1e-6, -1e-10, 1e-10))]


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("rows", [60, 400])
def test_large_cones_on_faces_and_beside_them(rows, scale):
    """Systems of a large second-order cone and a small one, where v is near the large one's faces or its apex."""
    rng = np.random.default_rng(4)
    cones, n = ((programs.SECOND_ORDER, rows, 0.0), (programs.SECOND_ORDER, 3, 0.0)), 12
    family = random_family(cones, n, len(PLACES) + 1, rng)
    v = scale * rng.standard_normal((len(PLACES) + 1, family.m))
    for i, place in enumerate(PLACES):
        v[i, 0] = place * np.linalg.norm(v[i, 1:rows])
    v[-1, :rows] = 0.0
    z = rng.standard_normal((len(v), 5, n + family.m))
    D = family.dense_D(v)
    rhs = np.stack([z[i] @ family.jacobian(i, D[i]).T for i in range(len(v))])
    dx, dv, residual = family.engine.derivative(
        family.P, family.A, v, *(np.ascontiguousarray(part) for part in np.split(rhs, [n], axis=2))
    )
    assert residual.max() < 1e-9
    regular = np.array([*(place < 0.995 for place in PLACES), True])  # inside K all rows of the cone would be equations
    np.testing.assert_allclose(dx[regular], z[regular, :, :n], atol=1e-7)
    np.testing.assert_allclose(dv[regular], z[regular, :, n:], atol=1e-6)


def test_work_grows_with_the_rows_of_a_cone_and_not_with_their_square():
    empty = sp.csc_matrix((300, 300))
    fills = []
    for copies in (1, 3):
        rows, n = 100 * copies, 100 * copies
        cones = ((programs.SECOND_ORDER, rows + 1, 0.0), (programs.NONNEGATIVE, n, 0.0))
        A = sp.csc_matrix(sp.vstack([sp.csc_matrix((1, n)), sp.eye_array(n), sp.eye_array(n)]))
        family = Family(n, cones, empty[:n, :n], A, np.zeros((1, 0)), A.data[None])
        fills.append(family.engine.fill)
    assert fills[0] < 10 * 100 and fills[1] < 3.1 * fills[0]


@pytest.mark.parametrize("spread", [1e-4, 1e4])
def test_badly_scaled_rows_and_columns(spread):
    rng = np.random.default_rng(10)
    cones = CONES["qp"]
    base = random_family(cones, VARIABLES["qp"], 5, rng)
    column = spread ** rng.uniform(-1, 1, base.n)
    row = spread ** rng.uniform(-1, 1, base.m)
    A_rows, A_columns = base.A_pattern.indices, np.repeat(np.arange(base.n), np.diff(base.A_pattern.indptr))
    P_rows, P_columns = base.P_pattern.indices, np.repeat(np.arange(base.n), np.diff(base.P_pattern.indptr))
    P = np.ascontiguousarray(base.P * column[P_rows] * column[P_columns])
    A = np.ascontiguousarray(base.A * row[A_rows] * column[A_columns])
    v = rng.standard_normal((5, base.m))  # signs decide D, which row scales do not change
    r1, r2 = rng.standard_normal((5, 1, base.n)), rng.standard_normal((5, 1, base.m))
    plain = base.engine.derivative(base.P, base.A, v, r1, r2)
    scaled = base.engine.derivative(P, A, v, np.ascontiguousarray(r1 * column), np.ascontiguousarray(r2 * row))
    assert scaled[2].max() < 1e-10
    # dx = dx0 / column; as D is 0 or 1, dv = row * dv0 where it moves s (D = 0) and dv0 / row where it moves y (D = 1).
    D = v > 0
    D[:, :3] = True  # the zero cone
    assert relative(scaled[0] * column, plain[0]) < 1e-9
    expected = np.where(D[:, None], plain[1] / row, plain[1] * row)
    assert np.abs((scaled[1] - expected) / np.abs(expected).max(axis=(0, 1))).max() < 1e-8


def test_agrees_with_torch_cones(family):
    cones = pytest.importorskip("conelayers.cones")
    makers = {
        programs.ZERO: lambda d, a: cones.Zero(d),
        programs.NONNEGATIVE: lambda d, a: cones.Nonnegative(d),
        programs.SECOND_ORDER: lambda d, a: cones.SecondOrder(d),
        programs.SEMIDEFINITE: lambda d, a: cones.PositiveSemidefinite(d),
        programs.EXPONENTIAL: lambda d, a: cones.Exponential(),
        programs.DUAL_EXPONENTIAL: lambda d, a: cones.DualExponential(),
        programs.POWER: lambda d, a: cones.Power(a),
        programs.DUAL_POWER: lambda d, a: cones.DualPower(a),
        programs.FREE: lambda d, a: cones.Free(d),
    }
    product = cones.ProductCone([makers[kind](size, exponent) for kind, size, exponent in family.cones])
    v = np.random.default_rng(11).standard_normal((13, family.m))
    for mu in (None, 0.1):
        native_mu = 0.0 if mu is None else mu
        expected = product.project_dual(torch.from_numpy(v), mu=mu).numpy()
        assert relative(family.engine.project_dual(v, native_mu), expected) < 1e-12
        matrix = product.dual_derivative(torch.from_numpy(v), mu=mu).matrix().numpy()
        assert np.abs(family.dense_D(v, native_mu) - matrix).max() < 1e-11


def test_diffcp_dense_mode():
    """An independent method: the homogeneous embedding, differentiated densely, at SCS accuracy 1e-9."""
    diffcp = pytest.importorskip("diffcp")
    rng = np.random.default_rng(12)
    n = 6
    cones = (
        (programs.ZERO, 2, 0.0),
        (programs.NONNEGATIVE, 12, 0.0),
        (programs.SECOND_ORDER, 4, 0.0),
        (programs.SEMIDEFINITE, 3, 0.0),
        (programs.EXPONENTIAL, 3, 0.0),
    )
    m = rows_of(cones)
    A = rng.standard_normal((m, n))
    A[2:14] = np.concatenate([np.eye(n), -np.eye(n)])  # a box, so that the programme is bounded
    x0 = 0.2 * rng.standard_normal(n)
    inside = np.concatenate([np.zeros(2), 4 * np.ones(12), [1, 0, 0, 0], [1, 0, 0, 1, 0, 1], [-1.05, 0.56, 1.26]])
    b, c = A @ x0 + inside, rng.standard_normal(n)
    sparse = sp.csc_matrix(A)
    dims = {"z": 2, "l": 12, "q": [4], "s": [3], "ep": 1}
    x, y, s, _, adjoint = diffcp.solve_and_derivative(
        sparse.copy(), b.copy(), c.copy(), dims, solve_method="SCS", eps=1e-9, mode="dense", max_iters=200000
    )
    pattern = sparse.copy()
    pattern.sort_indices()
    empty = sp.csc_matrix((n, n))
    family = Family(n, cones, empty, pattern, np.zeros((1, 0)), pattern.data[None].copy())
    x, y, s, residual, _ = family.engine.polish(
        family.P, c[None], family.A, b[None], *(np.ascontiguousarray(a[None]) for a in (x, y, s)), steps=3
    )
    assert residual[0] < 1e-13
    assert np.abs(y).max(axis=0)[14:].min() > 1e-4  # every curved cone is active
    gx, gy, gs = rng.standard_normal((1, n)), rng.standard_normal((1, m)), rng.standard_normal((1, m))
    dA, db, dc = adjoint(gx[0], gy[0], gs[0])
    out = family.engine.pullback(family.P, family.A, x, y, s, gx, gy, gs)
    assert relative(out["dq"][0], dc) < 1e-6
    assert relative(out["db"][0], db) < 1e-6
    by_columns = sp.csc_matrix(dA).toarray()[pattern.indices, np.repeat(np.arange(n), np.diff(pattern.indptr))]
    assert relative(out["dA"][0], by_columns) < 1e-6


@pytest.mark.parametrize("rows, n", [(0, 3), (2, 0), (0, 0)])
def test_empty_parts(rows, n):
    rng = np.random.default_rng(13)
    family = random_family(((programs.NONNEGATIVE, rows, 0.0),), n, 3, rng)
    v = -rng.random((3, rows))
    r1, r2 = rng.standard_normal((3, 2, n)), rng.standard_normal((3, 2, rows))
    dx, dv, residual = family.engine.derivative(family.P, family.A, v, r1, r2)
    assert dx.shape == (3, 2, n) and dv.shape == (3, 2, rows) and np.isfinite(dx).all() and np.isfinite(dv).all()
    assert residual.max(initial=0.0) < 1e-12


def test_arguments_are_checked():
    rng = np.random.default_rng(14)
    family = random_family(CONES["qp"], 4, 2, rng)
    v = np.zeros((2, family.m))
    r1, r2 = np.zeros((2, 1, family.n)), np.zeros((2, 1, family.m))
    with pytest.raises(ValueError, match="r2"):
        family.engine.derivative(family.P, family.A, v, r1, r2[:, :, 1:].copy())
    with pytest.raises(ValueError, match="P must have shape"):
        family.engine.derivative(family.P[:, 1:].copy(), family.A, v, r1, r2)
    with pytest.raises(ValueError, match="mu"):
        family.engine.derivative(family.P, family.A, v, r1, r2, -1.0)
    integers = [np.zeros(k, dtype=np.int64) for k in (1, 0, 1, 0)]
    with pytest.raises(ValueError, match="add up to m"):
        native.Differentiator(0, 3, *integers, np.array([1]), np.array([2]), np.array([0.0]))
    with pytest.raises(ValueError, match="power"):
        native.Differentiator(0, 3, *integers, np.array([6]), np.array([3]), np.array([1.5]))


def test_inputs_are_not_changed():
    rng = np.random.default_rng(15)
    family = random_family(CONES["mixed"], 20, 3, rng)
    point = solved(family, rng.standard_normal((3, family.m)), rng)
    arrays = [family.P, family.A, point.x, point.y, point.s, point.x.copy(), point.y.copy(), point.s.copy()]
    copies = [a.copy() for a in arrays]
    family.engine.pullback(*arrays)
    family.engine.polish(family.P, point.q, family.A, point.b, point.x, point.y, point.s)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, copies, strict=True))


def test_an_order_that_the_engine_found_serves_the_derivative():
    cones = [("z", 2), ("l", 4), ("q", 15), ("s", 3), ("e", 0)]
    batch = random_batch(np.random.default_rng(0), 40, cones, 1).strengthened()
    m, n = batch.A_pattern.shape
    patterns = [as_int64(v) for M in (batch.P_pattern, batch.A_pattern) for v in (M.indptr, M.indices)]
    structure = (n, m, *patterns, *cone_arrays(batch.cones))
    order = batch.engine().order
    own, shared = native.Differentiator(*structure), native.Differentiator(*structure, order=order)
    assert sorted(order) == list(range(n + m + 2))  # two more rows border the large cone
    assert (own.fill, own.flops) == (shared.fill, shared.flops)
    v, r1, r2 = np.linspace(-1, 1, m)[None], np.ones((1, 1, n)), np.ones((1, 1, m))
    for a, b in zip(own.derivative(batch.P, batch.A, v, r1, r2), shared.derivative(batch.P, batch.A, v, r1, r2)):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    for wrong in (order[:-1], np.zeros_like(order), order + 1):
        with pytest.raises(ValueError, match="order"):
            native.Differentiator(*structure, order=wrong)

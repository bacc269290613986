"""Support functions against maximisations written by hand, derivatives against differences, and refusals."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer, SolveError
from conelayers.errors import InvalidArgument
from conelayers.uncertainty import Box, CrossPolytope, Ellipsoid, Polyhedron

N = 3
RNG = np.random.default_rng(0)
CENTER, MATRIX = 0.3 * RNG.standard_normal(N), RNG.standard_normal((N, N))
THIN = RNG.standard_normal((N, 2))
LHS = np.vstack([np.eye(N), -np.eye(N), RNG.standard_normal((4, N))])
RHS = np.concatenate([1.5 * np.ones(2 * N), np.ones(4)])
DIRECTIONS = RNG.standard_normal((4, N))
TIGHT = {"solver": cp.CLARABEL, "tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}


def ball(u, center, matrix, p):
    z = cp.Variable(matrix.shape[1])
    return [u == center + matrix @ z, cp.norm(z, p) <= 1]


def summed(first, second):
    def holds(u):
        v = cp.Variable(N)
        return first(u - v) + second(v)

    return holds


def in_box(u):
    return [cp.abs(u - CENTER) <= np.array([0.5, 1.0, 2.0])]


def in_polyhedron(u):
    return [LHS @ u <= RHS]


SETS = {
    "ellipsoid": (Ellipsoid(CENTER, MATRIX), lambda u: ball(u, CENTER, MATRIX, 2)),
    "thin ellipsoid": (Ellipsoid(CENTER, THIN), lambda u: ball(u, CENTER, THIN, 2)),
    "box": (Box(CENTER, np.array([0.5, 1.0, 2.0])), in_box),
    "parallelepiped": (Box(CENTER, MATRIX), lambda u: ball(u, CENTER, MATRIX, "inf")),
    "cross-polytope": (CrossPolytope(CENTER, 0.7), lambda u: [cp.norm(u - CENTER, 1) <= 0.7]),
    "polyhedron": (Polyhedron(LHS, RHS), in_polyhedron),
    "budget": (
        Box(CENTER, MATRIX) & CrossPolytope(CENTER, 1.5 * MATRIX),
        lambda u: [cp.norm(np.linalg.inv(MATRIX) @ (u - CENTER), p) <= size for p, size in (("inf", 1), (1, 1.5))],
    ),
    "intersection": (
        Ellipsoid(CENTER, MATRIX) & Polyhedron(LHS, RHS),
        lambda u: ball(u, CENTER, MATRIX, 2) + in_polyhedron(u),
    ),
    "sum": (
        Box(CENTER, np.array([0.5, 1.0, 2.0])) + Polyhedron(LHS, RHS),
        summed(in_box, in_polyhedron),
    ),
    "sum of an intersection": (
        (Box(CENTER, np.array([0.5, 1.0, 2.0])) & Polyhedron(LHS, RHS)) + Ellipsoid(CENTER, 0.5),
        summed(lambda u: in_box(u) + in_polyhedron(u), lambda u: [cp.norm(u - CENTER) <= 0.5]),
    ),
}


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("name", SETS)
def test_support_is_the_maximum_and_its_gradient_the_worst_case(name):
    chosen, holds = SETS[name]
    bound, g = cp.Variable(len(DIRECTIONS)), cp.Parameter(DIRECTIONS.shape)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum(bound)), [chosen.support(g) <= bound]), [g], [bound])
    rows = torch.tensor(DIRECTIONS, requires_grad=True)
    (values,) = layer(rows)
    u = cp.Variable(N)
    expected = [cp.Problem(cp.Maximize(row @ u), holds(u)).solve(**TIGHT) for row in DIRECTIONS]
    np.testing.assert_allclose(values.detach(), expected, rtol=0, atol=1e-9)
    worst = chosen.worst_case(DIRECTIONS)
    np.testing.assert_allclose((worst * DIRECTIONS).sum(1), expected, rtol=0, atol=1e-9)
    values.sum().backward()
    np.testing.assert_allclose(rows.grad, worst, rtol=0, atol=1e-6)
    assert chosen.support(DIRECTIONS[0]).shape == ()


def parametric_sets():
    center, shape, rhs = cp.Parameter(N), cp.Parameter((N, N)), cp.Parameter(len(RHS))
    data = {center: CENTER, shape: MATRIX, rhs: RHS}
    return {
        "ellipsoid": Ellipsoid(center, shape),
        "box": Box(center, shape),
        "cross-polytope": CrossPolytope(center, shape),
        "diagonal": Ellipsoid(center, cp.diag(shape)),
        "polyhedron": Polyhedron(LHS, rhs),
        "intersection": Ellipsoid(center, shape) & Polyhedron(LHS, rhs),
        "sum": Ellipsoid(center, shape) + Box(np.zeros(N), 0.3),
    }, data


@pytest.mark.parametrize("name", parametric_sets()[0])
def test_gradients_in_data_and_prices(name):
    sets, data = parametric_sets()
    chosen = sets[name]
    x, bound, price, aim = cp.Variable(N), cp.Variable(), cp.Parameter(N), cp.Parameter(N)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x - aim) + bound), [chosen.support(cp.multiply(price, x) + price) <= bound]
    )
    used = [p for p in data if any(p is q for q in problem.parameters())]
    layer = CvxpyLayer(problem, [price, aim, *used], [x, bound])
    values = [np.array([1.0, 0.7, 1.3]), np.array([1.0, -0.6, 0.4]), *(data[p] for p in used)]
    tensors = [torch.tensor(value, requires_grad=True) for value in values]
    assert torch.autograd.gradcheck(lambda *t: layer(*t), tensors, eps=1e-5, atol=1e-5, rtol=1e-4)

    # What the decision is hedged against, found by a separate maximisation, costs what the bound says.
    decision, worst = (value.detach().numpy() for value in layer(*tensors))
    for parameter, value in zip([price, aim, *used], values, strict=True):
        parameter.value = value
    x.value = decision
    slope = cp.multiply(price, x) + price
    assert chosen.worst_case(slope) @ slope.value == pytest.approx(float(worst), abs=1e-7)


def test_prices_alone_as_the_coefficient_of_a_trained_set():
    sets, data = parametric_sets()
    price, bound = cp.Parameter(N), cp.Variable()
    problem = cp.Problem(cp.Minimize(bound), [sets["ellipsoid"].support(price) <= bound])
    center, shape = (p for p in data if any(p is q for q in problem.parameters()))
    layer = CvxpyLayer(problem, [price, center, shape], [bound])
    p, c, S = (torch.tensor(v, requires_grad=True) for v in (DIRECTIONS[0], CENTER, MATRIX))
    (value,) = layer(p, c, S)
    torch.testing.assert_close(value, p @ c + (S.mT @ p).norm(), rtol=0, atol=1e-9)
    found = torch.autograd.grad(value, (p, c, S))
    expected = torch.autograd.grad(p @ c + (S.mT @ p).norm(), (p, c, S))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_affine_decision_rules_are_rows():
    # x(u) = x0 + X1 u with A x(u) + B u <= 1 for all u, against the constraint at the corners of the box.
    A, B, rng = RNG.standard_normal((2, 2)), RNG.standard_normal((2, 2)), np.random.default_rng(3)
    x0, X1 = cp.Variable(2), cp.Variable((2, 2))
    box = Box(np.zeros(2), 1.0)
    aim = cp.sum_squares(x0 - rng.standard_normal(2)) + cp.sum_squares(X1 - rng.standard_normal((2, 2)))
    value = cp.Problem(cp.Minimize(aim), [box.support(A @ X1 + B) + A @ x0 <= 1]).solve(**TIGHT)
    corners = [np.array([i, j]) for i in (-1, 1) for j in (-1, 1)]
    expected = cp.Problem(cp.Minimize(aim), [A @ (x0 + X1 @ u) + B @ u <= 1 for u in corners]).solve(**TIGHT)
    assert value == pytest.approx(expected, abs=1e-9)


def test_radius_zero_is_a_kink():
    mu, x, r = np.array([-1.0, 0.3, 0.8]), cp.Variable(N), cp.Parameter()
    objective = mu @ x + Ellipsoid(np.zeros(N), r).support(x) + cp.sum_squares(x) / 2
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective)), [r], [x])
    radius = torch.tensor([0.0, 0.3, -0.3], requires_grad=True)
    (solution,) = layer(radius)
    torch.testing.assert_close(solution[1], solution[2])  # the set is that of |r|
    (slope,) = torch.autograd.grad(solution[:, 0].sum(), radius)
    assert slope[0] == pytest.approx(-1 / np.linalg.norm(mu) * np.sign(-mu[0]), abs=1e-6)  # as the radius grows
    assert not layer.solve(radius[0].detach()).regularity().regular  # and the certificate says so
    assert slope[1] == pytest.approx(-1 / np.linalg.norm(mu), abs=1e-7)
    assert slope[2] == pytest.approx(1 / np.linalg.norm(mu), abs=1e-7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Ellipsoid(np.zeros(3), np.eye(2)), ["Ellipsoid", "(3,)", "(2, 2)"]),
        (lambda: Box(np.zeros(3), np.ones(2), name="demand"), ["demand", "(2,)"]),
        (lambda: Ellipsoid(0.0, 1.0), ["Ellipsoid", "center"]),
        (lambda: Ellipsoid(np.zeros(2), np.zeros((2, 0))), ["Ellipsoid", "(2, 0)"]),
        (lambda: Ellipsoid(np.zeros(3), -0.1, name="loss"), ["loss", "nonnegative"]),
        (lambda: CrossPolytope(np.zeros(2), np.array([1.0, -1.0])), ["CrossPolytope", "nonnegative"]),
        (lambda: Box(np.zeros(2), np.nan), ["Box", "finite"]),
        (lambda: Box(cp.Variable(2), 1.0), ["Box: center", "variables"]),
        (lambda: Ellipsoid(np.zeros(2), cp.Parameter() * cp.Parameter((2, 2))), ["shape", "affine in its parameters"]),
        (lambda: Ellipsoid(torch.zeros(2, requires_grad=True), 1.0), ["center", "cp.Parameter"]),
        (lambda: Polyhedron(np.eye(2), np.ones(3)), ["Polyhedron", "(2, 2)", "(3,)"]),
        (lambda: Polyhedron(np.array([[1.0], [-1.0]]), np.array([0.0, -1.0]), name="range"), ["range", "empty"]),
        (lambda: Box(np.zeros(2), 1.0, name="near") & Box(5 * np.ones(2), 1.0, name="far"), ["near & far", "empty"]),
        (lambda: Box(np.zeros(2), 1.0) + Box(np.zeros(3), 1.0), ["same dimension", "2 and 3"]),
        (lambda: Box(np.zeros(2), 1.0).support(cp.Variable(3)), ["Box(dim=2)", "(3,)"]),
        (lambda: Box(np.zeros(2), 1.0).support(cp.square(cp.Variable(2))), ["Box(dim=2)", "affine"]),
        (lambda: Box(np.zeros(2), 1.0).worst_case(cp.Variable(2)), ["no value"]),
        (lambda: Polyhedron(-np.eye(2), np.zeros(2), name="orthant").worst_case([1.0, 0.0]), ["orthant", "unbounded"]),
    ],
)
def test_refusals_name_the_set(make, words):
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_empty_set_of_parameters_shows_as_unbounded_and_check_names_it():
    center, x, bound = cp.Parameter(2), cp.Variable(2), cp.Variable()
    demand = Box(center, 0.5, name="forecast") & Polyhedron(-np.eye(2), np.zeros(2), name="orthant")
    problem = cp.Problem(cp.Minimize(bound + cp.sum_squares(x)), [demand.support(x - 1) <= bound])
    centers = torch.tensor([[1.0, 1.0], [-2.0, 1.0]])
    with pytest.raises(SolveError, match="1: DUAL_INFEASIBLE"):
        CvxpyLayer(problem, [center], [x])(centers)
    (solution,) = CvxpyLayer(problem, [center], [x], on_failure="nan")(centers)
    assert solution[0].isfinite().all() and solution[1].isnan().all()
    center.value = centers[0].numpy()
    demand.check()
    center.value = centers[1].numpy()
    for question in (demand.check, lambda: demand.worst_case([1.0, 1.0])):
        with pytest.raises(InvalidArgument, match=r"forecast & orthant.*empty"):
            question()


def test_an_empty_parametric_set_is_named_where_the_problem_fails():
    center, x = cp.Parameter(2), cp.Variable(2)
    demand = Box(center, 0.5, name="forecast") & Polyhedron(-np.eye(2), np.zeros(2), name="orthant")
    problem = cp.Problem(cp.Minimize(demand.support(x) + cp.sum_squares(x - 1)), [x >= 0])
    layer = CvxpyLayer(problem, [center], [x])
    with pytest.raises(SolveError, match="forecast & orthant"):
        layer(torch.tensor([-3.0, -3.0]))

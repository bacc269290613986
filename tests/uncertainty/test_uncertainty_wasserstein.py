"""Worst-case means against the programmes of Mohajerin Esfahani and Kuhn, primal and dual, and against transports."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.errors import InvalidArgument
from conelayers.uncertainty import Box, CrossPolytope, Ellipsoid, Polyhedron, worst_case_mean

RNG = np.random.default_rng(0)
COUNT, N, RADIUS = 12, 3, 0.4
SAMPLES = RNG.uniform(-0.9, 0.9, (COUNT, N))
SLOPES, OFFSETS = RNG.standard_normal((3, N)), RNG.standard_normal(3)
PIECES = list(zip(SLOPES, OFFSETS, strict=True))
LHS, RHS = np.vstack([np.eye(N), -np.eye(N)]), np.ones(2 * N)
OUTCOMES = Polyhedron(LHS, RHS)
DUAL_NORM = {Ellipsoid: 2, Box: 1, CrossPolytope: "inf"}
NORM = {Ellipsoid: 2, Box: np.inf, CrossPolytope: 1}
TIGHT = {"solver": cp.CLARABEL, "tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}

pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


def layer_value(pieces, moves, outcomes=None):
    radius, bound = cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(bound), [worst_case_mean(pieces, SAMPLES, moves(radius), outcomes) <= bound])
    return CvxpyLayer(problem, [radius], [bound])


def around_zero(kind):
    return lambda radius: kind(np.zeros(N), radius)


def written_out(kind):
    """Their corollary 5.1, equation by equation."""
    price, excess = cp.Variable(), cp.Variable(COUNT)
    constraints = []
    for slope, offset in PIECES:
        for i, sample in enumerate(SAMPLES):
            gamma = cp.Variable(len(RHS), nonneg=True)
            constraints += [
                offset + slope @ sample + gamma @ (RHS - LHS @ sample) <= excess[i],
                cp.norm(LHS.T @ gamma - slope, DUAL_NORM[kind]) <= price,
            ]
    return cp.Problem(cp.Minimize(price * RADIUS + cp.sum(excess) / COUNT), constraints).solve(**TIGHT)


def worst_distribution(kind):
    """Their theorem 4.4: masses alpha_ik that leave sample i for piece k, and alpha_ik times their moves."""
    mass, moved = [cp.Variable((COUNT, 1), nonneg=True) for _ in PIECES], [cp.Variable((COUNT, N)) for _ in PIECES]
    points = [cp.multiply(alpha @ np.ones((1, N)), SAMPLES) + move for alpha, move in zip(mass, moved, strict=True)]
    earned = sum(
        cp.sum(point @ slope) + offset * cp.sum(alpha)
        for alpha, point, (slope, offset) in zip(mass, points, PIECES, strict=True)
    )
    cost = sum(cp.sum(cp.norm(move, NORM[kind], axis=1)) for move in moved) / COUNT
    within = [cp.abs(point) <= alpha @ np.ones((1, N)) for alpha, point in zip(mass, points, strict=True)]
    return cp.Problem(cp.Maximize(earned / COUNT), [sum(mass) == 1, cost <= RADIUS, *within]).solve(**TIGHT)


@pytest.mark.parametrize("kind", DUAL_NORM)
def test_bounded_outcomes(kind):
    value = float(layer_value(PIECES, around_zero(kind), OUTCOMES)(torch.tensor(RADIUS))[0])
    assert value == pytest.approx(written_out(kind), abs=1e-8)
    assert value == pytest.approx(worst_distribution(kind), abs=1e-8)


@pytest.mark.parametrize("kind", DUAL_NORM)
def test_transports_stay_below_and_reach_the_bound(kind):
    def mean(points, weights):
        return (weights * (points @ SLOPES.T + OFFSETS).max(-1)).sum()

    value = float(layer_value(PIECES, around_zero(kind))(torch.tensor(RADIUS))[0])
    rng = np.random.default_rng(1)
    largest = -np.inf
    for _ in range(1000):
        parts = rng.integers(1, 4)
        weights = rng.dirichlet(np.full(parts, 0.5), COUNT) / COUNT
        moves = rng.standard_normal((COUNT, parts, N)) * rng.pareto(1.0, (COUNT, parts, 1))
        moves *= RADIUS / (weights * np.linalg.norm(moves, NORM[kind], axis=-1)).sum()
        largest = max(largest, mean(SAMPLES[:, None] + moves, weights))
    assert largest <= value + 1e-6
    steepest = max(SLOPES, key=lambda slope: kind(np.zeros(N), 1.0).support(slope).value)
    far, mass = kind(np.zeros(N), RADIUS).worst_case(steepest), 1e-8
    points = np.vstack([SAMPLES, SAMPLES[0] + far / mass])
    weights = np.concatenate([[1 / COUNT - mass], np.full(COUNT - 1, 1 / COUNT), [mass]])
    assert mean(points, weights) == pytest.approx(value, abs=1e-6)


def test_gradients_in_radius_prices_and_samples():
    x, price, radius, samples = cp.Variable(N), cp.Parameter(N), cp.Parameter(), cp.Parameter((COUNT, N))
    tail = cp.Variable()
    slope = cp.multiply(price, x) + price
    worst = worst_case_mean([(5 * slope, -5 * tail), (0, 0)], samples, Ellipsoid(np.zeros(N), radius)) + tail
    layer = CvxpyLayer(cp.Problem(cp.Minimize(worst + cp.sum_squares(x))), [price, radius, samples], [x])
    values = [torch.tensor(v, requires_grad=True) for v in (np.array([1.0, 0.7, -0.8]), 0.1, SAMPLES)]
    assert torch.autograd.gradcheck(lambda *v: layer(*v)[0], values, eps=1e-5, atol=1e-5, rtol=1e-4)


def test_trained_outcomes_and_moves_are_one_problem():
    radius, rhs, bound = cp.Parameter(), cp.Parameter(2 * N), cp.Variable()
    worst = worst_case_mean(PIECES, SAMPLES, Box(np.zeros(N), radius), Polyhedron(LHS, rhs))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(bound), [worst <= bound]), [radius, rhs], [bound])
    values = [torch.tensor(RADIUS, requires_grad=True), torch.tensor(RHS, requires_grad=True)]
    assert float(layer(*values)[0].detach()) == pytest.approx(written_out(Box), abs=1e-8)
    assert torch.autograd.gradcheck(lambda *v: layer(*v)[0], values, eps=1e-5, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: worst_case_mean(PIECES, SAMPLES, Box(np.zeros(2), 1.0)), ["moves", "Box(dim=2)", "3"]),
        (lambda: worst_case_mean(PIECES, SAMPLES, Box(5 * np.ones(N), 1.0, name="far")), ["far", "contain 0"]),
        (lambda: worst_case_mean(PIECES, SAMPLES, 0.1), ["moves", "UncertaintySet"]),
        (lambda: worst_case_mean([], SAMPLES, Box(np.zeros(N), 1.0)), ["at least one"]),
        (lambda: worst_case_mean([(np.ones(2), 0)], SAMPLES, Box(np.zeros(N), 1.0)), ["pieces[0]: a", "(3,)"]),
        (lambda: worst_case_mean([(0, np.ones(2))], SAMPLES, Box(np.zeros(N), 1.0)), ["pieces[0]: b", "scalar"]),
        (lambda: worst_case_mean(PIECES, SAMPLES[0], Box(np.zeros(N), 1.0)), ["samples", "(N, n)"]),
        (
            lambda: worst_case_mean(PIECES, 2 * SAMPLES, Box(np.zeros(N), 1.0), Box(np.zeros(N), 1.0, name="possible")),
            ["outcomes", "possible", "samples"],
        ),
    ],
)
def test_refusals(make, words):
    with pytest.raises(InvalidArgument) as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value

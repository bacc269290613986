"""The recipes of the page on uncertainty sets, against what they claim to be."""

import cvxpy as cp
import numpy as np
import pytest
from scipy.stats import norm

from conelayers.uncertainty import Ellipsoid, worst_case_mean

COUNT, RADIUS = 20, 0.1
LOSSES = np.random.default_rng(0).standard_normal(COUNT)
TIGHT = {"solver": cp.CLARABEL, "tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11}

pytestmark = pytest.mark.filterwarnings("ignore:Solution may be inaccurate")


def test_divergences_are_the_worst_weights():
    q, eta = cp.Variable(COUNT, nonneg=True), cp.Variable()
    t, lam, e, u = cp.Variable(), cp.Variable(nonneg=True), cp.Variable(COUNT), cp.Variable(COUNT)
    chi2 = cp.Problem(cp.Minimize(eta + np.sqrt(1 + RADIUS) * cp.norm(cp.pos(LOSSES - eta)) / np.sqrt(COUNT)))
    kl = cp.Problem(
        cp.Minimize(t + RADIUS * lam),
        [cp.ExpCone(u - t, lam * np.ones(COUNT), e), u >= LOSSES, cp.sum(e) / COUNT <= lam],
    )
    balls = {
        chi2: cp.sum_squares(COUNT * q) / COUNT - 1 <= RADIUS,
        kl: cp.sum(cp.kl_div(q, np.full(COUNT, 1 / COUNT))) <= RADIUS,
    }
    for problem, ball in balls.items():
        expected = cp.Problem(cp.Maximize(LOSSES @ q), [cp.sum(q) == 1, ball]).solve(**TIGHT)
        assert problem.solve(**TIGHT) == pytest.approx(expected, abs=1e-7)


def test_chance_constraints_hold_with_their_probability():
    rng = np.random.default_rng(1)
    center, shape, eta, a = rng.standard_normal(3), rng.standard_normal((3, 3)), 0.05, rng.standard_normal(3)
    bound = Ellipsoid(center, norm.ppf(1 - eta) * shape).support(a).value
    assert norm.sf(bound, a @ center, np.linalg.norm(shape.T @ a)) == pytest.approx(eta, abs=1e-9)
    # Cantelli's bound is attained by two points of this mean and variance.
    bound, deviation = Ellipsoid(center, np.sqrt((1 - eta) / eta) * shape).support(a).value, np.linalg.norm(shape.T @ a)
    points = a @ center + deviation * np.array([np.sqrt((1 - eta) / eta), -np.sqrt(eta / (1 - eta))])
    weights = np.array([eta, 1 - eta])
    assert weights @ points == pytest.approx(a @ center)
    assert weights @ (points - a @ center) ** 2 == pytest.approx(deviation**2)
    assert points[0] == pytest.approx(bound)


def test_the_worst_cvar_of_a_small_radius_is_that_of_the_sample():
    rng = np.random.default_rng(2)
    samples, a, eta, tau = rng.standard_normal((40, 2)), np.array([1.0, -0.5]), 0.1, cp.Variable()
    for radius in (0.0, 0.3):
        moves = Ellipsoid(np.zeros(2), radius)
        worst = cp.Problem(cp.Minimize(worst_case_mean([(a / eta, -tau / eta), (0, 0)], samples, moves) + tau))
        # Carrying mass raises the loss of the tail by |a| radius / eta.
        expected = cp.cvar(samples @ a, 1 - eta).value + np.linalg.norm(a) * radius / eta
        assert worst.solve(**TIGHT) == pytest.approx(expected, abs=1e-8)

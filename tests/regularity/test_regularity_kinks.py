"""Extreme elements and one-sided derivatives, against finite differences of the solution itself."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.errors import InvalidArgument
from conelayers.layers.kinks import extreme_jacobians, one_sided_derivative


def T(*values):
    return torch.tensor(values, dtype=torch.float64)


def simplex_layer():
    """Projection on the simplex; returns the point and the multiplier of its sum."""
    x, a = cp.Variable(4), cp.Parameter(4)
    total = cp.sum(x) == 1
    return CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x >= 0, total]), [a], [x, total.dual_variables[0]]
    )


# The projection is (0.6, 0.4, 0, 0), with the last two on the border.
KINK = T(0.8, 0.6, 0.2, 0.2)


def test_extreme_jacobians_of_the_simplex():
    found = extreme_jacobians(simplex_layer(), KINK)
    assert (
        found.complete
        and found.invertible.all()
        and found.active.tolist() == [[False, False], [True, False], [False, True], [True, True]]
    )
    for jacobian, active in zip(found.jacobians[0][0], found.active, strict=True):
        free = [0, 1] + [2 + i for i in range(2) if not active[i]]
        expected = torch.zeros(4, 4, dtype=torch.float64)
        expected[torch.tensor(free)[:, None], torch.tensor(free)] = torch.eye(len(free)).double() - 1 / len(free)
        assert torch.allclose(jacobian, expected, atol=1e-9)


def test_exact_mode_returns_one_of_the_extreme_elements():
    layer = simplex_layer()
    exact = torch.func.jacrev(lambda a: layer(a))(KINK)
    found = extreme_jacobians(layer, KINK)
    matches = [
        all(torch.allclose(output, row[0][i], atol=1e-9) for output, row in zip(exact, found.jacobians, strict=True))
        for i in range(len(found.invertible))
    ]
    assert sum(matches) == 1


def test_limit_and_curved_kinks_are_reported():
    assert not extreme_jacobians(simplex_layer(), KINK, limit=3).complete
    assert len(extreme_jacobians(simplex_layer(), KINK, limit=3).invertible) == 3
    x, a = cp.Variable(2), cp.Parameter(2)
    ball = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.norm(x) <= 1]), [a], [x])
    found = extreme_jacobians(ball, T(0.6, 0.8))
    assert not found.complete and len(found.invertible) == 1
    again = extreme_jacobians(ball, T(0.6, 0.8))
    assert torch.equal(found.jacobians[0][0], again.jacobians[0][0]) and found.jacobians[0][0].isfinite().all()
    with pytest.raises(InvalidArgument, match="batch"):
        extreme_jacobians(ball, T(0.6, 0.8).expand(2, 2))


def test_singular_elements_are_marked():
    """A weakly active bound that alone determines a variable: one element is singular."""
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x[0] - a[0]) + a[1] * x[1]), [x[1] >= 0, x[1] <= 1]), [a], [x])
    found = extreme_jacobians(layer, T(0.3, 1e-13), radius=2.0)
    assert found.invertible.tolist().count(False) >= 1
    assert found.jacobians[0][0][~found.invertible].isnan().all()


@pytest.mark.parametrize("seed", range(6))
def test_one_sided_derivative_of_the_simplex(seed):
    direction = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    layer = simplex_layer()
    found = one_sided_derivative(layer, [KINK], [direction])
    # The projection is piecewise linear: a finite difference on one side is exact.
    start, ahead = layer(KINK), layer(KINK + 1e-2 * direction)
    for derivative, p, q in zip(found, start, ahead, strict=True):
        assert torch.allclose(derivative, (q - p) / 1e-2, atol=1e-8)


def nearest_point(a, G, h):
    """The projection of a on {Gx <= h}, by trying all active sets."""
    best = None
    for size in range(len(h) + 1):
        for rows in map(list, itertools.combinations(range(len(h)), size)):
            K = np.block([[np.eye(len(a)), G[rows].T], [G[rows], np.zeros((size, size))]])
            if size and np.linalg.cond(K) > 1e12:
                continue
            x, y = np.split(np.linalg.solve(K, np.concatenate([a, h[rows]])), [len(a)])
            if (G @ x <= h + 1e-12).all() and (y >= -1e-12).all():
                best = x
    return best


@pytest.mark.parametrize("seed", range(8))
def test_one_sided_derivative_with_parameters_everywhere(seed):
    """Three weakly active rows, while the matrix and the right-hand side move too."""
    generator = torch.Generator().manual_seed(seed)
    x, a, G, h = cp.Variable(3), cp.Parameter(3), cp.Parameter((4, 3)), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [G @ x <= h, cp.norm(x) <= 5])
    layer = CvxpyLayer(problem, [a, G, h], [x])
    av, Gv = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((3,), (4, 3)))
    hv = Gv @ av
    hv[1] += 0.3
    moves = [torch.randn(v.shape, dtype=torch.float64, generator=generator) for v in (av, Gv, hv)]
    found = one_sided_derivative(layer, [av, Gv, hv], moves)[0]
    step = 1e-5
    start, ahead, further = (
        torch.tensor(nearest_point(*((v + t * step * d).numpy() for v, d in zip((av, Gv, hv), moves, strict=True))))
        for t in (0, 1, 2)
    )
    difference = (4 * ahead - further - 3 * start) / (2 * step)  # one-sided, second order
    assert torch.allclose(found, difference, atol=1e-6)


def test_one_sided_derivatives_lie_in_the_hull_of_the_extremes():
    layer, direction = simplex_layer(), T(0.3, -0.2, 0.9, -0.4)
    found = one_sided_derivative(layer, [KINK], [direction])[0]
    products = extreme_jacobians(layer, KINK).jacobians[0][0] @ direction
    assert any(torch.allclose(found, product, atol=1e-9) for product in products)


def test_arguments_out_of_their_range_are_named():
    layer = simplex_layer()
    with pytest.raises(InvalidArgument, match="limit"):
        extreme_jacobians(layer, KINK, limit=0)
    with pytest.raises(InvalidArgument, match="radius"):
        extreme_jacobians(layer, KINK, radius=-1.0)
    with pytest.raises(InvalidArgument, match="directions must be finite"):
        one_sided_derivative(layer, [KINK], [KINK * float("nan")])


def limited(function):
    """The layer (a, b) -> argmin |x - a|^2 subject to function(x) <= b, and b at which that is weakly active at a."""
    x, a, b = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [function(x) <= b]), [a, b], [x])

    def border(point):
        x.value = point.numpy()
        return torch.tensor(float(function(x).value), dtype=torch.float64)

    return layer, border


WEAK = {
    "huber": (lambda x: cp.sum(cp.huber(x, 0.9)), T(0.7, 2.0, -1.0)),
    "huber at its own kink": (lambda x: cp.sum(cp.huber(x, 1)), T(0.7, 2.0, -1.0)),
    "norm1 at its own kink": (cp.norm1, T(0.7, 2.0, 0.0)),
    "max with a tie": (cp.max, T(1.5, 1.5, -1.0)),
    "norm_inf": (cp.norm_inf, T(0.7, 2.0, -1.0)),
    "pos at its own kink": (lambda x: cp.sum(cp.pos(x)), T(0.7, 2.0, 0.0)),
    "sum_largest": (lambda x: cp.sum_largest(x, 2), T(0.7, 2.0, -1.0)),
    "quad_over_lin": (lambda x: cp.quad_over_lin(x[:2], x[2] + 3), T(0.7, 2.0, -1.0)),
    "exp": (lambda x: cp.sum(cp.exp(x)), T(0.7, 2.0, -1.0)),
    "log": (lambda x: -cp.sum(cp.log(x + 2)), T(0.7, 2.0, -1.0)),
}


@pytest.mark.parametrize("name", WEAK)
def test_one_sided_derivatives_at_weakly_active_epigraphs(name):
    """Forward differences of second order; sums of epigraphs leave auxiliary variables free to first order."""
    function, a = WEAK[name]
    layer, border = limited(function)
    b, step = border(a), 1e-4
    direction = torch.tensor(np.random.default_rng(0).standard_normal(3))
    found = one_sided_derivative(layer, [a, b], [direction, torch.zeros_like(b)])[0]
    ahead, further = (layer(a + t * step * direction, b)[0] for t in (1, 2))
    assert torch.allclose(found, (4 * ahead - further - 3 * a) / (2 * step), atol=1e-4)


def test_one_sided_derivative_at_a_huber_bound_by_hand():
    """huber(x) <= 3 at x = 2 with slope 2: x cannot follow a, and b moves it down by half."""
    x, a, b = cp.Variable(), cp.Parameter(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x - a)), [cp.huber(x, 1) <= b]), [a, b], [x])
    point = [torch.tensor(2.0).double(), torch.tensor(3.0).double()]
    for direction, expected in (((1.0, 0.0), 0.0), ((-1.0, 0.0), -1.0), ((0.0, 1.0), 0.0), ((0.0, -1.0), -0.5)):
        moves = [torch.tensor(value).double() for value in direction]
        assert float(one_sided_derivative(layer, point, moves)[0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("bound", [cp.norm1, cp.norm_inf, lambda x: cp.sum(cp.huber(x)), lambda x: cp.sum(cp.exp(x))])
def test_extreme_jacobians_beside_free_auxiliary_variables(bound):
    """Epigraphs of an inactive bound are free; the user's Jacobians are those of the bound x >= 0 alone."""
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x >= 0, bound(x) <= 10]), [a], [x])
    found = extreme_jacobians(layer, T(0.0, 1.0))
    assert found.complete and found.invertible.tolist() == [True, True]
    assert torch.allclose(
        found.jacobians[0][0], torch.stack([torch.eye(2), torch.diag(torch.tensor([0.0, 1.0]))]).double()
    )

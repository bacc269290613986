"""Derivatives where the solution is not regular: an element of the Clarke Jacobian, or the shortest of many."""

import itertools

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch.func import jacfwd, jacrev

from conelayers import CvxpyLayer


def T(values):
    return torch.as_tensor(np.asarray(values), dtype=torch.float64)


@pytest.fixture(params=["compiled", "torch"])
def road(request, monkeypatch):
    """With the compiled derivative kernels, and without."""
    if request.param == "torch":
        from conelayers.layers import compiled_chain
        from conelayers.residual import fused, linearization, solve

        for module in (fused, linearization, solve):
            monkeypatch.setattr(module, "compiled_kernels", lambda structure, device: None)
        monkeypatch.setattr(compiled_chain, "compiled_differentiator", lambda structure: None)
    return request.param


def both_modes(layer, point, tolerance=1e-6):
    """The Jacobian by an ordinary backward pass, by reverse and by forward transforms, which must agree."""
    found = torch.autograd.functional.jacobian(lambda p: layer(p)[0], point)
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(transform(lambda p: layer(p)[0])(point), found, atol=tolerance, rtol=0)
    return found


def block_means(n):
    """The extreme elements at 0 of the projection on increasing vectors: means over consecutive blocks."""
    for cuts in itertools.product([False, True], repeat=n - 1):
        label = np.concatenate([[0], np.cumsum(cuts)])
        same = label[:, None] == label
        yield T(same / same.sum(1))


@pytest.mark.parametrize("norm", ["norm", "square"])
def test_isotonic_regression_of_zeros(norm, road):
    n = 4
    x, p = cp.Variable(n), cp.Parameter(n)
    cost = cp.norm(x - p) if norm == "norm" else cp.sum_squares(x - p)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [cp.diff(x) >= 0]), [p], [x])
    found = both_modes(layer, torch.zeros(n, dtype=torch.float64))
    assert min(float((found - mean).abs().max()) for mean in block_means(n)) < 1e-6


def test_a_holding_of_exactly_zero(road):
    """The multipliers are not unique; x = w on both sides."""
    x, u, w = cp.Variable(), cp.Variable(), cp.Parameter()
    cost = x**2 + cp.abs(u) + 0.1 * cp.neg(x)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [u == x - w]), [w], [x])
    assert abs(float(both_modes(layer, T(0.0))) - 1) < 1e-9


def test_multipliers_that_the_derivative_needs(road):
    """At a vertex with one constraint too many the derivative in the matrix holds the multiplier of one piece."""
    x, a = cp.Variable(2), cp.Parameter(nonneg=True)
    constraints = [x[0] + a * x[1] >= 1, x[0] + x[1] >= 1, x[1] >= 0, x[0] >= a]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum(x) + 2 * x[1]), constraints), [a], [x])
    found = both_modes(layer, T(1.0))
    # Right of 1 only x0 >= a holds x0, left of 1 x0 + x1 >= 1 does, and x1 = 0.
    sides = [(layer(T(1 + h))[0] - layer(T(1.0))[0]) / h for h in (1e-3, -1e-3)]
    assert min(float((found - side).abs().max()) for side in sides) < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_elements_are_those_of_nearby_pieces(seed, road):
    """Projection on polyhedra whose corners have too many facets: the Jacobian is that of a piece that touches."""
    rng = np.random.default_rng(seed)
    n, facets = 3, 6
    G = rng.standard_normal((facets, n))
    corner = rng.standard_normal(n)
    x, a = cp.Variable(n), cp.Parameter(n)
    distance = cp.norm1(x - a) if seed % 2 else cp.norm(x - a)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(distance), [G @ (x - corner) <= 0]), [a], [x])
    found = both_modes(layer, T(corner))
    # The element is looked for along a direction in which all parameters grow.
    points = (T(corner) + 1e-3 * T(rng.uniform(0.5, 1.5, (200, n)))).requires_grad_()
    moved = layer(points)[0]
    pieces = torch.stack([torch.autograd.grad(moved[:, i].sum(), points, retain_graph=True)[0] for i in range(n)], 1)
    assert float((pieces - found).abs().amax((1, 2)).min()) < 1e-6


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_an_underdetermined_fit_has_the_shortest_derivative(scale, road):
    rng = np.random.default_rng(3)
    M = rng.standard_normal((5, 8)) * scale ** rng.uniform(-1, 1, 8)
    x, b = cp.Variable(8), cp.Parameter(5)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(M @ x - b))), [b], [x])
    found = both_modes(layer, T(rng.standard_normal(5)))
    torch.testing.assert_close(found, T(np.linalg.pinv(M)), atol=1e-6, rtol=0)


def test_a_linear_programme_of_ties_does_not_move(road):
    x, c = cp.Variable(6), cp.Parameter(6)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1]), [c], [x])
    assert both_modes(layer, torch.zeros(6, dtype=torch.float64)).abs().max() < 1e-7


def test_regular_and_irregular_items_of_a_batch(road):
    """Each item as it is alone."""
    x, u, w = cp.Variable(), cp.Variable(), cp.Parameter()
    cost = x**2 + cp.abs(u) + 0.1 * cp.neg(x)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [u == x - w]), [w], [x])
    values = T([0.2, 0.0, -0.3, 3.0, 0.0, -2.0]).requires_grad_()
    (found,) = torch.autograd.grad(layer(values)[0].sum(), values)
    torch.testing.assert_close(found, T([1.0, 1.0, 1.0, 0.0, 1.0, 0.0]), atol=1e-8, rtol=0)


def test_structural_redundancy_is_no_irregularity(road, monkeypatch):
    """Dependent equalities, and bounds that repeat each other, leave the derivative alone and cost no second solve."""
    from conelayers.residual import selection

    def refuse(*arguments):
        raise AssertionError("a regular derivative was looked for elsewhere")

    monkeypatch.setattr(selection, "solve_and_polish", refuse)
    X, C = cp.Variable((3, 3)), cp.Parameter((3, 3))
    doubly = [cp.sum(X, axis=0) == 1, cp.sum(X, axis=1) == 1, X >= 0, X <= 1]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X) + cp.sum(cp.multiply(C, X))), doubly), [C], [X])
    rng = np.random.default_rng(0)
    point = T(rng.standard_normal((3, 3)))
    found = both_modes(layer, point)
    step = 1e-4 * T(rng.standard_normal((3, 3)))
    ahead, behind = (layer(point + s * step)[0] for s in (1, -1))
    torch.testing.assert_close(torch.einsum("ijkl,kl", found, step), (ahead - behind) / 2, atol=1e-9, rtol=0)

"""The exact quantile loss: solutions against HiGHS, derivatives against CVXPY's layer and finite differences."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.linear_model import QuantileRegressor

from conelayers.errors import InvalidArgument
from conelayers.lasso import L1, ElasticNet, ProximalModel, Quantile, WorkingSet

TIGHT = WorkingSet(tol=1e-12, max_iter=100)


def _data(seed=0, n=50, p=15):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X[:, :4] @ [1.0, 2, -1, 0.5] + rng.standard_normal(n) + 1, rng.uniform(0.5, 2, n)


@pytest.mark.parametrize("level", [0.5, 0.2, 0.9])
@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.3])
def test_solutions_are_those_of_linear_programming(level, alpha):
    X, y, w = _data()
    reference = QuantileRegressor(quantile=level, alpha=alpha, solver="highs").fit(X, y, w / w.mean())
    for design in (X, sp.csr_array(X)):
        fit = ProximalModel(Quantile(level, 0.0), L1(), True, TIGHT).fit(design, y, alpha, sample_weight=w)
        assert fit.violation < 1e-12 and fit.gap < 1e-12
        np.testing.assert_allclose(fit.coef.numpy(), reference.coef_, atol=1e-9)
        np.testing.assert_allclose(float(fit.intercept), reference.intercept_, atol=1e-9)


def test_smoothed_solutions_approach_the_exact_one():
    X, y, _ = _data(1)
    exact = ProximalModel(Quantile(0.3, 0.0), L1(), True, TIGHT).fit(X, y, 0.05)
    distances = [
        (ProximalModel(Quantile(0.3, size), L1(), True, TIGHT).fit(X, y, 0.05).coef - exact.coef).norm()
        for size in (1e-1, 1e-2, 1e-3)
    ]
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1e-2


@pytest.mark.parametrize("nonnegative", [False, True])
def test_derivatives_of_every_input(nonnegative):
    X, y, w = _data(2, 40, 10)
    model = ProximalModel(Quantile(0.3, 0.0), ElasticNet(nonnegative), True, TIGHT)
    inputs = [torch.tensor(v, dtype=torch.float64).requires_grad_() for v in (X, y, w, 0.02, 0.5)]

    def function(X, y, w, l1, l2):
        return model(X, y, l1, l2, sample_weight=w)

    moving = torch.autograd.grad(function(*inputs)[0].sum(), inputs[2:])
    assert all(bool((slope != 0).any()) for slope in moving)  # fewer samples interpolated than unknowns
    check = {"eps": 1e-6, "atol": 1e-7, "rtol": 1e-6}
    assert torch.autograd.gradcheck(function, inputs, **check, check_forward_ad=True, fast_mode=True)
    fixed = [x.detach() for x in inputs[:3]]
    assert torch.autograd.gradgradcheck(lambda a, b: function(*fixed, a, b), inputs[3:], eps=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(lambda a, b: model(sp.csc_array(X), y, a, b), inputs[3:], eps=1e-6, atol=1e-6)


def test_agrees_with_the_cvxpy_layer():
    import cvxpy as cp

    from conelayers import CvxpyLayer

    X, y, _ = _data(3, 30, 6)
    b, c, l1, l2 = cp.Variable(6), cp.Variable(), cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    r = y - X @ b - c
    loss = cp.sum(cp.maximum(0.3 * r, -0.7 * r)) / 30
    problem = cp.Problem(cp.Minimize(loss + l1 * cp.norm1(b) + l2 / 2 * cp.sum_squares(b)))
    layer, model = CvxpyLayer(problem, [l1, l2], [b, c]), ProximalModel(Quantile(0.3, 0.0), ElasticNet(), True, TIGHT)
    direction, answers = torch.linspace(-1, 2, 6, dtype=torch.float64), []
    for solve in (layer, lambda *t: model(torch.tensor(X), torch.tensor(y), *t)):
        theta = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.03, 0.2)]
        coef, intercept = solve(*theta)
        answers.append((coef.detach(), *torch.autograd.grad(direction @ coef + intercept, theta)))
    for first, second in zip(*answers):
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


def test_vertices_stay_while_the_penalty_moves():
    X, y, _ = _data(4)
    model, alpha = ProximalModel(Quantile(0.5, 0.0), L1(), True, TIGHT), torch.tensor(0.05, dtype=torch.float64)
    alpha.requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a nondegenerate vertex is regular
        (slope,) = torch.autograd.grad(model(X, y, alpha)[0].sum(), alpha)
    assert abs(float(slope)) < 1e-10
    nearby = model.fit(X, y, 0.0500001).coef
    torch.testing.assert_close(nearby, model.fit(X, y, 0.05).coef, rtol=1e-10, atol=1e-10)


def test_batches_and_errors():
    X, y, _ = _data(5)
    model = ProximalModel(Quantile(0.5, 0.0), ElasticNet(), True, TIGHT)
    l1 = torch.tensor([[0.02], [0.05]], dtype=torch.float64)
    coef, intercept = model(X, y, l1, torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64))
    assert coef.shape == (2, 3, 15) and intercept.shape == (2, 3)
    torch.testing.assert_close(coef[1, 2], model(X, y, 0.05, 0.4)[0], rtol=1e-10, atol=1e-12)
    with pytest.raises(InvalidArgument, match="level"):
        Quantile(1.0)
    with pytest.raises(InvalidArgument, match="smoothing"):
        Quantile(0.5, -1.0)

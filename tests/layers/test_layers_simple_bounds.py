"""Returned points satisfy bounds on single variables exactly, and their derivatives are as before."""

import cvxpy as cp
import pytest
import torch

from conelayers import CvxpyLayer


def simplex(**attributes):
    x, a = cp.Variable(20, **attributes), cp.Parameter(20)
    constraints = [cp.sum(x) == 1] + ([] if attributes else [x >= 0])
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), constraints), [a], [x])


@pytest.mark.parametrize("attributes", [{}, {"nonneg": True}], ids=str)
@pytest.mark.parametrize("items", [1, 64])
def test_probabilities_have_logarithms(attributes, items):
    torch.manual_seed(0)
    a = torch.randn(items, 20, dtype=torch.float64, requires_grad=True)
    (x,) = simplex(**attributes)(a)
    assert (x >= 0).all() and not x.log().isnan().any()
    active = x > 1e-9
    weights = torch.randn(items, 20).double()
    (gradient,) = torch.autograd.grad((weights * x).sum(), a)
    mean = (weights * active).sum(-1, keepdim=True) / active.sum(-1, keepdim=True)
    torch.testing.assert_close(gradient, torch.where(active, weights - mean, 0.0))


def test_linear_programmes_and_other_backends():
    torch.manual_seed(1)
    x, c = cp.Variable((3, 5)), cp.Parameter((3, 5))
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(c, x))), [cp.sum(x, axis=1) == 1, x >= 0, x <= 0.7])
    for solver in (None, "CLARABEL"):
        (found,) = CvxpyLayer(problem, [c], [x], solver=solver)(torch.randn(16, 3, 5))
        assert found.min() == 0 and found.max() == torch.tensor(0.7)


@pytest.mark.parametrize("shape", [(), (9,), (3, 1)])
def test_bounds_that_are_parameters(shape):
    torch.manual_seed(2)
    x = cp.Variable(4)
    a, low, high, cap = cp.Parameter(4), cp.Parameter(4), cp.Parameter(4), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.norm(x - a)), [x >= low, x <= high, x <= cap, x[0] <= 0.3])
    layer = CvxpyLayer(problem, [a, low, high, cap], [x])
    wide, low_value = torch.randn(*shape, 4).double() * 3, -torch.rand(4).double()
    high_value = (torch.rand(*(1,) * len(shape), 4) if shape else torch.rand(4)).double()
    (found,) = layer(wide, low_value, high_value, torch.tensor(0.8).double())
    assert (found >= low_value).all() and (found <= high_value).all() and (found <= 0.8).all()
    assert (found[..., 0] <= 0.3).all()
    exact = torch.minimum(torch.maximum(wide, low_value), high_value.clamp(max=0.8))
    exact[..., 0].clamp_(max=0.3)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


def test_transforms():
    layer, a = simplex(), torch.randn(5, 20).double()
    mapped = torch.func.vmap(lambda one: layer(one)[0])(a)
    assert (mapped >= 0).all()
    torch.testing.assert_close(mapped, layer(a)[0])
    jacobian = torch.func.jacrev(lambda one: layer(one)[0])(a[0])
    assert jacobian.isfinite().all()

"""Parameters by name, and parameters that stay constant."""

import cvxpy as cp
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.errors import InvalidArgument

x = cp.Variable(2, name="x")
mu, gamma, S = (
    cp.Parameter(2, name="mu"),
    cp.Parameter(nonneg=True, name="gamma"),
    cp.Parameter((2, 2), PSD=True, name="S"),
)
MU, S_VALUE = torch.tensor([1.0, 2.0]).double(), torch.eye(2).double() + 1


@pytest.fixture(scope="module")
def layer():
    budget = cp.sum(x) == 1
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, S) - mu @ x), [budget]), [mu, S], [x])


def test_parameters_by_name_in_any_order(layer):
    (expected,) = layer(MU, S_VALUE)
    for found in (layer(S=S_VALUE, mu=MU), layer(MU, S=S_VALUE), layer.solve(S=S_VALUE, mu=MU).variables):
        torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize(
    ("positional", "named", "message"),
    [
        ((), {"mu": MU}, r"missing: S \(of mu, S\)"),
        ((), {"mu": MU, "S": S_VALUE, "gamma": MU}, "'gamma' is no parameter of this layer; its parameters are mu, S"),
        ((MU,), {"mu": MU}, "'mu' is given by position and by name"),
    ],
)
def test_names_that_do_not_fit(layer, positional, named, message):
    with pytest.raises(InvalidArgument, match=message):
        layer(*positional, **named)


def test_shared_names():
    a, b = cp.Parameter(name="a"), cp.Parameter(name="a")
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x[0] - a) + cp.square(x[1] - b))), [a, b], [x])
    with pytest.raises(InvalidArgument, match="Several parameters are named 'a'"):
        layer(a=torch.tensor(1.0))


def test_unlisted_parameters_as_constants():
    budget = cp.sum(x) == 1
    problem = cp.Problem(cp.Minimize(gamma * cp.quad_form(x, S) - mu @ x), [budget, x >= -gamma])
    with pytest.raises(InvalidArgument, match="DPP"):
        CvxpyLayer(problem, [mu, S], [x])
    with pytest.raises(InvalidArgument, match="gamma has none"):
        CvxpyLayer(problem, [mu, S], [x], fix_unlisted=True)
    gamma.value = 2.0
    layer = CvxpyLayer(problem, [mu, S], [x, budget.dual_variables[0], gamma * x], fix_unlisted=True)
    given = MU.clone().requires_grad_()
    solution = layer.solve(given, S_VALUE)
    gamma.value = 5.0  # later values have no part in it
    twin = cp.Problem(cp.Minimize(2 * cp.quad_form(x, S) - mu @ x), [cp.sum(x) == 1, x >= -2])
    other = CvxpyLayer(twin, [mu, S], [x, twin.constraints[0].dual_variables[0], 2 * x]).solve(given, S_VALUE)
    torch.testing.assert_close(solution.variables, other.variables)
    torch.testing.assert_close(solution.value, other.value)
    assert gamma.value == 5.0
    gamma.value = None
    with pytest.raises(InvalidArgument, match=r"must exactly match.*fix_unlisted=True"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - mu) + gamma)), [mu], [x])

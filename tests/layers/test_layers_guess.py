"""Warm starts from values of one's own."""

import cvxpy as cp
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.errors import InvalidArgument

x, a = cp.Variable(6, name="x"), cp.Parameter(6, name="a")
S, C = cp.Variable((3, 3), symmetric=True, name="S"), cp.Parameter((3, 3), name="C")


@pytest.fixture(scope="module")
def layer():
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) == 1, x >= 0]), [a], [x])


def test_a_good_guess_saves_iterations_and_changes_nothing(layer):
    torch.manual_seed(0)
    given = torch.randn(16, 6, dtype=torch.float64, requires_grad=True)
    cold = layer.solve(given)
    guess = cold.variables[0].detach() + 1e-6 * torch.rand(16, 6)
    for start in ({"x": guess}, {x: guess.numpy()}):
        warm = layer.solve(given, warm_start=start)
        torch.testing.assert_close(warm.variables, cold.variables, rtol=0, atol=1e-9)
        assert warm.iterations.sum() < cold.iterations.sum() / 2
    gradients = [torch.autograd.grad(s.variables[0][:, 0].sum(), given)[0] for s in (cold, warm)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "guess", [{}, {"x": torch.full((6,), 1 / 6)}, {"x": torch.randn(6) * 100}], ids=["", "mean", "wild"]
)
def test_any_guess_gives_the_solution(layer, guess):
    given = torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(given, warm_start=guess), layer(given), rtol=0, atol=1e-9)


def test_some_of_the_variables_and_curved_cones():
    problem = cp.Problem(cp.Minimize(cp.sum_squares(S - C) + cp.norm(x)), [S >> 0, cp.sum(x) == 1, cp.norm(x - 1) <= 3])
    layer, given = CvxpyLayer(problem, [C], [S, x]), torch.randn(3, 3).double()
    cold = layer(given)
    for guess in ({"S": cold[0]}, {"S": torch.eye(3), "x": torch.ones(6) / 6}):
        torch.testing.assert_close(layer(given, warm_start=guess), cold, rtol=0, atol=1e-7)


def test_guesses_that_do_not_fit(layer):
    with pytest.raises(InvalidArgument, match=r"has 'z'; the problem's variables are x"):
        layer(torch.zeros(6), warm_start={"z": 1.0})
    with pytest.raises(InvalidArgument, match=r"warm_start\['x'\] has shape \(5,\); expected \(6,\)"):
        layer(torch.zeros(6), warm_start={"x": torch.zeros(5)})
    with pytest.raises(InvalidArgument, match="dictionary of values"):
        layer(torch.zeros(6), warm_start=[1.0])

"""Infinite bounds: a row without a bound is an absent row, whoever solves and however it is differentiated."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import ConeLayer, CvxpyLayer
from conelayers.cones import Nonnegative, SecondOrder, Zero
from conelayers.implicit import Smoothed

INF = float("inf")
SOLVERS = [None, "BATCHED", "CLARABEL", "SCS"]
every_solver = pytest.mark.parametrize("solver", SOLVERS, ids=str)


def solved(problem, parameters, variables, values, **options):
    """Values, and the gradients of a weighted sum of their squares."""
    layer = CvxpyLayer(problem, parameters, variables, **options)
    inputs = [torch.as_tensor(value).clone().requires_grad_() for value in values]
    outputs = layer(*inputs)
    loss = sum((output.square() * torch.arange(1.0, output.shape[-1] + 1)).sum() for output in outputs)
    return [output.detach() for output in outputs], torch.autograd.grad(loss, inputs)


def box():
    x, a, low, high = cp.Variable(3), cp.Parameter(3), cp.Parameter(3), cp.Parameter(3)
    objective = cp.sum_squares(x - a) + 0.3 * cp.sum(x) ** 2
    return cp.Problem(cp.Minimize(objective), [x <= high, low <= x]), [a, low, high], [x]


@every_solver
def test_parametric_bounds_of_some_items(solver):
    a = torch.tensor([[2.0, -2.0, 0.4], [3.0, 1.0, -2.0], [1.0, 2.0, 3.0]])
    low = torch.tensor([[-INF, -1.0, 0.0], [-1.0, -INF, -1.0], [-INF] * 3])
    high = torch.tensor([[1.0, INF, 0.3], [INF, INF, 1.0], [INF] * 3])
    values, gradients = solved(*box(), [a, low, high], solver=solver)
    finite = [a, low.clamp(min=-50.0), high.clamp(max=50.0)]
    expected, right = solved(*box(), finite, solver=solver)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(gradients, right, rtol=0, atol=1e-7)
    assert not gradients[1][low.isinf()].any() and not gradients[2][high.isinf()].any()


@every_solver
def test_constant_bounds(solver):
    x, a = cp.Variable(3), cp.Parameter(3)
    bounds = [x <= np.array([np.inf, 1, 0.5]), -np.inf <= x, cp.sum(x) >= -np.inf]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), bounds)
    values, gradients = solved(problem, [a], [x], [[2.0, 2.0, 2.0]], solver=solver)
    torch.testing.assert_close(values[0], torch.tensor([2.0, 1.0, 0.5]), rtol=0, atol=1e-8)
    torch.testing.assert_close(gradients[0], torch.tensor([4.0, 0.0, 0.0]), rtol=0, atol=1e-7)


@every_solver
def test_blocks_of_curved_cones(solver):
    """||x|| <= inf, exp(x) <= inf and sum_squares(x) <= inf hold for every x."""
    x, a, d = cp.Variable(3), cp.Parameter(3), cp.Parameter(4)
    constraints = [cp.norm(x) <= d[0], cp.exp(x) <= d[1:], cp.sum_squares(x) <= 2 * d[0]]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), constraints)
    a_values = [[2.0, 1.0, 1.0], [3.0, 0.0, 1.0]]
    bounds = torch.tensor([[INF, INF, 1.5, INF], [1.5, INF, INF, INF]])
    values, gradients = solved(problem, [a, d], [x], [a_values, bounds], solver=solver)
    expected, right = solved(problem, [a, d], [x], [a_values, bounds.clamp(max=60.0)], solver=solver)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-7)
    torch.testing.assert_close(gradients, right, rtol=0, atol=1e-6)


def test_every_derivative():
    """Forward mode, second derivatives, `vmap` and the certificate beside infinite bounds."""
    layer = CvxpyLayer(*box())
    a, low, high = torch.tensor([2.0, -2.0, 0.4]), torch.tensor([-INF, -1.0, 0.0]), torch.tensor([1.0, INF, 0.3])
    near, far = (low, high), (low.clamp(min=-50.0), high.clamp(max=50.0))
    answers = []
    for bounds in (near, far):
        function = lambda a, bounds=bounds: layer(a, *bounds)[0].square().sum()  # noqa: E731
        _, tangent = torch.func.jvp(function, (a,), (torch.ones(3),))
        batch = torch.func.vmap(torch.func.grad(function))(torch.stack([a, -a]))
        solution = layer.solve(a, *bounds)
        again = layer(a, *bounds, warm_start=solution)[0]
        answers.append((tangent, torch.func.hessian(function)(a), batch, again))
        assert solution.regularity().regular
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=1e-7)


def test_smoothed_derivative():
    a, low, high = torch.tensor([2.0, -2.0, 0.4]), torch.tensor([-INF, -1.0, 0.0]), torch.tensor([1.0, INF, 0.3])
    smoothed = {"derivative": Smoothed(1e-3)}
    _, gradients = solved(*box(), [a, low, high], **smoothed)
    _, right = solved(*box(), [a, low.clamp(min=-1e9), high.clamp(max=1e9)], **smoothed)
    torch.testing.assert_close(gradients, right, rtol=0, atol=1e-6)


@every_solver
def test_cone_layer_says_that_the_slack_is_large(solver):
    A = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, -1.0]])
    layer = ConeLayer([Zero(1), Nonnegative(2), SecondOrder(2)], A, torch.eye(2), solver=solver)
    b = torch.tensor([[2.0, INF, 0.5, INF, 0.0], [2.0, 0.25, INF, 5.0, 0.0]], requires_grad=True)
    solution = layer(torch.eye(2), torch.zeros(2), A, b)
    torch.testing.assert_close(solution.x, torch.tensor([[1.5, 0.5], [0.25, 1.75]]), rtol=0, atol=1e-8)
    assert (solution.s[b.isinf()] >= 1e19).all() and not solution.y[b.isinf()].any()
    (gradient,) = torch.autograd.grad(solution.x[:, 0].sum(), b)
    assert not gradient[b.isinf()].any()
    right = torch.tensor([[1.0, 0.0, -1.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(gradient, right, rtol=0, atol=1e-7)


def test_what_no_point_satisfies_is_no_solution():
    """x <= -inf, and x == inf."""
    layer = CvxpyLayer(*box(), on_failure="nan")
    a, low = torch.zeros(3), torch.full((3,), -1.0)
    outcome = layer(a, low, torch.tensor([[1.0, -INF, 1.0], [1.0, 1.0, INF]]))[0]
    assert outcome[0].isnan().all() and outcome[1].isfinite().all()

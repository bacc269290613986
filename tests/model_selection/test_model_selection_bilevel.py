"""Bilevel hypergradients against closed forms, and the outer loop on small problems."""

import itertools

import pytest
import torch

from conelayers.bilevel import (
    BilevelProblem,
    StochasticNeumann,
    adapt,
    implicit_hypergradient,
    inner_descent,
    iterative_hypergradient,
)
from conelayers.linalg import CG, Neumann
from conelayers.model_selection import BilevelDescent


def _ridge(seed=0):
    generator = torch.Generator().manual_seed(seed)
    A, B = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (30, 20))
    a = A @ torch.ones(5, dtype=torch.float64) + torch.randn(30, generator=generator, dtype=torch.float64)
    b = B @ torch.ones(5, dtype=torch.float64)

    def inner(w, theta):
        return ((A @ w[0] - a).square().mean() + (theta[0].exp() * w[0].square()).sum()) / 2

    def outer(w, theta):
        return (B @ w[0] - b).square().mean() + 0.01 * theta[0].square().sum()

    def solution(theta):
        return torch.linalg.solve(A.mT @ A / 30 + torch.diag(theta[0].exp()), A.mT @ a / 30)

    theta = (torch.linspace(-2, 0, 5, dtype=torch.float64),)
    leaf = theta[0].clone().requires_grad_()
    value = outer((solution((leaf,)),), (leaf,))
    exact = torch.autograd.grad(value, leaf)[0]
    return BilevelProblem(inner, outer), theta, solution(theta), value.detach(), exact


@pytest.mark.parametrize(
    "solver, accuracy",
    [(None, 1e-10), (CG(), 1e-8), (Neumann(step=0.3, max_iterations=2000), 1e-8)],
)
def test_implicit_against_closed_form(solver, accuracy):
    problem, theta, w, value, exact = _ridge()
    result = implicit_hypergradient(problem, (w,), theta, solver)
    torch.testing.assert_close(result.value, value)
    torch.testing.assert_close(result.gradient[0], exact, rtol=accuracy, atol=accuracy)


def test_warm_start_of_the_adjoint():
    problem, theta, w, _, exact = _ridge()
    first = implicit_hypergradient(problem, (w,), theta)
    again = implicit_hypergradient(problem, (w,), theta, CG(max_iterations=0), first.adjoint)
    torch.testing.assert_close(again.gradient[0], exact, rtol=1e-9, atol=1e-10)
    cold = implicit_hypergradient(problem, (w,), theta, CG(max_iterations=0))
    assert (cold.gradient[0] - exact).abs().max() > 1e-4


def test_iterative_converges_to_implicit_and_is_exact_for_its_iterate():
    problem, theta, _, _, exact = _ridge()
    zero = (torch.zeros(5, dtype=torch.float64),)
    result, last = iterative_hypergradient(problem, zero, theta, 1500, 0.3)
    torch.testing.assert_close(result.gradient[0], exact, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(last[0], inner_descent(problem, zero, theta, 1500, 0.3)[0])
    few, _ = iterative_hypergradient(problem, zero, theta, 3, 0.3)

    def value(t):
        return problem.outer(inner_descent(problem, zero, (t,), 3, 0.3), (t,))

    step = torch.zeros(5, dtype=torch.float64)
    step[2] = 1e-5
    expected = (value(theta[0] + step) - value(theta[0] - step)) / 2e-5
    torch.testing.assert_close(few.gradient[0][2], expected, rtol=1e-7, atol=1e-9)


def test_stochastic_neumann_is_unbiased_for_the_series():
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    a = A.sum(1) + torch.randn(40, generator=generator, dtype=torch.float64)
    w, theta = (torch.ones(3, dtype=torch.float64),), (torch.zeros(3, dtype=torch.float64),)

    def inner(w, theta, index):
        return ((A[index] @ w[0] - a[index]).square().mean() + (theta[0].exp() * w[0].square()).sum()) / 2

    def outer(w, theta, index):
        return (A @ w[0] - 2 * a).square().mean()

    def batches():
        while True:
            yield torch.randint(40, (4,), generator=generator)

    estimator = StochasticNeumann(terms=6, step=0.1)
    draws = torch.stack(
        [estimator.hypergradient(inner, outer, w, theta, batches(), batches()).gradient[0] for _ in range(400)]
    )
    everything = itertools.repeat(torch.arange(40))
    expected = estimator.hypergradient(inner, outer, w, theta, everything, everything).gradient[0]
    problem = BilevelProblem(lambda w, t: inner(w, t, slice(None)), lambda w, t: outer(w, t, slice(None)))
    series = implicit_hypergradient(problem, w, theta, Neumann(step=0.1, max_iterations=6)).gradient[0]
    torch.testing.assert_close(expected, series, rtol=1e-12, atol=1e-13)
    error = (draws.mean(0) - expected).abs()
    assert bool((error < 4 * draws.std(0) / 400**0.5).all())


def test_accelerated_descent_finds_the_optimum():
    problem, theta, _, _, _ = _ridge()
    zero = (torch.zeros(5, dtype=torch.float64),)
    fast = BilevelDescent(outer_steps=150, outer_step=0.5, inner_steps=20, inner_step=0.5, momentum=0.9).run(
        problem, zero, theta
    )
    slow = BilevelDescent(outer_steps=150, outer_step=0.5, inner_steps=20, inner_step=0.5, momentum=0.0).run(
        problem, zero, theta
    )
    result = implicit_hypergradient(problem, fast.w, fast.theta)
    assert fast.values[-1] < slow.values[-1] < fast.values[0]
    assert result.gradient[0].abs().max() < 1e-3


def test_maml_and_anil_inner_loops():
    generator = torch.Generator().manual_seed(2)
    net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    x = torch.randn(10, 2, generator=generator, dtype=torch.float64)
    y = x.prod(1, keepdim=True)
    parameters = dict(net.named_parameters())

    def loss(p):
        return (torch.func.functional_call(net, p, (x,)) - y).square().mean()

    moved = adapt(loss, parameters, 3, 0.1)
    assert loss(moved) < loss(parameters)
    head = adapt(loss, parameters, 3, 0.1, only={"2.weight", "2.bias"})
    assert head["0.weight"] is parameters["0.weight"] and not torch.equal(head["2.weight"], parameters["2.weight"])
    grads = torch.autograd.grad(loss(moved), list(parameters.values()))
    # against differences of the whole adapted loss
    name, h = "0.weight", 1e-5
    direction = torch.randn(8, 2, generator=generator, dtype=torch.float64)
    values = [
        loss(adapt(loss, {**parameters, name: parameters[name] + s * h * direction}, 3, 0.1)).detach() for s in (1, -1)
    ]
    torch.testing.assert_close((grads[0] * direction).sum(), (values[0] - values[1]) / (2 * h), rtol=1e-6, atol=1e-8)
    first = torch.autograd.grad(loss(adapt(loss, parameters, 3, 0.1, first_order=True)), list(parameters.values()))
    assert not torch.allclose(first[0], grads[0])

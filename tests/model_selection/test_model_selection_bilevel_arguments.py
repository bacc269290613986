"""Hypergradients of functions that ignore some of their arguments, and of what is no bilevel problem."""

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
from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.model_selection import BilevelDescent

W, THETA = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 2.0])
QUADRATIC = BilevelProblem(lambda w, t: (w[0] - t[0]).square().sum(), lambda w, t: (w[0] ** 3).sum())
METHODS = {
    "implicit": lambda p, w, t: implicit_hypergradient(p, w, t),
    "descent": lambda p, w, t: inner_descent(p, w, t, 2, 0.1),
    "iterative": lambda p, w, t: iterative_hypergradient(p, w, t, 2, 0.1),
    "stochastic": lambda p, w, t: StochasticNeumann(3, 0.1).hypergradient(
        lambda w, t, _: p.inner(w, t), lambda w, t, _: p.outer(w, t), w, t, itertools.repeat(0), itertools.repeat(0)
    ),
    "accelerated": lambda p, w, t: BilevelDescent(outer_steps=1).run(p, w, t),
}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_tuple_of_tensors_is_named(method):
    run = METHODS[method]
    for w, theta, name in ((W, (THETA,), "w"), ((W,), THETA, "theta"), ((W.long(),), (THETA,), "w")):
        with pytest.raises(InvalidArgument, match=f"^{name} must be a tuple"):
            run(QUADRATIC, w, theta)
    with pytest.raises(InvalidArgument, match="^inner must return a scalar"):
        run(BilevelProblem(lambda w, t: w[0] - t[0], QUADRATIC.outer), (W,), (THETA,))
    with pytest.raises(UnsupportedError, match="inference_mode"), torch.inference_mode():
        run(QUADRATIC, (W.clone(),), (THETA.clone(),))
    with pytest.raises(UnsupportedError, match="torch.func"):
        torch.func.vmap(lambda t: (run(QUADRATIC, (W,), (t,)), t)[1])(torch.stack([THETA, THETA]))


@pytest.mark.parametrize("method", METHODS)
def test_variables_that_the_inner_function_ignores(method):
    """The second variable stays where it is."""
    run = METHODS[method]
    run(QUADRATIC, (W, W), (THETA, THETA))
    run(BilevelProblem(lambda w, t: w[0].sum(), lambda w, t: t[0].sum()), (W,), (THETA,))
    assert torch.equal(inner_descent(QUADRATIC, (W, W), (THETA,), 3, 0.1)[1], W)
    few, _ = iterative_hypergradient(QUADRATIC, (W, W), (THETA,), 4, 0.1)
    start, shrink = W, 0.8**4  # w_k = theta + 0.8^k (w_0 - theta)
    expected = 3 * (THETA + shrink * (start - THETA)) ** 2 * (1 - shrink)
    torch.testing.assert_close(few.gradient[0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_functions_without_derivatives_are_named(method):
    """They would be silent zeros."""

    def cut(w, theta):
        return w[0].detach().sum()

    for name, problem in (
        ("inner", BilevelProblem(cut, QUADRATIC.outer)),
        ("outer", BilevelProblem(QUADRATIC.inner, cut)),
    ):
        if (name, method) != ("outer", "descent"):
            with pytest.raises(InvalidArgument, match=f"{name} returned a tensor without derivatives"):
                METHODS[method](problem, (W,), (THETA,))


def test_a_linear_inner_term_in_theta_has_its_cross_derivative():
    problem = BilevelProblem(lambda w, t: w[0].square().sum() / 2 - (w[0] * t[0]).sum(), QUADRATIC.outer)
    found = implicit_hypergradient(problem, (THETA,), (THETA,))
    torch.testing.assert_close(found.gradient[0], 3 * THETA**2, rtol=1e-10, atol=0)


def test_other_wrong_arguments_of_hypergradients():
    for bad, name in (({"solver": "cg"}, "solver"), ({"start": torch.zeros(3)}, "start")):
        with pytest.raises(InvalidArgument, match=f"^{name} must"):
            implicit_hypergradient(QUADRATIC, (W,), (THETA,), **bad)
    with pytest.raises(InvalidArgument, match="^steps must"):
        inner_descent(QUADRATIC, (W,), (THETA,), 1.5, 0.1)
    with pytest.raises(InvalidArgument, match="^inner_batches must yield 5 or more"):
        StochasticNeumann(5, 0.1).hypergradient(
            lambda w, t, _: QUADRATIC.inner(w, t), lambda w, t, _: w[0].sum(), (W,), (THETA,), [0] * 4, [0]
        )


def test_a_stochastic_estimate_takes_as_many_minibatches_as_terms():
    taken = iter(range(9))
    StochasticNeumann(5, 0.1).hypergradient(
        lambda w, t, _: QUADRATIC.inner(w, t), lambda w, t, _: w[0].sum(), (W,), (THETA,), taken, [0]
    )
    assert next(taken) == 5


def _loss(parameters):
    return (parameters["a"].square() * parameters["scale"]).sum()


def _start(**options):
    return {"a": torch.ones(3, **options), "b": torch.ones(2, **options), "scale": torch.tensor(2)}


@pytest.mark.parametrize("first_order", [False, True])
def test_adaptation_leaves_what_the_loss_ignores_and_works_on_plain_tensors(first_order):
    moved = adapt(_loss, _start(requires_grad=True), 2, 0.1, first_order=first_order)
    torch.testing.assert_close(moved["a"].detach(), torch.full((3,), 0.36))
    assert torch.equal(moved["b"], torch.ones(2)) and moved["scale"] == 2
    torch.testing.assert_close(
        adapt(_loss, _start(), 2, 0.1, first_order=first_order)["a"].detach(), moved["a"].detach()
    )
    with torch.no_grad():
        held = adapt(_loss, _start(requires_grad=True), 2, 0.1, first_order=first_order)
    assert torch.equal(held["a"], moved["a"]) and not held["a"].requires_grad
    mapped = torch.func.vmap(lambda a: adapt(_loss, {**_start(), "a": a}, 2, 0.1, first_order=first_order)["a"])
    torch.testing.assert_close(mapped(torch.ones(4, 3)), torch.full((4, 3), 0.36))


@pytest.mark.parametrize("first_order", [False, True])
def test_adaptation_is_differentiated_as_told(first_order):
    """a -> 0.36 a by two steps of 0.1 on 2 a^2 (slope 4 a); with gradients as constants the derivative is 1."""

    def total(a):
        return adapt(_loss, {**_start(), "a": a}, 2, 0.1, first_order=first_order)["a"].sum()

    expected = torch.full((3,), 1.0 if first_order else 0.36)
    a = torch.ones(3, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad(total(a), a)[0], expected)
    torch.testing.assert_close(torch.func.grad(total)(torch.ones(3)), expected)


def test_names_of_adapted_parameters():
    assert torch.equal(adapt(_loss, _start(), 1, 0.1, only="b")["a"], torch.ones(3))
    assert torch.equal(adapt(_loss, _start(), 1, 0.1, only=[])["a"], torch.ones(3))
    for only in (["c"], "scale"):
        with pytest.raises(InvalidArgument, match="^only must name"):
            adapt(_loss, _start(), 1, 0.1, only=only)

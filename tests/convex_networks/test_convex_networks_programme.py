"""The programme against rebuilt networks, the closed form, gradient descent, and difference quotients."""

import copy
import importlib.util
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import SolveError
from conelayers.convex_networks import ConvexReLU, batch_norm_closed_form, logistic_loss
from conelayers.errors import InvalidArgument
from conelayers.model_selection import tune

RNG = np.random.default_rng(0)
X, Y, NEW = RNG.standard_normal((8, 3)), torch.tensor(RNG.standard_normal(8)), RNG.standard_normal((20, 3))
DECAY = torch.tensor(0.1)


def network_objective(network, X, y, decay, loss=lambda out, y: (out - y).square().sum() / 2):
    """Loss and weight decay of a network of stock modules, nothing else taken for granted."""
    X, y = torch.as_tensor(X), torch.as_tensor(y)
    squares = network[-1].weight.square().sum()
    if len(network) == 4:
        squares = squares + len(X) * (network[1].weight.square().sum() + network[1].bias.square().sum())
    else:
        squares = squares + network[0].weight.square().sum()
    out = network(X)
    return float((loss(out if y.dim() == 2 else out[:, 0], y) + decay / 2 * squares).detach())


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("prune", [False, True])
def test_the_objective_is_that_of_the_rebuilt_network(batch_norm, prune):
    model = ConvexReLU(X, batch_norm=batch_norm)
    v, w = model(Y, DECAY)
    network = model.network(v, w, prune=prune)
    assert network_objective(network, X, Y, DECAY) == pytest.approx(float(model.objective(Y, DECAY, v, w)), abs=1e-10)
    torch.testing.assert_close(network(torch.tensor(X))[:, 0], model.outputs(v, w), rtol=0, atol=1e-9)
    torch.testing.assert_close(model.predict(X, v, w), model.outputs(v, w), rtol=0, atol=1e-12)
    if not prune:  # pruning keeps the outputs on the training rows only
        torch.testing.assert_close(network(torch.tensor(NEW))[:, 0], model.predict(NEW, v, w), rtol=0, atol=1e-9)
    else:
        assert len(network[0].weight) <= len(X) + 1
    if batch_norm:  # with the batch's own statistics it is the same network
        training = copy.deepcopy(network).train()
        torch.testing.assert_close(training(torch.tensor(X)), network(torch.tensor(X)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_closed_form_is_the_programme(seed):
    rng = np.random.default_rng(seed)
    X, y, decay = rng.standard_normal((6, 9)), torch.tensor(rng.standard_normal(6)), torch.tensor(0.3)
    model = ConvexReLU(X, batch_norm=True)
    programme = float(model.objective(y, decay, *model(y, decay)))
    assert network_objective(batch_norm_closed_form(X, y, 0.3), X, y, decay) == pytest.approx(programme, abs=1e-9)


def test_closed_form_of_three_classes():
    # Class by class the programme bounds a network of three outputs from below: the columns of one-hot targets are
    # orthogonal, and so Z with columns y_k min(1, decay/|y_k|) is feasible for the dual of the joint problem too.
    rng = np.random.default_rng(3)
    X, labels, decay = rng.standard_normal((7, 7)), torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.tensor(0.3)
    y = torch.nn.functional.one_hot(labels).double()
    model = ConvexReLU(X, batch_norm=True)
    programme = sum(float(model.objective(column, decay, *model(column, decay))) for column in y.mT)
    network = batch_norm_closed_form(X, y, 0.3)
    assert network(torch.tensor(X)).shape == (7, 3)
    assert network_objective(network, X, y, decay) == pytest.approx(programme, abs=1e-9)


def test_no_start_of_adam_ends_below():
    path = Path(__file__).parents[2] / "examples" / "convex_networks.py"
    spec = importlib.util.spec_from_file_location("convex_networks_example", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for batch_norm in (False, True):
        model = ConvexReLU(X, batch_norm=batch_norm)
        best = float(model.objective(Y, DECAY, *model(Y, DECAY)))
        ends = example.adam(torch.tensor(X), Y, 0.1, batch_norm, steps=400)[-1]
        assert ends.min() >= best - 1e-7
        assert ends.min() <= 1.2 * best  # a bound that means something


@pytest.mark.parametrize("batch_norm", [False, True])
def test_hypergradients_are_difference_quotients(batch_norm):
    model = ConvexReLU(X, batch_norm=batch_norm)
    target = torch.tensor(np.random.default_rng(5).standard_normal(len(NEW)))

    def held_out(y, decay):
        return (model.predict(NEW, *model(y, decay)) - target).square().mean()

    y, decay = Y.clone().requires_grad_(), DECAY.clone().requires_grad_()
    found = torch.autograd.grad(held_out(y, decay), (y, decay))
    step = 1e-5
    with torch.no_grad():
        quotient = (held_out(Y, DECAY + step) - held_out(Y, DECAY - step)) / (2 * step)
        moves = step * torch.eye(len(Y))
        losses = [[held_out(Y + sign * move, DECAY) for move in moves] for sign in (1, -1)]
    assert float(found[1]) == pytest.approx(float(quotient), rel=1e-5, abs=1e-7)
    expected = torch.tensor([(up - down) / (2 * step) for up, down in zip(*losses, strict=True)])
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)

    # The value's slope in the decay is what it weighs (envelope theorem).
    v, w = model(y, decay)
    (slope,) = torch.autograd.grad(model.objective(y, decay, v, w), decay)
    sizes = v.detach().norm(dim=-1).sum() + w.detach().norm(dim=-1).sum()
    assert float(slope) == pytest.approx(float(sizes), rel=1e-6)


def test_batches_are_single_items():
    model = ConvexReLU(X, patterns=20)
    decays = torch.tensor([0.05, 0.2, 1.0])
    v, w = model(Y, decays)
    predictions, values = model.predict(NEW, v, w), model.objective(Y, decays, v, w)
    for i, decay in enumerate(decays):
        single = model(Y, decay)
        torch.testing.assert_close(predictions[i], model.predict(NEW, *single), rtol=0, atol=1e-7)
        torch.testing.assert_close(values[i], model.objective(Y, decay, *single), rtol=0, atol=1e-9)


def test_other_losses():
    labels = torch.sign(Y)
    model = ConvexReLU(X, loss=logistic_loss)
    v, w = model(labels, DECAY)
    value = float(model.objective(labels, DECAY, v, w))
    network = model.network(v, w)
    softplus = torch.nn.functional.softplus
    rebuilt = network_objective(network, X, labels, DECAY, lambda out, y: softplus(-y * out).sum())
    assert rebuilt == pytest.approx(value, abs=1e-9)
    absolute = ConvexReLU(X, loss=lambda out, y: cp.norm1(out - y))
    v, w = absolute(Y, DECAY)
    rebuilt = network_objective(absolute.network(v, w), X, Y, DECAY, lambda out, y: (out - y).abs().sum())
    assert rebuilt == pytest.approx(float(absolute.objective(Y, DECAY, v, w)), abs=1e-8)


def test_more_decay_than_data_gives_the_network_of_no_neurons():
    model = ConvexReLU(X)
    v, w = model(Y, torch.tensor(100.0))
    assert model.predict(NEW, v, w).abs().max() <= 1e-8
    network = model.network(v, w)
    assert network(torch.tensor(NEW)).abs().max() <= 1e-8
    assert batch_norm_closed_form(X[:3], Y[:3], 100.0)(torch.tensor(NEW)).abs().max() == 0


def test_weight_decay_by_tune():
    model = ConvexReLU(X, patterns=20)
    target = torch.tensor(NEW[:, 0])
    y = torch.tensor(X[:, 0]) + 0.5 * Y
    result = tune(
        model,
        lambda v, w: (model.predict(NEW, v, w) - target).square().mean(),
        {"weight_decay": (1e-3, 10.0)},
        arguments=lambda decay: (y, decay),
    )
    grid = torch.logspace(-3, 1, 20, dtype=torch.float64)
    errors = (model.predict(NEW, *model(y, grid)) - target).square().mean(-1)
    assert result.value <= float(errors.min()) * 1.01
    assert len(result.history) <= 30  # a coarse grid, then steps by the gradient


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ConvexReLU(np.zeros(3)), ["X", "(3,)"]),
        (lambda: ConvexReLU(np.ones((4, 2)), batch_norm=True), ["equal rows"]),
        (lambda: ConvexReLU(X, patterns=np.ones((4, 3))), ["patterns", "8", "(4, 3)"]),
        (lambda: ConvexReLU(X, patterns=np.zeros((1, 8))), ["active somewhere"]),
        (lambda: ConvexReLU(X, patterns=0), ["count"]),
        (lambda: ConvexReLU(X, patterns=5)(Y[:7], DECAY), ["(y)", "(8,)", "(7,)"]),
        (lambda: ConvexReLU(X, patterns=5).predict(np.ones((2, 4)), torch.ones(1, 3), torch.ones(1, 3)), ["3 columns"]),
        (lambda: ConvexReLU(X, patterns=5).network(torch.ones(2, 1, 3), torch.ones(2, 1, 3)), ["one item"]),
        (lambda: batch_norm_closed_form(X, Y, 0.1), ["rank n - 1 = 7", "got 3"]),
        (lambda: batch_norm_closed_form(X.T, Y, 0.1), ["y must have shape (3,)", "(8,)"]),
        (lambda: batch_norm_closed_form(X.T, np.ones((3, 2)), 0.1), ["one-hot"]),
        (lambda: batch_norm_closed_form(X.T, Y[:3], -1.0), ["weight_decay"]),
    ],
)
def test_refusals(call, words):
    with pytest.raises(InvalidArgument) as caught:
        call()
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_negative_decay_has_no_solution():
    with pytest.raises((SolveError, InvalidArgument)):
        ConvexReLU(X, patterns=5)(Y, torch.tensor(-1.0))

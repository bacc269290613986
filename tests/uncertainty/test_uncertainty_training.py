"""CVaR of tensors, the augmented Lagrangian, and what the two examples promise."""

import importlib.util
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers.errors import InvalidArgument
from conelayers.uncertainty import AugmentedLagrangian, cvar

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.93, 0.999])
def test_cvar_is_that_of_cvxpy(beta):
    losses = torch.tensor(np.random.default_rng(0).standard_normal((2, 3, 17)), requires_grad=True)
    expected = [[cp.cvar(row, beta).value for row in rows] for rows in losses.detach().numpy()]
    np.testing.assert_allclose(cvar(losses, beta).detach(), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: cvar(x, beta), losses)


def test_the_augmented_lagrangian_finds_the_constrained_minimum_and_its_multiplier():
    # minimise (x - 2)^2 subject to x <= 1: x = 1 with multiplier 2.
    x = torch.zeros((), requires_grad=True)
    loss = AugmentedLagrangian(penalty=5.0, every=50)
    optimizer = torch.optim.SGD([x], lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        loss((x - 2).square(), x - 1).backward()
        optimizer.step()
    assert float(x.detach()) == pytest.approx(1, abs=1e-6)
    assert float(loss.multiplier) == pytest.approx(2, abs=1e-5)
    loss.eval()
    before = float(loss.multiplier)
    for _ in range(100):
        loss(x.detach(), torch.tensor(3.0))
    assert float(loss.multiplier) == before


@pytest.mark.parametrize(
    "call",
    [
        lambda: cvar(torch.zeros(3), 1.0),
        lambda: cvar(torch.zeros(2, 0), 0.5),
        lambda: cvar(torch.arange(3), 0.5),
        lambda: AugmentedLagrangian(penalty=0.0),
        lambda: AugmentedLagrangian(every=0),
        lambda: AugmentedLagrangian()(torch.zeros(()), torch.zeros(3)),
    ],
)
def test_refusals(call):
    with pytest.raises(InvalidArgument):
        call()


def test_a_learned_set_guarantees_more():
    # All seeds: python benchmarks/uncertainty.py --part newsvendor
    numbers, _, _ = example("uncertainty_newsvendor").experiment(0, steps=100)
    assert numbers["guaranteed"] >= 0.15
    assert numbers["violations"] <= numbers["base_violations"] + 0.02


def test_a_tuned_radius_lowers_test_errors():
    regression = example("uncertainty_radius")
    below = [regression.experiment(seed)[0]["below"] for seed in range(8)]
    assert np.mean(below) >= 0.05
    assert min(below) >= 0

"""Deep equilibrium models of any cell: gradients, warm starts, penalties, trajectories."""

import copy
import pickle

import pytest
import torch
from equilibria import TIGHT, assert_close, gradients
from torch import nn
from torch.func import functional_call

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.iterations import Anderson
from conelayers.fixed_points.modes.unrolled import Unrolled
from conelayers.layers.deq import DEQ, fixed_point_correction


class Cell(nn.Module):
    def __init__(self, n=7):
        super().__init__()
        self.W, self.U = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, z, x):
        return torch.tanh(self.W(z) + self.U(x))


def test_deq_gradients_with_spectral_normalisation_against_unrolled():
    x = torch.randn(4, 7)
    model = DEQ(Cell(), solver=Anderson(**TIGHT), spectral_norm=0.6)
    with torch.no_grad():
        model.cell.W.weight.mul_(5)
    unrolled = copy.deepcopy(model)
    unrolled.adjoint = Unrolled(100)
    assert_close(gradients(model(x), model), gradients(unrolled(x), unrolled))
    normalized = model.normalized_parameters()
    assert torch.linalg.matrix_norm(normalized["W.weight"], ord=2) <= 0.6 + 1e-12
    assert torch.equal(normalized["W.bias"], model.cell.W.bias)
    z = model(x)
    assert (functional_call(model.cell, normalized, (z, x)) - z).abs().max() < 1e-11


def test_deq_warm_start_keeps_one_detached_copy():
    model, x = DEQ(Cell(), warm_start=True, spectral_norm=0.9), torch.randn(4, 7)
    _, cold = model(x, return_info=True)
    _, warm = model(x, return_info=True)
    assert warm.iterations.max() == 0 < cold.iterations.max()
    assert not model.state.requires_grad
    model(torch.randn(2, 7))  # another batch size starts afresh
    model.reset_state()
    assert model.state is None
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(copied(x), model(x))


def test_jacobian_penalty_estimates_the_frobenius_norm():
    model, x = DEQ(Cell(), spectral_norm=0.9), torch.randn(3, 7)
    z = model(x)
    W = model.normalized_parameters()["W.weight"]
    J = (1 - model.cell.W.weight.new_tensor(0) - torch.tanh(
        functional_call(model.cell, model.normalized_parameters(), (z, x)).atanh()
    ).square())[:, :, None] * W  # fmt: skip
    exact = J.square().sum() / z.numel()
    estimate = model.jacobian_penalty(z, x, samples=2000)
    assert abs(float(estimate.detach() / exact.detach()) - 1) < 0.1
    assert torch.autograd.grad(estimate, model.cell.W.weight)[0].abs().max() > 0


def test_trajectory_and_correction():
    model, x = DEQ(Cell(), spectral_norm=0.9), torch.randn(3, 7)
    z = model(x)
    states = model.trajectory(x, (1, 3, 30))
    distances = [float((s - z).norm().detach()) for s in states]
    assert distances[0] > distances[1] > distances[2]
    losses = [s.square().mean() for s in states]
    total = fixed_point_correction(losses, decay=0.5)
    assert torch.allclose(total, losses[2] + 0.5 * losses[1] + 0.25 * losses[0])
    assert torch.autograd.grad(total, model.cell.U.weight)[0].abs().max() > 0
    with pytest.raises(InvalidArgument):
        model.trajectory(x, (3, 3))

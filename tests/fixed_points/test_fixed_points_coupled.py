"""Cells that let the items of a batch depend on each other: found out, and solved as one system."""

import copy

import pytest
import torch
from torch import nn

from conelayers import DEQ, GMRES, Anderson, Broyden, ImplicitAdjoint, Picard, Unrolled, fixed_point

TIGHT = {"atol": 1e-12, "rtol": 1e-12}


class Normalized(nn.Module):
    def __init__(self, n=5):
        super().__init__()
        self.W, self.norm = nn.Linear(n, n), nn.BatchNorm1d(n)

    def forward(self, z, x):
        return torch.tanh(0.4 * self.norm(self.W(z) + x))


def gradients(model, x):
    model = copy.deepcopy(model)  # running statistics move at every evaluation
    z = model(x)
    return torch.autograd.grad((z.square() + z).sum(), [*model.cell.W.parameters(), *model.cell.norm.parameters()])


@pytest.mark.parametrize("adjoint", [ImplicitAdjoint(), ImplicitAdjoint(GMRES()), ImplicitAdjoint(Broyden())], ids=repr)
@pytest.mark.parametrize("batch_dims", [None, 0])
@pytest.mark.parametrize("items", [2, 7])
def test_batch_normalization_in_training(adjoint, batch_dims, items):
    x = torch.randn(items, 5)
    model = DEQ(Normalized(), solver=Anderson(**TIGHT), adjoint=adjoint, batch_dims=batch_dims)
    found = gradients(model, x)
    model.adjoint = Unrolled(100)
    for a, b in zip(found, gradients(model, x), strict=True):
        assert (a - b).abs().max() <= 1e-7 * max(1.0, float(b.abs().max()))


def test_what_is_measured_says_so():
    x = torch.randn(6, 5)
    for training in (True, False):
        model = DEQ(Normalized().train(training), solver=Anderson(**TIGHT))
        z, info = model(x, return_info=True)
        (g,) = torch.autograd.grad(z.square().sum(), model.cell.W.weight)
        assert info.adjoint.coupled == training
        assert info.adjoint.residual.shape == (6,) and info.adjoint.residual.max() < 1e-8
        assert torch.linalg.vector_norm(model.cell(z, x) - z, dim=-1).max() < 1e-11


@pytest.mark.parametrize("solver", [Picard(**TIGHT), Anderson(**TIGHT), Broyden(**TIGHT)], ids=repr)
def test_items_wait_for_those_that_they_depend_on(solver):
    """The second item stands still from the start, until the first one's moves reach it."""
    a = torch.tensor([[1.0], [0.0], [0.0]])

    def f(z):
        return 0.5 * z + 0.25 * z.roll(1, 0) * (z.roll(1, 0) > 0.5) + a

    z, info = fixed_point(f, torch.zeros(3, 1), solver=solver, return_info=True)
    assert (f(z) - z).abs().max() < 1e-11
    assert info.converged.all()


def test_independent_items_take_one_product_more_for_the_proof():
    W, x = 0.1 * torch.randn(4, 4), torch.randn(3, 4, requires_grad=True)
    solver = Anderson(atol=1e-15, rtol=1e-15)
    z, info = fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros(3, 4), solver=solver, return_info=True)
    torch.autograd.grad(z.sum(), x)
    J = (1 - z.detach().square())[:, :, None] * W
    u = torch.linalg.solve(torch.eye(4) - J.mT, torch.ones(3, 4))
    assert not info.adjoint.coupled
    assert (info.adjoint.solution - u).abs().max() < 1e-9
    residual = torch.linalg.vector_norm(
        1 + (J.mT @ info.adjoint.solution[..., None])[..., 0] - info.adjoint.solution, dim=-1
    )
    assert (info.adjoint.residual - residual).abs().max() < 1e-14

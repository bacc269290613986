"""Solutions whose multipliers are not unique: the Newton finish is as accurate whatever solver came before."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from data_readers import data_folder

from conelayers import CvxpyLayer

COUNT, ASSETS = 6, 7
SHORT, TURNOVER, RISK = 2e-4, 1e-3, 5.0


def portfolio(solver):
    """Turnover and short costs, with budget, leverage and size limits that hold with equality together."""
    x, f, u = cp.Variable(ASSETS), cp.Variable(ASSETS), cp.Variable(ASSETS)
    w, alpha, S = cp.Parameter(ASSETS), cp.Parameter(ASSETS), cp.Parameter((ASSETS, ASSETS))
    gain = alpha @ x - RISK * cp.sum_squares(f) - SHORT * cp.sum(cp.neg(x)) - TURNOVER * cp.norm1(u)
    limits = [f == S @ x, u == x - w, cp.sum(x) == 1, cp.norm1(x) <= 1.5, cp.norm_inf(x) <= 0.5]
    return CvxpyLayer(cp.Problem(cp.Maximize(gain), limits), [w, alpha, S], [x], solver=solver)


def constructed():
    """Holdings at the limit of leverage, one of them zero; trading them pays for few only."""
    generator = torch.Generator().manual_seed(1)
    size = torch.rand(COUNT, ASSETS, generator=generator) + 0.2
    size[:, -1] = 0.0
    side = torch.tensor([-1.0, 1, 1, 1, -1, 1, 0])
    long, short = size * (side > 0), size * (side < 0)
    w = 1.25 * long / long.sum(-1, keepdim=True) - 0.25 * short / short.sum(-1, keepdim=True)
    alpha = 1 + 3e-4 * torch.randn(COUNT, ASSETS, generator=generator)
    return w, alpha, 0.005 * torch.randn(COUNT, ASSETS, ASSETS, generator=generator)


def answers(solver, w, alpha, S):
    alpha = alpha.clone().requires_grad_()
    (x,) = portfolio(solver)(w, alpha, S)
    weights = torch.arange(1.0, ASSETS + 1)
    return x.detach(), torch.autograd.grad((x * weights).sum(), alpha)[0]


@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
def test_the_solver_does_not_matter(solver):
    data = constructed()
    expected, right = answers(None, *data)
    x, gradient = answers(solver, *data)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(gradient, right, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("solver", [None, "CLARABEL", "SCS"])
def test_six_portfolios(solver):
    path = data_folder("cases") / "portfolio_irregular.npz"
    data = np.load(path)
    w, alpha, S, right = (torch.from_numpy(data[name]) for name in ("w", "alpha", "S", "wtilde"))
    alpha.requires_grad_()
    (x,) = portfolio(solver)(w, alpha, S)
    torch.testing.assert_close(x.detach(), right, rtol=0, atol=2e-7)
    (gradient,) = torch.autograd.grad(x[0, 1], alpha)
    torch.testing.assert_close(gradient[0, :2], torch.tensor([0.0, 357.2307]), rtol=1e-5, atol=1e-3)

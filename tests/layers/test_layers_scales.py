"""Huge weights, masks and costs beside ordinary ones: values and gradients are those of the small part by itself."""

import cvxpy as cp
import pytest
import torch

from conelayers import CvxpyLayer


def simplex_projection(scores):
    ordered, _ = scores.sort(-1, descending=True)
    count = torch.arange(1, scores.shape[-1] + 1)
    excess = ordered.cumsum(-1) - 1
    support = (ordered - excess / count > 0).sum(-1, keepdim=True)
    return (scores - excess.gather(-1, support - 1) / support).clamp(min=0)


@pytest.mark.parametrize("weight", [1e3, 1e4, 1e5])
def test_a_heavy_weight_beside_a_ball(weight):
    x, z, a, b = (cp.Variable(3), cp.Variable(3), cp.Parameter(3), cp.Parameter(3))
    objective = cp.Minimize(cp.sum_squares(weight * x - a) + cp.sum_squares(z - b))
    layer = CvxpyLayer(cp.Problem(objective, [cp.norm(x) <= 1, z >= 0, cp.sum(z) == 1]), [a, b], [z, x])
    torch.manual_seed(0)
    scores = torch.randn(24, 3).requires_grad_()
    towards = torch.randn(24, 3)
    z_value, x_value = layer(weight * (1 + 0.1 * towards), scores)
    torch.testing.assert_close(z_value, simplex_projection(scores.detach()), rtol=0, atol=1e-10)
    ball = (1 + 0.1 * towards) / (1 + 0.1 * towards).norm(dim=-1, keepdim=True)
    torch.testing.assert_close(x_value, ball, rtol=0, atol=1e-9)
    found = torch.autograd.grad((z_value * towards).sum(), scores)[0]
    support = (simplex_projection(scores.detach()) > 0).double()
    mean = (support * towards).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
    torch.testing.assert_close(found, support * (towards - mean), rtol=0, atol=1e-8)


@pytest.fixture(scope="module")
def projection():
    p, s = cp.Variable(8), cp.Parameter(8)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(p - s) / 2), [cp.sum(p) == 1, p >= 0]), [s], [p])


@pytest.mark.parametrize("mask", [-1e6, -1e9, -1e10, -1e14, -2e19, torch.finfo(torch.float32).min])
def test_masked_scores(projection, mask):
    torch.manual_seed(1)
    scores = torch.randn(33, 8)
    scores[torch.rand(33, 8) < 0.5] = mask
    scores[:, 0] = torch.randn(33)  # one is left
    scores.requires_grad_()
    solution = projection.solve(scores)
    p = solution.variables[0]
    torch.testing.assert_close(p.detach(), simplex_projection(scores.detach()), rtol=0, atol=1e-9)
    assert float(solution.dual_residual.max()) < 1e-9
    direction = torch.randn(33, 8)
    found = torch.autograd.grad((p * direction).sum(), scores)[0]
    support = (simplex_projection(scores.detach()) > 0).double()
    mean = (support * direction).sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
    torch.testing.assert_close(found, support * (direction - mean), rtol=0, atol=1e-8)


@pytest.mark.parametrize("cost", [1e6, 1e9, 1e12])
def test_forbidden_edges(cost):
    X, C = cp.Variable((3, 3)), cp.Parameter((3, 3))
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(C, X))), [X >= 0, cp.sum(X, 0) == 1, cp.sum(X, 1) == 1])
    C_value = torch.tensor([[1.0, 2, cost], [2, cost, 6.5], [3, 6, 9.7]]).requires_grad_()
    layer = CvxpyLayer(problem, [C], [X])
    solution = layer.solve(C_value)
    # Without a forbidden edge: 0-1, 1-2, 2-0 costs 11.5; 0-1, 1-0, 2-2 costs 13.7; 0-0, 1-2, 2-1 costs 13.5.
    expected = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    torch.testing.assert_close(solution.variables[0].detach(), expected, rtol=0, atol=1e-8)

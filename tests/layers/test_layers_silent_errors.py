"""What other packages get silently wrong: one test each, against a closed form or an independent solver."""

import importlib.metadata

import cvxpy as cp
import numpy as np
import pytest
import torch

import conelayers
from conelayers import CvxpyLayer, solve_cone_program
from conelayers.cones import Nonnegative


def test_sum_squares_of_a_symmetric_variable_stays_in_the_objective():
    """CVXPY before 1.9.3 lost it with a native quadratic objective: a strongly convex problem came out unbounded."""
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X) + cp.trace(C @ X))), [C], [X])
    C_value = torch.tensor([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])
    torch.testing.assert_close(layer(C_value)[0], -C_value / 2)


def test_an_old_cvxpy_is_refused(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "1.9.2")
    x = cp.Variable()
    with pytest.raises(conelayers.ConelayersError, match=r"1\.9\.3"):
        CvxpyLayer(cp.Problem(cp.Minimize(x**2)), [], [x])


def test_semidefinite_gradients():
    """diffcp with Clarabel is wrong here. Projecting Q diag(w) Q' has divided differences (w_i+ - w_j+)/(w_i - w_j)."""
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0]), [C], [X])
    torch.manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(3, 3))
    w = torch.tensor([2.0, 0.5, -1.0])
    C_value = (Q * w) @ Q.T
    direction = torch.randn(3, 3)
    direction = direction + direction.T
    p = w.clamp(min=0)
    gaps = w[:, None] - w + torch.eye(3)
    B = (p[:, None] - p + torch.diag((w > 0).double())) / gaps
    expected = Q @ (B * (Q.T @ direction @ Q)) @ Q.T
    _, ours = torch.func.jvp(lambda c: layer(c)[0], (C_value,), (direction,))
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)


def test_bounds_and_semidefinite_variables_are_kept():
    """`x >= 0` and PSD variables are dropped by a fast backend of another package."""
    x, a = cp.Variable(3), cp.Parameter(3)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x >= 0, x <= 1]), [a], [x])
    torch.testing.assert_close(layer(torch.tensor([-1.0, 0.5, 3.0]))[0], torch.tensor([0.0, 0.5, 1.0]))
    X, C = cp.Variable((2, 2), PSD=True), cp.Parameter((2, 2), symmetric=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(X - C))), [C], [X])
    C_value = torch.diag(torch.tensor([1.0, -2.0]))
    torch.testing.assert_close(layer(C_value)[0], torch.diag(torch.tensor([1.0, 0.0])))


def mixed_problem():
    """Two PSD blocks of different order, exponential, second-order, inequality and equality, every dual nonzero."""
    rng = np.random.default_rng(0)
    X, Y = cp.Variable((2, 2), symmetric=True), cp.Variable((3, 3), symmetric=True)
    z, u = cp.Variable(2), cp.Variable(3)
    c = cp.Parameter(3)
    M, N = rng.standard_normal((2, 2)), rng.standard_normal((3, 3))
    constraints = [
        X >> 0,
        cp.ExpCone(z[0], cp.Constant(1.0), z[1]),
        Y - 0.1 * np.eye(3) >> 0,
        cp.SOC(cp.Constant(1.0), u),
        cp.trace(X) + z[1] <= 2,
        cp.trace(Y) == 1,
    ]
    objective = (
        cp.sum_squares(X + M @ M.T)
        + cp.sum_squares(Y - N - N.T)
        + cp.sum_squares(z - np.array([2.0, 0.5]))
        + cp.sum_squares(u - 3 * c)
        + 5 * cp.sum_squares(cp.trace(X) + z[1] - 4)
    )
    return cp.Problem(cp.Minimize(objective), constraints), c


def test_duals_of_semidefinite_and_exponential_constraints_are_not_swapped():
    problem, c = mixed_problem()
    duals = [d for constraint in problem.constraints for d in constraint.dual_variables]
    layer = CvxpyLayer(problem, [c], duals)
    c_value = torch.tensor([1.0, -0.5, 0.7])
    ours = layer(c_value)
    c.value = c_value.numpy()
    problem.solve(solver=cp.SCS, eps=1e-10, max_iters=200_000)
    for tensor, dual in zip(ours, duals, strict=True):
        assert np.abs(dual.value).max() > 1e-3, "a zero reference dual would hide a swap"
        # CVXPY's value of a second-order dual is a column although the dual variable is a vector.
        np.testing.assert_allclose(tensor.numpy(), np.reshape(dual.value, dual.shape), rtol=1e-5, atol=1e-6)


def test_gradients_of_shared_parameters_are_sums_and_not_means():
    x, a, b = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a - b))), [a, b], [x])
    a_value = torch.zeros(2, requires_grad=True)
    layer(a_value, torch.randn(7, 2))[0].sum().backward()
    torch.testing.assert_close(a_value.grad, torch.full((2,), 7.0))


def test_tiny_cotangents_are_differentiated():
    """diffcp returns exactly zero for cotangents below 1e-8."""
    q = torch.zeros(2, requires_grad=True)
    solution = solve_cone_program(torch.eye(2), q, -torch.eye(2), torch.ones(2), [Nonnegative(2)])
    (gradient,) = torch.autograd.grad(1e-12 * solution.x.sum(), q)
    torch.testing.assert_close(gradient, torch.full((2,), -1e-12), rtol=1e-9, atol=0)


def test_single_precision_stays_single():
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a))), [a], [x])
    assert layer(torch.zeros(2, dtype=torch.float32))[0].dtype == torch.float32


def test_dense_gradients_are_accurate_by_default():
    """diffcp's default adjoint has a median relative error of 20 % on dense QPs with 50 variables."""
    n = 50
    x, F, g, G, h = cp.Variable(n), cp.Parameter((n, n)), cp.Parameter(n), cp.Parameter((n, n)), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g) + 0.1 * cp.sum_squares(x)), [G @ x <= h])
    layer = CvxpyLayer(problem, [F, g, G, h], [x])
    torch.manual_seed(0)
    G_value = torch.randn(n, n) / n**0.5
    params = (torch.randn(n, n) / n**0.5 + torch.eye(n), torch.randn(n), G_value, G_value @ torch.randn(n) * 0.1 + 0.1)
    directions = tuple(torch.randn_like(p) for p in params)
    leaves = tuple(p.clone().requires_grad_() for p in params)
    weights = torch.randn(n)
    gradients = torch.autograd.grad(layer(*leaves)[0] @ weights, leaves)
    predicted = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    step = 1e-6
    plus, minus = (
        layer(*(p + sign * step * d for p, d in zip(params, directions, strict=True)))[0] @ weights for sign in (1, -1)
    )
    torch.testing.assert_close(predicted, (plus - minus) / (2 * step), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["norm", "abs", "exp", "max", "sum of abs", "sum of norms"])
def test_inactive_epigraphs(kind):
    """CVXPY's lifted Jacobian is exactly singular here, the user's problem is not: x = a, dx/da = I."""
    x, a = cp.Variable(3), cp.Parameter(3)
    expression, bound = {
        "norm": (cp.norm(x), 10),
        "abs": (cp.abs(x), 5),
        "exp": (cp.exp(x), 50),
        "max": (cp.max(x), 5),
        "sum of abs": (cp.sum(cp.abs(x)), 20),
        "sum of norms": (cp.norm(x) + cp.norm(x - 1), 30),
    }[kind]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [expression <= bound]), [a], [x])
    a_value = torch.tensor([0.3, -0.2, 0.9])
    torch.testing.assert_close(layer(a_value)[0], a_value, rtol=1e-8, atol=1e-9)
    jacobian = torch.func.jacrev(lambda value: layer(value)[0])(a_value)
    torch.testing.assert_close(jacobian, torch.eye(3), rtol=1e-8, atol=1e-8)
    second = torch.func.hessian(lambda value: (layer(value)[0] ** 3).sum())(a_value)
    torch.testing.assert_close(second, torch.diag(6 * a_value), rtol=1e-7, atol=1e-7)

"""Derivative modes for the irregular case: minimum norm, smoothing, Lagrangian proximal."""

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers import ConeLayer, CvxpyLayer
from conelayers.cones import Nonnegative
from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.implicit import Exact, LagrangianProximal, LeastSquares, ResidualEquation, Smoothed, implicit


def T(*values):
    return torch.tensor(values, dtype=torch.float64)


def regular_layer(mode):
    """A problem with an equality, a ball and bounds, and parameters in every part."""
    x, a, Q, d = cp.Variable(3), cp.Parameter(3), cp.Parameter((3, 3)), cp.Parameter()
    total = cp.sum(x) == 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(Q @ x - a)), [total, cp.norm(x) <= d, x >= -0.2])
    return CvxpyLayer(problem, [Q, a, d], [x, total.dual_variables[0]], derivative=mode)


def gradients(layer, values):
    inputs = [v.clone().requires_grad_() for v in values]
    x, dual = layer(*inputs)
    loss = (x * T(1.0, 2.0, 3.0)).sum() + 0.3 * dual.sum()
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, inputs)])


GENERATOR = torch.Generator().manual_seed(0)
VALUES = (
    torch.randn(3, 3, dtype=torch.float64, generator=GENERATOR) + 2 * torch.eye(3),
    torch.randn(3, dtype=torch.float64, generator=GENERATOR),
    T(0.64).squeeze(),
)


@pytest.mark.parametrize(
    ("mode", "tolerance"),
    [
        (LeastSquares(), 1e-9),
        (Smoothed(1e-9), 1e-6),
        (LagrangianProximal(1e-4, side="both"), 1e-6),
        (LagrangianProximal(1e-6, side="lower"), 1e-4),
        (LagrangianProximal(1e-6, side="upper"), 1e-4),
    ],
    ids=repr,
)
def test_all_modes_agree_where_the_problem_is_regular(mode, tolerance):
    assert torch.allclose(
        gradients(regular_layer(mode), VALUES), gradients(regular_layer(Exact()), VALUES), atol=tolerance
    )


def test_proximal_error_orders():
    exact = gradients(regular_layer(Exact()), VALUES)
    errors = {
        (side, tau): float((gradients(regular_layer(LagrangianProximal(tau, side=side)), VALUES) - exact).norm())
        for side in ("lower", "both")
        for tau in (2e-2, 1e-2)
    }
    assert errors["lower", 2e-2] / errors["lower", 1e-2] == pytest.approx(2, rel=0.2)
    assert errors["both", 2e-2] / errors["both", 1e-2] == pytest.approx(4, rel=0.4)


def test_proximal_gradient_of_a_linear_programme_is_informative():
    """Choose the cheapest of three: the derivative is zero; the perturbed vertex says which cost to lower."""
    x, c = cp.Variable(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1])
    wanted = T(0.0, 1.0, 0.0)

    def gradient(mode):
        cost = T(1.0, 2.0, 4.0).requires_grad_()
        (choice,) = CvxpyLayer(problem, [c], [x], derivative=mode)(cost)
        (g,) = torch.autograd.grad(((choice - wanted) ** 2).sum(), cost)
        return g

    assert torch.allclose(gradient(Exact()), torch.zeros(3).double(), atol=1e-9)
    assert torch.allclose(gradient(LeastSquares()), torch.zeros(3).double(), atol=1e-9)
    # dloss/dx = (2, -2, 0): with t = 1 the perturbed costs are (3, 0, 4), whose vertex is the second.
    assert torch.allclose(gradient(LagrangianProximal(1.0)), T(-1.0, 1.0, 0.0), atol=1e-7)
    assert torch.allclose(gradient(LagrangianProximal(0.1)), torch.zeros(3).double(), atol=1e-6)
    # The proximal term keeps the perturbed point near: projection of (1, 0, 0) - (3, 0, 4) / 4 on the simplex.
    assert torch.allclose(gradient(LagrangianProximal(1.0, rho=4.0)), T(-0.375, 0.375, 0.0), atol=1e-7)


def test_proximal_mode_is_for_reverse_mode_and_checks_its_settings():
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x], derivative=LagrangianProximal(1e-3)
    )
    with pytest.raises(UnsupportedError, match="forward mode"):
        torch.func.jvp(lambda c: layer(c)[0], (T(1.0, 1.0),), (T(1.0, 0.0),))
    for arguments in ({"tau": 0.0}, {"tau": 1.0, "rho": -1.0}, {"tau": 1.0, "side": "left"}):
        with pytest.raises(InvalidArgument):
            LagrangianProximal(**arguments)


def pseudo_inverse_jacobian(P, A, D):
    """d(x, y, s)/d(q, b) = (dx, D dv, (D - I) dv) with (dx, dv) = pinv(J)(-dq, db), by NumPy."""
    n, m = P.shape[0], A.shape[0]
    J = np.block([[P, A.T @ D], [A, D - np.eye(m)]])
    full = np.linalg.pinv(J, rcond=1e-9) @ np.diag([-1.0] * n + [1.0] * m)
    return np.vstack([full[:n], D @ full[n:], (D - np.eye(m)) @ full[n:]])


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_least_squares_is_the_pseudo_inverse_of_the_jacobian(mode):
    """A degenerate linear programme: both ranks fail. Reverse and forward mode are the same matrix."""
    P, A = np.diag([0.0, 0.0, 1.0]), np.array([[-1.0, -1, 0], [-2, -2, 0], [0, 0, 1]])
    layer = ConeLayer([Nonnegative(3)], A, sp.csc_array(np.eye(3)), derivative=LeastSquares())
    q, b = T(1.0, 1.0, -1.0), T(-1.0, -2.0, 5.0)

    def solve(q, b):
        found = layer(torch.tensor(P), q, torch.tensor(A), b)
        return torch.cat([found.x, found.y, found.s])

    transform = torch.func.jacrev if mode == "reverse" else torch.func.jacfwd
    jacobian = torch.cat(transform(solve, argnums=(0, 1))(q, b), -1).numpy()
    D = np.diag([1.0, 1.0, 0.0])
    assert np.allclose(jacobian, pseudo_inverse_jacobian(P, A, D), atol=1e-6)


def test_least_squares_has_no_second_derivative():
    layer = regular_layer(LeastSquares())
    with pytest.raises(UnsupportedError, match="Second derivatives"):
        torch.autograd.functional.hessian(lambda a: layer(VALUES[0], a, VALUES[2])[0].sum(), VALUES[1])


def test_residual_equation_against_a_closed_form():
    """z^3 + z = theta, elementwise: dz/dtheta = 1 / (3 z^2 + 1), both modes, batched."""

    def solver(theta):
        z = theta.clone()
        for _ in range(60):
            z = z - (z**3 + z - theta) / (3 * z**2 + 1)
        return z

    equation = ResidualEquation(lambda z, theta: z**3 + z - theta, solver)
    theta = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    (z,) = implicit(equation, theta)
    expected = 1 / (3 * z.detach() ** 2 + 1)
    (gradient,) = torch.autograd.grad(z.sum(), theta)
    assert torch.allclose(gradient, expected, atol=1e-12)
    _, tangent = torch.func.jvp(lambda t: implicit(equation, t)[0], (theta.detach(),), (torch.ones(2, 3).double(),))
    assert torch.allclose(tangent, expected, atol=1e-12)


def test_residual_equation_takes_derivative_modes():
    """A singular Jacobian: the minimum norm of 0 dz = dtheta is zero."""
    equation = ResidualEquation(lambda z, u: (z - u) ** 3, lambda u: u, mode=LeastSquares())
    jacobian = torch.func.jacrev(lambda u: implicit(equation, u)[0])(T(1.0, 2.0))
    assert torch.equal(jacobian.abs(), torch.zeros(2, 2).double())
    with pytest.raises(UnsupportedError, match="Smoothed"):
        smoothed = ResidualEquation(lambda z, u: (z - u) ** 3, lambda u: u, mode=Smoothed(0.1))
        torch.func.jacrev(lambda u: implicit(smoothed, u)[0])(T(1.0, 2.0))


def test_proximal_gradients_of_a_batch_with_an_item_without_solution():
    """The failed item gives nothing to a shared parameter; the others give what they give alone."""
    x, a, low = cp.Variable(), cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.square(x - a)), [x >= low, x <= 1])
    layer = CvxpyLayer(problem, [a, low], [x], derivative=LagrangianProximal(1e-3), on_failure="nan")

    def gradient(lows):
        shared = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        (found,) = layer(shared, lows)
        return torch.autograd.grad(found.nansum(), shared)[0]

    assert torch.allclose(gradient(T(-1.0, 2.0, 0.5)), gradient(T(-1.0, 0.5)), atol=1e-9)

"""CVXPY's atoms in a layer: values are CVXPY's, derivatives are central differences of the polished solution."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer

rng = np.random.default_rng(0)
A, b = rng.standard_normal((6, 4)), rng.standard_normal(6)
S = np.eye(3) + 0.2
POSITIVE = [lambda x: x >= 0.05]

OF_VECTORS = {
    "norm1": (lambda x: 0.1 * cp.norm1(A @ x - b), []),
    "norm2": (lambda x: cp.norm(A @ x - b), []),
    "norm_inf": (lambda x: cp.norm_inf(A @ x - b), []),
    "pnorm": (lambda x: cp.pnorm(A @ x - b, 3), []),
    "mixed_norm": (lambda x: cp.mixed_norm(cp.reshape(A @ x - b, (3, 2), order="C"), 2, 1), []),
    "huber": (lambda x: cp.sum(cp.huber(A @ x - b, 0.7)), []),
    "logistic": (lambda x: cp.sum(cp.logistic(A @ x)), []),
    "entr": (lambda x: -cp.sum(cp.entr(x)), []),
    "kl_div": (lambda x: cp.sum(cp.kl_div(x, np.ones(4))), []),
    "log1p": (lambda x: -cp.sum(cp.log1p(x)), []),
    "log_sum_exp": (lambda x: cp.log_sum_exp(A @ x), []),
    "geo_mean": (lambda x: -cp.geo_mean(x, [1, 2, 3, 1]), POSITIVE),
    "harmonic_mean": (lambda x: -cp.harmonic_mean(x), POSITIVE),
    "inv_prod": (lambda x: cp.inv_prod(x), POSITIVE),
    "power": (lambda x: cp.sum(cp.power(x, -1.5)) - cp.sum(cp.power(x, 0.3)), POSITIVE),
    "quad_over_lin": (lambda x: cp.quad_over_lin(A @ x - b, x[0]), POSITIVE),
    "matrix_frac": (lambda x: cp.matrix_frac(A[:3] @ x, S), []),
    "sum_largest": (lambda x: cp.sum_largest(A @ x, 2), []),
    "cvar": (lambda x: cp.cvar(A @ x, 0.6), []),
    "tv": (lambda x: cp.tv(x), []),
    "std": (lambda x: cp.std(x), []),
    "loggamma": (lambda x: 0.1 * cp.sum(cp.loggamma(x)), POSITIVE),
    "log_normcdf": (lambda x: -cp.sum(cp.log_normcdf(x)), []),
    "SOC": (lambda x: 0, [lambda x: cp.SOC(1 + x[0], A[:3] @ x)]),
    "ExpCone": (lambda x: 0, [lambda x: cp.ExpCone(x[0], x[1] + 2, x[2] + 3)]),
    "PowCone3D": (lambda x: 0, [lambda x: cp.PowCone3D(x[0] + 1, x[1] + 2, x[2], 0.3)]),
    "PowConeND": (lambda x: 0, [lambda x: cp.PowConeND(x[:3] + 2, x[3], np.array([0.2, 0.3, 0.5]))]),
}
OF_MATRICES = {
    "lambda_max": (lambda X: cp.lambda_max(X), []),
    "lambda_sum_largest": (lambda X: cp.lambda_sum_largest(X, 2), []),
    "log_det": (lambda X: -cp.log_det(X), []),
    "tr_inv": (lambda X: cp.tr_inv(X), []),
    "sigma_max": (lambda X: cp.sigma_max(X), []),
    "nuclear norm": (lambda X: cp.normNuc(X), []),
    "von_neumann_entr": (lambda X: -cp.von_neumann_entr(X), []),
    "matrix_frac of a matrix": (lambda X: cp.matrix_frac(np.ones(3), X), []),
    "linear matrix inequalities": (lambda X: 0, [lambda X: X >> 0.1 * np.eye(3), lambda X: X << 2 * np.eye(3)]),
}
INSIDE_PERSPECTIVE = {
    "square": cp.square,
    "exp": cp.exp,
    "log": lambda v: -cp.log(v),
    "power": lambda v: cp.power(v, 1.5),
    "huber": cp.huber,
}


def check(problem, parameter, variables, value):
    layer = CvxpyLayer(problem, [parameter], variables)
    theta = torch.tensor(value, requires_grad=True)
    outputs = layer(theta)
    parameter.value = value
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    for output, variable in zip(outputs, variables, strict=True):
        # Clarabel's objective is right to 1e-11; where it is flat its minimiser is right to the root of that.
        np.testing.assert_allclose(output.detach().numpy(), variable.value, atol=2e-5)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(output.shape, generator=generator) for output in outputs]
    direction = torch.randn(theta.shape, generator=generator, dtype=theta.dtype)

    def loss(theta):
        return sum((output * weight).sum() for output, weight in zip(layer(theta), weights, strict=True))

    (gradient,) = torch.autograd.grad(loss(theta), theta)
    step = 1e-5
    with torch.no_grad():
        slope = (loss(theta + step * direction) - loss(theta - step * direction)) / (2 * step)
    assert abs(float((gradient * direction).sum() - slope)) <= 1e-8 * max(1.0, abs(float(slope)))
    assert float(gradient.norm()) > 1e-6


@pytest.mark.parametrize("name", OF_VECTORS)
def test_atoms_of_vectors(name):
    function, constraints = OF_VECTORS[name]
    x, c = cp.Variable(4), cp.Parameter(4)
    objective = function(x) + c @ x + 0.5 * cp.sum_squares(x)
    problem = cp.Problem(cp.Minimize(objective), [constraint(x) for constraint in constraints])
    check(problem, c, [x], np.array([0.3, -1.2, 0.4, -0.6]))


@pytest.mark.parametrize("name", OF_MATRICES)
def test_atoms_of_matrices(name):
    function, constraints = OF_MATRICES[name]
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3))
    objective = function(X) + cp.sum(cp.multiply(C, X)) + 0.5 * cp.sum_squares(X)
    problem = cp.Problem(cp.Minimize(objective), [constraint(X) for constraint in constraints])
    check(problem, C, [X], np.array([[0.4, -1.0, 0.3], [0.2, -1.3, 0.6], [-0.5, 0.1, -2.1]]))


@pytest.mark.parametrize("name", INSIDE_PERSPECTIVE)
def test_perspectives(name):
    x, s, c = cp.Variable(), cp.Variable(nonneg=True), cp.Parameter(nonneg=True)
    perspective = cp.perspective(INSIDE_PERSPECTIVE[name](x), s)
    problem = cp.Problem(cp.Minimize(perspective + c * s + cp.square(x - 2) + cp.square(s - 1)))
    check(problem, c, [x, s], np.array(0.7))

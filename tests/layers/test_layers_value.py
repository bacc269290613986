"""The optimal value against CVXPY's, its derivatives against differences and against the way through the solution."""

import pickle

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.backends import Clarabel
from conelayers.errors import InvalidArgument, UnsupportedError

torch.manual_seed(0)
n = 4
x = cp.Variable(n, name="x")
mu, c, r = cp.Parameter(n, name="mu"), cp.Parameter(n, name="c"), cp.Parameter(name="r")
g = cp.Parameter(nonneg=True, name="g")
M = cp.Parameter((n, n), PSD=True, name="M")
simplex = [cp.sum(x) == 1, x >= 0]
PSD = torch.eye(n) + 0.1 * torch.ones(n, n)
PROBLEMS = {
    "quadratic with a constant": (cp.Minimize(cp.sum_squares(x - mu) + r + cp.sum(c)), simplex, [mu, c, r]),
    "maximise": (cp.Maximize(mu @ x - cp.sum_squares(x) + 3 * r), simplex, [mu, r]),
    "lifted": (cp.Minimize(cp.norm(x - mu) + g * cp.norm1(x) + 2), simplex, [mu, g]),
    "curved constraints": (cp.Maximize(cp.sum(cp.entr(x)) + mu @ x), [cp.sum(x) == 1, cp.norm(x) <= g], [mu, g]),
    "parametric matrix": (cp.Minimize(cp.quad_form(x, M) + mu @ x - 5), simplex, [M, mu]),
}
VALUES = {
    "mu": torch.tensor([0.3, -0.2, 0.9, 0.25]),
    "c": torch.tensor([1.0, 2.0, -1.0, 0.5]),
    "r": torch.tensor(0.7),
    "g": torch.tensor(0.8),
    "M": PSD,
}


def at(parameters):
    return [VALUES[p.name()].double().requires_grad_() for p in parameters]


@pytest.mark.parametrize("name", PROBLEMS)
def test_value_is_cvxpys_and_its_gradient_is_right(name):
    objective, constraints, parameters = PROBLEMS[name]
    problem = cp.Problem(objective, constraints)
    layer, values = CvxpyLayer(problem, parameters, [x]), at(parameters)
    for parameter, value in zip(parameters, values, strict=True):
        parameter.value = value.detach().numpy()
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
    found = layer.solve(*values).value
    assert found.shape == () and abs(float(found.detach()) - problem.value) < 1e-8
    gradients = torch.autograd.grad(found, values)
    for value, gradient in zip(values, gradients, strict=True):
        direction = torch.randn_like(value)
        direction = direction + direction.T if direction.dim() == 2 else direction

        def moved(step, value=value, direction=direction):
            there = [v + step * direction if v is value else v for v in values]
            return float(layer.solve(*there).value.detach())

        difference = (moved(1e-4) - moved(-1e-4)) / 2e-4
        assert abs(difference - float((gradient * direction).sum())) < 1e-7


def test_gradient_equals_that_through_the_solution_and_solves_no_system(monkeypatch):
    objective, constraints, parameters = PROBLEMS["maximise"]
    layer, values = CvxpyLayer(cp.Problem(objective, constraints), parameters, [x]), at(parameters)
    solution = layer.solve(*values)
    w = solution.variables[0]
    through = torch.autograd.grad(values[0] @ w - w.square().sum() + 3 * values[1], values, retain_graph=True)
    from conelayers.layers.compiled_chain import CompiledChain
    from conelayers.residual import ConicConditions

    for owner, method in ((ConicConditions, "pullback"), (CompiledChain, "_adjoint")):
        monkeypatch.setattr(owner, method, lambda *a, **k: pytest.fail("a linear system was solved"))
    torch.testing.assert_close(torch.autograd.grad(solution.value, values), through, rtol=0, atol=1e-12)


def test_second_and_forward_derivatives_see_the_solution_move():
    objective, constraints, parameters = PROBLEMS["maximise"]
    layer, values = CvxpyLayer(cp.Problem(objective, constraints), parameters, [x]), at(parameters)
    hessian = torch.autograd.functional.hessian(lambda m: layer.solve(m, values[1]).value, values[0])
    # The gradient of the value in mu is x: the Hessian is the Jacobian of x.
    jacobian = torch.autograd.functional.jacobian(lambda m: layer(m, values[1])[0], values[0])
    torch.testing.assert_close(hessian, jacobian, rtol=0, atol=1e-9)
    tangent = torch.randn(n, dtype=torch.float64)
    _, pushed = torch.func.jvp(lambda m: layer.solve(m, values[1].detach()).value, (values[0].detach(),), (tangent,))
    torch.testing.assert_close(pushed, torch.autograd.grad(layer.solve(*values).value, values[0])[0] @ tangent)


def test_batches_shared_parameters_and_types():
    objective, constraints, parameters = PROBLEMS["quadratic with a constant"]
    layer, (m, k, s) = (
        CvxpyLayer(cp.Problem(objective, constraints), parameters, [x]),
        at(PROBLEMS["quadratic with a constant"][2]),
    )
    many = torch.stack([m, 2 * m, -m]).detach().requires_grad_()
    value = layer.solve(many, k, s).value
    assert value.shape == (3,)
    torch.testing.assert_close(value, torch.stack([layer.solve(one, k, s).value for one in many]))
    value.sum().backward()
    torch.testing.assert_close(s.grad, torch.tensor(3.0, dtype=torch.float64))
    only_constant = layer.solve(m.detach(), k.detach(), torch.zeros(3).double())
    assert only_constant.value.shape == (3,)
    assert layer.solve(m.float(), k.float(), s.float()).value.dtype == torch.float32
    mapped = torch.func.vmap(lambda one: layer.solve(one, k.detach(), s.detach()).value)(many.detach())
    torch.testing.assert_close(mapped, value.detach())


def test_geometric_programme():
    y, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    for objective in (cp.Minimize(3 * y + a / y), cp.Maximize(1 / (3 * y + a / y))):
        layer = CvxpyLayer(cp.Problem(objective), [a], [y], gp=True)
        at = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        value, best = layer.solve(at).value, 2 * (3 * at) ** 0.5
        expected = best if objective.NAME == "minimize" else 1 / best
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.autograd.grad(value, at), torch.autograd.grad(expected, at))


def test_items_without_a_solution():
    y, a = cp.Variable(), cp.Parameter()
    low = CvxpyLayer(cp.Problem(cp.Minimize(y), [y >= a, y <= 1]), [a], [y], on_failure="nan")
    given = torch.tensor([0.0, 2.0], requires_grad=True)
    value = low.solve(given).value
    assert value.tolist() == [0.0, np.inf]
    value[0].backward()
    assert given.grad.tolist() == [1.0, 0.0]
    up = CvxpyLayer(cp.Problem(cp.Maximize(a * y), [y >= 0]), [a], [y], on_failure="nan")
    assert up.solve(torch.tensor([1.0, -1.0, torch.nan])).value.isinf().tolist() == [True, False, False]


def test_a_constant_changed_in_place_is_noticed():
    y, a = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(y) + a), [y >= 1]), [a], [y])
    given = torch.tensor(1.0)
    solution = layer.solve(given)
    given += 1
    with pytest.raises(InvalidArgument, match="in place"):
        solution.value  # noqa: B018


W = cp.Variable((2, 3), name="W")
T, q = cp.Parameter((3, 2), name="T"), cp.Parameter(3, name="q")
EXPRESSIONS = {
    "affine": T @ W + np.arange(9.0).reshape(3, 3),
    "index": W[1, ::2],
    "product": W @ q,
    "stack": cp.vstack([W, cp.reshape(q, (1, 3), order="F")]),
    "transpose and sum": cp.sum(W.T, axis=1) / 3,
    "kron": cp.kron(np.eye(2), W),
    "ratio": cp.sum(W @ q) / cp.norm(W, "fro"),
    "pointwise": cp.multiply(cp.exp(W), cp.abs(W)) + cp.log(W + 5) + cp.logistic(W) + cp.huber(W, 0.5) + cp.square(W),
    "powers": cp.power(W + 5, 0.5) + cp.inv_pos(W + 5) + cp.power(W, 3) + cp.xexp(W) + cp.entr(W + 5),
    "max": cp.maximum(W, 0.1, cp.minimum(W, 0)) + cp.max(W) - cp.min(W, axis=0),
    "norms": cp.hstack([cp.norm1(W), cp.norm(W, 2), cp.norm(W, "nuc"), cp.norm(cp.vec(W, order="F"), 3)]),
    "largest": cp.norm_inf(W) * q,
    "norm over an axis": cp.norm(W, 2, axis=1) + cp.norm(W, 1, axis=1) + cp.sum_largest(W[0, :], 1.5) * np.ones(2),
    "quadratic": cp.quad_form(W[0, :] - q, np.diag([1.0, 2, 3])) + cp.matrix_frac(W[1, :], np.diag([1.0, 2, 3])),
    "squares": cp.sum_squares(W) + cp.quad_over_lin(W, 2 + cp.square(W[0, 0])) + cp.std(q @ W.T),
    "log_sum_exp": cp.log_sum_exp(W, axis=0),
    "geometric mean": cp.geo_mean(W[0, :] + 5) + cp.harmonic_mean(W[0, :] + 5),
    "entropies": cp.rel_entr(W + 5, W + 6) + cp.kl_div(W + 5, 2),
    "matrices": cp.log_det(W @ W.T) + cp.lambda_max(W @ W.T) + cp.tr_inv(W @ W.T) + cp.trace(W @ T),
    "cumulative": cp.cumsum(W, axis=1) + cp.diff(cp.hstack([W, W[:, :1]]), axis=1),
}


@pytest.fixture(scope="module")
def everything():
    problem = cp.Problem(cp.Minimize(cp.sum_squares(W - T.T) + q @ W[0, :]), [cp.sum(W) == 1, W <= 2])
    names = list(EXPRESSIONS)
    return problem, CvxpyLayer(problem, [T, q], [EXPRESSIONS[name] for name in names]), names


def test_expressions_are_cvxpys(everything):
    problem, layer, names = everything
    given = [torch.randn(2, 3, 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)]
    found = layer(*given)
    for item in range(2):
        T.value, q.value = given[0][item].numpy(), given[1].numpy()
        problem.solve(solver="CLARABEL", tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        for name, value in zip(names, found, strict=True):
            assert value.shape == (2, *EXPRESSIONS[name].shape), name
            np.testing.assert_allclose(value[item].numpy(), EXPRESSIONS[name].value, atol=1e-5, err_msg=name)


def test_expressions_are_differentiated(everything):
    _, layer, _ = everything
    given = [torch.randn(3, 2).double().requires_grad_(), torch.randn(3).double().requires_grad_()]
    weights = [torch.randn(value.shape).double() for value in layer(*given)]
    total = lambda *p: sum((w * v).sum() for w, v in zip(weights, layer(*p), strict=True))  # noqa: E731
    assert torch.autograd.gradcheck(total, given, atol=1e-5, rtol=1e-4)
    values = pickle.loads(pickle.dumps(layer))(*given)
    torch.testing.assert_close(values, layer(*given))


def test_expressions_beside_variables_duals_and_attributes():
    S, D = cp.Parameter((2, 2), PSD=True), cp.Variable(2, name="D")
    budget = cp.sum(D) == 1
    problem = cp.Problem(cp.Minimize(cp.quad_form(D, S)), [budget])
    dual = budget.dual_variables[0]
    layer = CvxpyLayer(problem, [S], [D, cp.sqrt(cp.quad_form(D, S)), 2 * dual, S @ D])
    given = torch.tensor([[2.0, 1.0], [0.0, 1.0]]).double()  # read as (S + S')/2, as the problem reads it
    D_value, risk, doubled, gradient = layer(given)
    mean = (given + given.T) / 2
    torch.testing.assert_close(risk, (D_value @ mean @ D_value).sqrt())
    torch.testing.assert_close(gradient, mean @ D_value)
    torch.testing.assert_close(doubled.abs(), 2 * (2 * mean @ D_value)[0].abs())


def test_expressions_that_cannot_be_returned():
    other, extra = cp.Variable(2, name="other"), cp.Parameter(name="extra")
    D = cp.Variable((2, 2), name="D", PSD=True)
    problem = cp.Problem(cp.Minimize(cp.trace(D)))
    for entry, message in (
        (cp.sum(other), "has other, which the problem has not"),
        (extra * D, "extra, which the problem has"),
        (cp.Constant(2.0) + 1, "no variable"),
        ("D", "must be a subset of problem.variables"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            CvxpyLayer(problem, [], [entry])
    with pytest.raises(UnsupportedError, match="lambda_sum_largest"):
        CvxpyLayer(problem, [], [cp.lambda_sum_largest(D, 1)])


def test_value_by_another_backend():
    objective, constraints, parameters = PROBLEMS["lifted"]
    problem, values = cp.Problem(objective, constraints), at(parameters)
    ours, theirs = (CvxpyLayer(problem, parameters, [x], solver=s).solve(*values).value for s in (None, Clarabel()))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)

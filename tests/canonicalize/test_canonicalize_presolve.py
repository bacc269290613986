"""Substituting epigraph variables: same solutions and duals, a nonsingular Jacobian when the bound is inactive."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from canonicalize.clarabel_oracle import difference, solve, solve_with_cvxpy, tensors

from conelayers.canonicalize import ParametricProgram
from conelayers.cones import Nonnegative, Zero

N = 3


def epigraphs():
    """Name -> function that bounds x through an epigraph: x, d -> constraint."""
    weights = np.array([[1.0, 2.0, -1.0], [0.5, -1.0, 1.0]])
    return {
        "norm2": lambda x, d: cp.norm2(x) <= d,
        "norm2 of an affine expression": lambda x, d: cp.norm2(weights @ x - 0.3) <= d,
        "abs": lambda x, d: cp.abs(x) <= d,
        "exp": lambda x, d: cp.exp(x) <= d,
        "max": lambda x, d: cp.max(x) <= d,
        "maximum": lambda x, d: cp.maximum(x, 2 * x) <= d,
        "norm_inf": lambda x, d: cp.norm_inf(x) <= d,
        "sum_squares": lambda x, d: cp.sum_squares(x) <= d,
        "square": lambda x, d: cp.square(x) <= d,
        "huber": lambda x, d: cp.pos(x) <= d,
        "lambda_max": lambda x, d: cp.lambda_max(cp.diag(x) + 0.1 * np.ones((N, N))) <= d,
        "nested": lambda x, d: cp.maximum(cp.norm2(x), cp.norm_inf(weights @ x)) <= d,
        "scaled": lambda x, d: 3 * cp.norm2(x) - 1 <= 3 * d,
    }


def build(name, d_value):
    x, p, d = cp.Variable(N), cp.Parameter(N, value=[0.6, -0.4, 0.2]), cp.Parameter(nonneg=True, value=d_value)
    constraint = epigraphs()[name](x, d)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p) + 0.1 * cp.sum(x)), [constraint])
    return problem, [p, d], [x, constraint.dual_variables[0]]


def residual_jacobian(program, x, y, s):
    """J = [[P, A'D], [A, D - I]] of one programme, dense, with D the derivative of the projection on K* at y - s."""
    structure = program.structure
    upper = structure.P_matrix(program.P.numpy()).toarray()
    P, A = upper + np.triu(upper, 1).T, structure.A_matrix(program.A.numpy()).toarray()
    D = structure.cone.dual_derivative(y - s).matrix().numpy()
    return np.block([[P, A.T @ D], [A, D - np.eye(structure.m)]])


@pytest.mark.parametrize("name", list(epigraphs()))
@pytest.mark.parametrize("active", [False, True])
def test_solutions_and_duals_are_those_of_cvxpy(name, active):
    problem, parameters, requested = build(name, 20.0 if not active else 0.5 if name == "exp" else 0.35)
    program = ParametricProgram.from_problem(problem, parameters, requested)
    recovered = program.recover(*solve(program.values(*tensors(parameters))))
    solve_with_cvxpy(problem)
    for variable, tensor in zip(requested, recovered, strict=True):
        assert difference(variable, tensor) <= 1e-6 * max(1.0, tensor.abs().max().item())


@pytest.mark.parametrize("name", ["norm2", "abs", "exp", "max", "norm_inf", "square", "lambda_max", "nested", "scaled"])
def test_inactive_bounds_give_a_nonsingular_jacobian(name):
    problem, parameters, requested = build(name, 20.0)
    smallest = {}
    for presolve in (False, True):
        program = ParametricProgram.from_problem(problem, parameters, requested[:1], presolve=presolve)
        data = program.values(*tensors(parameters))
        x, y, s = solve(data)
        smallest[presolve] = np.linalg.svd(residual_jacobian(data, x, y, s), compute_uv=False)[-1]
    assert smallest[False] < 1e-6, "without the substitution the Jacobian is singular: the test would show nothing"
    assert smallest[True] > 1e-3


def size(constraints, x, parameters=(), requested=(), presolve=True):
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), constraints)
    program = ParametricProgram.from_problem(problem, list(parameters), [x, *requested], presolve=presolve)
    return program.structure


def test_every_epigraph_of_abs_is_removed():
    x = cp.Variable(4)
    before, after = size([cp.abs(x) <= 1], x, presolve=False), size([cp.abs(x) <= 1], x)
    assert (before.n - after.n, before.m - after.m) == (4, 4)
    assert after.cone.cones == (Nonnegative(8),)


def test_a_parametric_bound_is_substituted_and_a_parametric_coefficient_is_not():
    x, p = cp.Variable(3), cp.Parameter(nonneg=True)
    assert size([cp.norm2(x) <= 2 * p + x[0]], x, [p]).n == 3
    assert size([p * cp.norm2(x) <= 2], x, [p]).n == 4
    assert size([(1 + p) * cp.norm2(x) <= 2], x, [p]).n == 4


def test_sums_of_epigraphs_and_costs_stay():
    x = cp.Variable(3)
    assert size([cp.norm1(x) <= 1], x) is not None
    for constraint in (cp.norm1(x) <= 1, cp.norm2(x) + cp.norm_inf(x) <= 1):
        assert size([constraint], x).n == size([constraint], x, presolve=False).n
    t = cp.Variable()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1) + t), [cp.norm2(x) <= t, t <= 5])
    assert ParametricProgram.from_problem(problem, [], [x]).structure.n == 4 + 3


def test_a_requested_variable_stays():
    x, t = cp.Variable(3), cp.Variable()
    constraints = [cp.SOC(t, x), t <= 5]
    assert size(constraints, x, requested=[t]).n == 4
    assert size(constraints, x).n == 3


def test_equalities_and_two_bounds_stay():
    x, t = cp.Variable(3), cp.Variable()
    assert size([cp.SOC(t, x), t <= 5, x[0] == 2 * t], x).n == 4
    assert size([cp.SOC(t, x), t <= 5, t <= 6], x).n == 4
    # Growing t widens one cone and narrows the other: it may not go to its bound.
    assert size([cp.SOC(t, x), cp.SOC(4.0 - t, x), t <= 5], x).n == 4


def test_a_lower_bound_of_a_hypograph_is_substituted():
    x, t = cp.Variable(3), cp.Variable()
    structure = size([cp.SOC(4.0 - t, x), t >= 1], x)  # -t <= -1, and falling t widens the cone
    assert structure.n == 3


def test_vacuous_rows_and_cone_bookkeeping():
    x, t = cp.Variable(2), cp.Variable()
    constraints = [x[0] == 0.1, cp.SOC(t, x), t <= 5]
    structure = size(constraints, x)
    kinds = [type(cone).__name__ for cone in structure.cone.cones]
    assert kinds == ["Zero", "SecondOrder"] and isinstance(structure.cone.cones[0], Zero)
    assert structure.cone.dim == structure.m == 4


@pytest.mark.parametrize("seed", [0, 4, 11])
def test_duals_of_several_rounds(seed):
    rng = np.random.default_rng(seed)
    x, p = cp.Variable(3), cp.Parameter(3, value=2 * rng.normal(size=3))
    weights = rng.normal(size=(2, 3))
    constraint = cp.maximum(cp.norm2(x), 2 * cp.norm2(weights @ x)) <= 0.9
    other = cp.max(cp.abs(x)) <= 0.6
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [constraint, other])
    requested = [x, constraint.dual_variables[0], other.dual_variables[0]]
    program = ParametricProgram.from_problem(problem, [p], requested)
    full = ParametricProgram.from_problem(problem, [p], requested, presolve=False)
    assert program.structure.n == full.structure.n - 7  # two norms and their maximum, three |x_i| and their maximum
    recovered = program.recover(*solve(program.values(*tensors([p]))))
    solve_with_cvxpy(problem)
    for variable, tensor in zip(requested, recovered, strict=True):
        assert difference(variable, tensor) <= 1e-7
        assert tensor.abs().max() > 1e-2


def test_values_stay_affine_in_the_parameters():
    x, P, d = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - 1)), [cp.norm2(P @ x) <= d + x[0], cp.abs(x) <= d])
    program = ParametricProgram.from_problem(problem, [P, d], [x])
    first, second = (torch.randn(2, 3), torch.rand(())), (torch.randn(2, 3), torch.rand(()))
    middle = program.values(*((a.double() + b.double()) / 2 for a, b in zip(first, second, strict=True)))
    for name in "PqAb":
        ends = [getattr(program.values(*values), name) for values in (first, second)]
        assert torch.allclose(getattr(middle, name), (ends[0] + ends[1]) / 2, atol=1e-14)

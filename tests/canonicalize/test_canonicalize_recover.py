"""Recovered variables and duals against the values CVXPY itself reports."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from canonicalize.clarabel_oracle import difference, solve, solve_with_cvxpy, tensors

from conelayers.canonicalize import ParametricProgram
from conelayers.errors import UnsupportedError


def duals(*constraints):
    return [variable for constraint in constraints for variable in constraint.dual_variables]


def check(problem, parameters, requested, *, gp=False, nonzero=(), tolerance=1e-6):
    """Solve through the package and through CVXPY; requested values must agree, and `nonzero` ones not vanish."""
    program = ParametricProgram.from_problem(problem, parameters, requested, gp=gp)
    x, y, s = solve(program.values(*tensors(parameters)))
    recovered = program.recover(x, y, s)
    solve_with_cvxpy(problem, gp)
    for variable, tensor in zip(requested, recovered, strict=True):
        scale = max(1.0, tensor.abs().max().item() if tensor.numel() else 0.0)
        assert difference(variable, tensor) <= tolerance * scale, variable
    for variable in nonzero:
        assert np.max(np.abs(variable.value)) > 1e-2, f"the oracle's dual {variable} must not vanish"
    return program, recovered


def mixed_problem(seed=0):
    """Every cone in one problem, with every dual nonzero, so that no two blocks can be swapped unseen."""
    rng = np.random.default_rng(seed)
    x, X, Y, t = cp.Variable(4), cp.Variable((3, 3), symmetric=True), cp.Variable((2, 2), symmetric=True), cp.Variable()
    u = cp.Variable(3)
    c, C, D = cp.Parameter(4), cp.Parameter((3, 3)), cp.Parameter((2, 2), symmetric=True)
    c.value, C.value = rng.normal(size=4), rng.normal(size=(3, 3)) + 3 * np.eye(3)
    D.value = np.array([[1.0, 2.0], [2.0, 1.5]])
    constraints = {
        "equality": x[0] + x[1] == 0.3,
        "inequality": x >= -0.9,
        "soc": cp.SOC(t, x[1:] - 2.0),
        "psd3": X >> np.diag([0.5, 1.0, 2.0]),
        "psd2": Y >> D,
        "exp": cp.ExpCone(x[0], np.float64(1.0) + 0 * x[1], u[0] - 1.0),
        "power": cp.PowCone3D(u[0], u[1], u[2] + 1.0, 0.3),
        "coupling": X[0, 1] + Y[0, 1] == -0.7,
    }
    objective = c @ x + cp.trace(C @ X) + 1.5 * cp.trace(Y) + t + 0.4 * cp.sum_squares(X) + cp.sum_squares(Y)
    objective = objective + 0.1 * cp.sum_squares(x) + u[0] + 2 * u[1] - 3.0 * u[2] + 0.05 * cp.sum_squares(u)
    problem = cp.Problem(cp.Minimize(objective), list(constraints.values()))
    return problem, [c, C, D], [x, X, Y, t, u], constraints


def test_all_cones_with_every_dual():
    problem, parameters, variables, constraints = mixed_problem()
    every = duals(*constraints.values())
    check(problem, parameters, [*variables, *every], nonzero=every)


def test_order_of_requests_is_kept():
    problem, parameters, variables, constraints = mixed_problem()
    requested = [
        constraints["exp"].dual_variables[1],
        variables[1],
        constraints["psd2"].dual_variables[0],
        variables[0],
    ]
    check(problem, parameters, requested)


def test_variable_attributes():
    rng = np.random.default_rng(1)
    shapes = {
        "nonneg": cp.Variable(3, nonneg=True),
        "nonpos": cp.Variable((2, 2), nonpos=True),
        "pos": cp.Variable(pos=True),
        "psd": cp.Variable((3, 3), PSD=True),
        "nsd": cp.Variable((2, 2), NSD=True),
        "symmetric": cp.Variable((3, 3), symmetric=True),
        "diag": cp.Variable((3, 3), diag=True),
        "bounds": cp.Variable(3, bounds=[-0.2, 0.3]),
        "sparse": cp.Variable((3, 3), sparsity=[(0, 2, 1), (1, 0, 2)]),
        "matrix": cp.Variable((2, 3)),
        "scalar": cp.Variable(),
    }
    targets = {name: cp.Parameter(v.shape, name=name) for name, v in shapes.items()}
    objective = 0
    for name, variable in shapes.items():
        targets[name].value = rng.normal(size=variable.shape)
        objective = objective + cp.sum_squares(variable - targets[name])
    check(cp.Problem(cp.Minimize(objective)), list(targets.values()), list(shapes.values()))


def test_hermitian_and_complex():
    rng = np.random.default_rng(2)
    H, z, w = cp.Variable((3, 3), hermitian=True), cp.Variable(3, complex=True), cp.Variable(2, imag=True)
    T, p = cp.Parameter((3, 3), hermitian=True), cp.Parameter(3, complex=True)
    raw = rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3))
    T.value, p.value = raw + raw.conj().T, rng.normal(size=3) + 1j * rng.normal(size=3)
    psd = H >> 0.5 * np.eye(3)
    equality = z[0] + z[1] == p[0]
    objective = (
        cp.real(cp.trace(T @ H)) + cp.sum_squares(H) + cp.sum_squares(z - 2 * p) + cp.sum_squares(cp.imag(w) - 1.0)
    )
    problem = cp.Problem(cp.Minimize(objective), [psd, equality, w[0] == 2 * w[1]])
    _, recovered = check(problem, [T, p], [H, z, w, *duals(psd, equality)], nonzero=duals(psd, equality))
    assert recovered[0].is_complex() and recovered[3].is_complex() and recovered[4].is_complex()


@pytest.mark.parametrize("sense", [cp.Minimize, cp.Maximize])
def test_dual_signs_follow_the_sense(sense):
    x, p = cp.Variable(3), cp.Parameter(3, value=[1.0, -2.0, 0.5])
    upper, lower, equal = x <= 1.0, x >= -1.0, cp.sum(x) == 0.2
    quadratic = 0.1 * cp.sum_squares(x)
    objective = p @ x + quadratic if sense is cp.Minimize else p @ x - quadratic
    check(cp.Problem(sense(objective), [upper, lower, equal]), [p], [x, *duals(upper, lower, equal)])


def test_packed_cones_and_matrix_duals():
    rng = np.random.default_rng(3)
    X, t = cp.Variable((3, 4)), cp.Variable(4)
    T, r = cp.Parameter((3, 4)), cp.Variable(3)
    T.value = rng.normal(size=(3, 4))
    columns, rows = cp.SOC(t, X), cp.SOC(r, X, axis=1)
    matrix = X <= 0.1
    x, y, z = cp.Variable((2, 2)), cp.Variable((2, 2)), cp.Variable((2, 2))
    exponentials = cp.ExpCone(x, y, z)
    weights = np.array([[0.2, 0.5], [0.7, 0.4]])
    a, b, c = cp.Variable((2, 2)), cp.Variable((2, 2)), cp.Variable((2, 2))
    powers = cp.PowCone3D(a, b, c, weights)
    shifts = rng.normal(size=(2, 2))
    objective = cp.sum_squares(X - T) + cp.sum(t) + cp.sum(r) + cp.sum(z) + cp.sum_squares(x - 1 - shifts)
    objective = objective + cp.sum_squares(y - 1.2) + cp.sum(a + 2 * b) + cp.sum_squares(c - 2 - shifts)
    problem = cp.Problem(cp.Minimize(objective), [columns, rows, matrix, exponentials, powers])
    requested = duals(columns, rows, matrix, exponentials, powers)
    check(problem, [T], [X, t, r, x, a, *requested], nonzero=requested)


def test_power_cones_of_higher_dimension_are_reduced():
    p = cp.Parameter(3, value=[0.4, 0.9, 0.6])
    w, z = cp.Variable(3), cp.Variable()
    cone = cp.PowConeND(w, z, np.array([0.2, 0.3, 0.5]))
    check(cp.Problem(cp.Maximize(z - p @ w - 0.1 * cp.sum_squares(w)), [cone]), [p], [w, z])
    x = cp.Variable(3, pos=True)
    check(cp.Problem(cp.Maximize(cp.geo_mean(x) - p @ x - cp.sum_squares(x)), []), [p], [x])


def test_a_constraint_that_saves_no_dual_values():
    """CVXPY leaves duals of its approximate relative entropy cone undefined: an obstacle only to who asks for them."""
    x, y, z, target = cp.Variable(2, pos=True), cp.Variable(2, pos=True), cp.Variable(2), cp.Parameter(2)
    target.value = np.array([1.0, 2.0])
    cone = cp.constraints.RelEntrConeQuad(x, y, z, 3, 3)
    objective = cp.sum(z) + cp.sum_squares(x - target) + cp.sum_squares(y - 1)
    problem = cp.Problem(cp.Minimize(objective), [cone])
    check(problem, [target], [x, y, z], tolerance=1e-4)  # degenerate: Clarabel itself is accurate to about 1e-5
    with pytest.raises(UnsupportedError, match="gives no dual value"):
        ParametricProgram.from_problem(problem, [target], cone.dual_variables)


def test_geometric_programme():
    x, y, z = cp.Variable(pos=True), cp.Variable(pos=True), cp.Variable(pos=True)
    a, b = cp.Parameter(pos=True, value=2.0), cp.Parameter(pos=True, value=1.0)
    c = cp.Parameter(value=0.5)
    posynomial = a * x * y + b * y * z <= 4.0
    monomial = x == 0.3 * b * y**c
    problem = cp.Problem(cp.Minimize(1 / (x * y * z) + 0.2 * z), [posynomial, monomial])
    program, _ = check(
        problem, [a, b, c], [x, y, z, *duals(posynomial, monomial)], gp=True, nonzero=duals(posynomial, monomial)
    )
    # a and b enter by their logarithms, the exponent c as it is.
    parts = {(block.parameter, block.part) for part in (program.A, program.b) for block in part.blocks}
    assert parts == {(0, "log"), (1, "log"), (2, "value")}


def test_geometric_programme_with_a_parameter_as_base_and_exponent():
    x = cp.Variable(pos=True)
    a = cp.Parameter(pos=True, value=1.3)
    check(cp.Problem(cp.Minimize(x**2), [x**a >= a]), [a], [x], gp=True)


def test_no_constraints_and_no_parameters():
    x, p = cp.Variable(3), cp.Parameter(3, value=[1.0, 2.0, 3.0])
    program, _ = check(cp.Problem(cp.Minimize(cp.sum_squares(x - p)), []), [p], [x])
    assert program.structure.n >= 3
    check(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= 1]), [], [x])


def test_problem_without_rows():
    x, P, c = cp.Variable(2), cp.Parameter((2, 2), PSD=True), cp.Parameter(2, value=[1.0, -1.0])
    P.value = np.array([[2.0, 0.3], [0.3, 1.0]])
    program, recovered = check(cp.Problem(cp.Minimize(cp.quad_form(x, P) + c @ x)), [P, c], [x])
    assert program.structure.m == 0
    assert np.allclose(recovered[0].numpy(), -0.5 * np.linalg.solve(P.value, c.value), atol=1e-9)


def test_recover_is_differentiable_and_keeps_batch_axes():
    problem, parameters, variables, constraints = mixed_problem()
    program = ParametricProgram.from_problem(
        problem, parameters, [*variables, *duals(constraints["psd3"], constraints["power"])]
    )
    n, m = program.structure.n, program.structure.m
    x = torch.randn(2, n, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, m, dtype=torch.float64, requires_grad=True)
    shapes = [tuple(output.shape) for output in program.recover(x, y)]
    assert shapes == [
        (2, *variable.shape) for variable in [*variables, *duals(constraints["psd3"], constraints["power"])]
    ]
    torch.autograd.gradcheck(lambda x, y: program.recover(x, y), (x, y))
    batched = torch.func.vmap(lambda x, y: program.recover(x, y))(x, y)
    for one, other in zip(batched, program.recover(x, y), strict=True):
        assert torch.equal(one, other)

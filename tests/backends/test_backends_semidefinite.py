"""Large semidefinite blocks: values against Clarabel, derivatives against differences and dense systems."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from data_readers import data_folder, read_sdplib

from conelayers import ConeLayer, CvxpyLayer, Status
from conelayers.backends import Semidefinite, default_backend
from conelayers.cones import Nonnegative, PositiveSemidefinite, SecondOrder, Zero
from conelayers.errors import UnsupportedError
from conelayers.program import residuals
from conelayers.residual.linearization import ConicLinearization
from conelayers.residual.solve import solve_and_polish
from conelayers.semidefinite import SemidefiniteKernels, form, interior_point, semidefinite_form

ORDER = 28  # just beyond the order that counts as large


def _symmetric(rng, n):
    root = rng.normal(size=(n, n))
    return (root + root.T) / 2


def max_cut(n, rng):
    X, C = cp.Variable((n, n), PSD=True), cp.Parameter((n, n), symmetric=True)
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.diag(X) == 1]), C, X, _symmetric(rng, n)


def correlation(n, rng):
    X, C = cp.Variable((n, n), symmetric=True), cp.Parameter((n, n), symmetric=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1, X >> 0]), C, X, _symmetric(rng, n)


def dense_equalities(n, rng):
    X, C = cp.Variable((n, n), PSD=True), cp.Parameter((n, n), symmetric=True)
    inside, sides = _symmetric(rng, n), [_symmetric(rng, n) for _ in range(n // 2)]
    inside = inside @ inside
    rows = [cp.trace(E @ X) == np.trace(E @ inside) for E in sides]
    root = _symmetric(rng, n)
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), rows), C, X, root @ root + np.eye(n)


def matrix_inequality(n, rng):
    x, c = cp.Variable(9), cp.Parameter(9)
    sides, root = [_symmetric(rng, n) for _ in range(9)], _symmetric(rng, n)
    rows = [sum(x[i] * F for i, F in enumerate(sides)) << 10 * np.eye(n)]
    value = -np.array([np.trace(root @ root @ F) for F in sides])
    return cp.Problem(cp.Minimize(c @ x), rows), c, x, value


def several_blocks(n, rng):
    """A matrix variable, a matrix inequality, a small block, inequalities, and free variables in the same rows."""
    X, Y, z = cp.Variable((n, n), PSD=True), cp.Variable((3, 3), PSD=True), cp.Variable(3)
    C = cp.Parameter((n, n), symmetric=True)
    F, G, root = _symmetric(rng, n), _symmetric(rng, n), _symmetric(rng, n)
    rows = [cp.trace(X) <= 4, X[0, 1] == Y[0, 1] + 0.1, cp.trace(F @ X) == z[0], Y[2, 2] == 2 + z[1], z >= -1]
    rows += [z[0] * F + z[1] * G << 5 * np.eye(n), z[2] >= Y[0, 0]]
    cost = cp.trace(C @ X) + cp.sum_squares(z - 0.3) + cp.sum_squares(Y) - Y[0, 2]
    return cp.Problem(cp.Minimize(cost), rows), C, X, root


FAMILIES = (max_cut, correlation, dense_equalities, matrix_inequality, several_blocks)


@pytest.fixture(params=FAMILIES, ids=lambda f: f.__name__)
def family(request):
    problem, parameter, variable, value = request.param(ORDER, np.random.default_rng(0))
    layer = CvxpyLayer(problem, [parameter], [variable])
    assert isinstance(layer.backend, Semidefinite)
    return problem, parameter, variable, value, layer


def test_value_and_gradient(family):
    problem, parameter, variable, value, layer = family
    point = torch.tensor(value, requires_grad=True)
    solution = layer.solve(point)
    assert solution.status is Status.SOLVED
    assert float(solution.cone.worst) <= 1e-9  # rows are measured against 1e-4 at least: the entries are right to 1e-13
    parameter.value = value
    problem.solve(solver=cp.CLARABEL)
    # Clarabel ends at 1e-8, which leaves four to five digits of a matrix.
    np.testing.assert_allclose(solution.variables[0].detach(), variable.value, atol=5e-4 * abs(variable.value).max())

    rng = np.random.default_rng(1)
    weights = torch.tensor(rng.normal(size=variable.shape))
    (gradient,) = torch.autograd.grad((solution.variables[0] * weights).sum(), point)
    direction = rng.normal(size=np.shape(value))
    direction = direction + direction.T if direction.ndim == 2 else direction

    def at(step):
        with torch.no_grad():
            return float((layer(torch.tensor(value + step * direction))[0] * weights).sum())

    h = 1e-4
    difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    assert float((gradient * torch.tensor(direction)).sum()) == pytest.approx(difference, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("mu", [0.0, 0.1])
def test_linear_systems_are_those_of_the_dense_matrix(monkeypatch, mu):
    monkeypatch.setattr(form, "LARGE_ORDER", 3)
    for make in FAMILIES:
        problem, parameter, variable, value = make(5, np.random.default_rng(2))
        program = CvxpyLayer(problem, [parameter], [variable]).program
        structure, data = program.structure, program.values(torch.tensor(value))
        found = semidefinite_form(structure)
        assert found is not None
        generator = torch.Generator().manual_seed(0)
        v = torch.randn(2, structure.m, generator=generator)
        P, A = (x if x.dim() == 2 else x[None] for x in (data.P, data.A))
        J = _Dense(structure, P, A, v, mu or None).matrix()
        z = torch.randn(2, 3, structure.n + structure.m, generator=generator)
        rhs = z @ J.mT
        dx, dv, residual = SemidefiniteKernels(structure, found).derivative(
            P, A, v, rhs[..., : structure.n], rhs[..., structure.n :], mu
        )
        assert float(residual.max()) <= 1e-12
        back = torch.cat([dx, dv], -1) @ J.mT
        assert float((back - rhs).abs().max()) <= 1e-9 * float(rhs.abs().max())


class _Dense(ConicLinearization):
    def solve(self, rhs):
        raise NotImplementedError

    attempt = project = solve


def test_infeasible_and_broken_items_cost_no_other_anything():
    X, t = cp.Variable((ORDER, ORDER), PSD=True), cp.Parameter()
    layer = CvxpyLayer(
        cp.Problem(cp.Minimize(cp.sum(X)), [cp.trace(X) == t, X[0, 0] >= 0.5]), [t], [X], on_failure="nan"
    )
    solution = layer.solve(torch.tensor([3.0, -1.0, torch.nan]))
    assert [s.name for s in solution.status] == ["SOLVED", "PRIMAL_INFEASIBLE", "FAILED"]
    assert float(solution.variables[0][0].diagonal().sum()) == pytest.approx(3.0, abs=1e-9)


def test_weighted_costs_are_left_to_others():
    """P on a matrix variable that is no multiple of the identity: the pattern allows it, the values do not."""
    X, C = cp.Variable((ORDER, ORDER), symmetric=True), cp.Parameter((ORDER, ORDER), symmetric=True)
    weights = np.random.default_rng(0).uniform(0.5, 2, (ORDER, ORDER))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(weights, X - C))), [cp.diag(X) == 1, X >> 0])
    layer = CvxpyLayer(problem, [C], [X])
    assert isinstance(layer.backend, Semidefinite)
    value = _symmetric(np.random.default_rng(1), ORDER)
    solution = layer.solve(torch.tensor(value))
    C.value = value
    problem.solve(solver=cp.CLARABEL)
    assert solution.status is Status.SOLVED
    np.testing.assert_allclose(solution.variables[0], X.value, atol=1e-5)


def test_what_it_does_not_take_is_refused():
    layer = ConeLayer([PositiveSemidefinite(3)], np.ones((6, 2)), solver=Semidefinite())
    with pytest.raises(UnsupportedError, match="SEMIDEFINITE"):
        layer(None, torch.ones(2), torch.ones(6, 2), torch.ones(6))
    structure = ConeLayer([PositiveSemidefinite(25), SecondOrder(3)], np.eye(328)).structure
    assert not interior_point.knows(semidefinite_form(structure))
    assert not isinstance(default_backend(structure), Semidefinite)
    structure = ConeLayer([PositiveSemidefinite(25), Zero(1), Nonnegative(2)], np.eye(328)).structure
    assert isinstance(default_backend(structure), Semidefinite)


# Optimal values as the collection publishes them.
SDPLIB = {"mcp100": 226.1574, "theta1": 23.0}


@pytest.mark.parametrize("name", SDPLIB)
def test_sdplib(name):
    program = read_sdplib(data_folder("sdplib") / f"{name}.dat-s")
    backend = default_backend(program.structure)
    assert isinstance(backend, Semidefinite)
    solution = solve_and_polish(program, backend)
    assert float((program.q * solution.x).sum()) == pytest.approx(SDPLIB[name], abs=1e-4)
    assert float(residuals(program, solution.x, solution.y, solution.s).worst) <= 1e-8

"""Errors for wrong arguments: kinds and wording that users of CVXPY layers know."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from cvxpy.transforms.indicator import indicator
from cvxpy.transforms.partial_optimize import partial_optimize

from conelayers.backends import Clarabel
from conelayers.canonicalize import ParametricProgram
from conelayers.canonicalize._cvxpy import arguments
from conelayers.errors import InvalidArgument, UnsupportedError


@pytest.fixture
def problem():
    x, a, b = cp.Variable(2, name="x"), cp.Parameter(2, name="a"), cp.Parameter(3, name="b")
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a) + cp.sum(b) * x[0]), [x >= 0]), x, a, b


@pytest.fixture
def program(problem):
    return ParametricProgram.from_problem(problem[0], [problem[2], problem[3]], [problem[1]])


def refused(match, *args, error=InvalidArgument, **kwargs):
    with pytest.raises(error, match=match):
        ParametricProgram.from_problem(*args, **kwargs)


def test_parameters_must_match_exactly(problem):
    p, x, a, b = problem
    for given in ([a], [a, b, cp.Parameter()], [a, a], [a, b, b], []):
        refused("must exactly match problem.parameters", p, given, [x])


def test_variables_must_be_known(problem):
    p, x, a, b = problem
    for stranger in (cp.Variable(2), (x >= 1).dual_variables[0], "x"):
        refused("must be a subset of problem.variables", p, [a, b], [x, stranger])


def test_lists_or_tuples(problem):
    p, x, a, b = problem
    refused("parameters must be provided as a list or tuple", p, {a, b}, [x])
    refused("variables must be provided as a list or tuple", p, [a, b], {x})
    refused("variables must be provided as a list or tuple", p, [a, b], x)
    ParametricProgram.from_problem(p, (b, a), (x,))


def test_not_dpp():
    x, p, q = cp.Variable(2), cp.Parameter(2, nonneg=True), cp.Parameter(nonneg=True)
    refused("Problem must be DPP", cp.Problem(cp.Minimize(cp.sum(x / p)), [x >= 0]), [p], [x])
    refused("Problem must be DPP", cp.Problem(cp.Minimize(p * q @ x), [x >= 0]), [p, q], [x])
    refused("Problem must be DPP", cp.Problem(cp.Maximize(cp.sum_squares(x)), [x >= p]), [p], [x])
    y = cp.Variable(pos=True)
    refused("Problem must be DPP", cp.Problem(cp.Minimize(y), [y >= 1 + q - y]), [q], [y], gp=True)


def test_parametric_quad_form_outside_the_objective():
    x, t, P = cp.Variable(2), cp.Variable(), cp.Parameter((2, 2), PSD=True)
    P.value = np.eye(2)  # with a value at hand, CVXPY would bake it in
    form = cp.quad_form(x, P)
    match = "only supported in the objective"
    refused(match, cp.Problem(cp.Minimize(cp.sum(x)), [form <= 1]), [P], [x])
    refused(match, cp.Problem(cp.Minimize(t), [t >= form + cp.norm1(x), cp.sum(x) == 1]), [P], [x])
    refused(match, cp.Problem(cp.Minimize(cp.exp(form)), [cp.sum(x) == 1]), [P], [x])
    refused(match, cp.Problem(cp.Minimize(cp.maximum(form, 1)), [cp.sum(x) == 1]), [P], [x])
    ParametricProgram.from_problem(cp.Problem(cp.Maximize(-2 * form + x[0]), [cp.norm1(x) <= 1]), [P], [x])


@pytest.mark.parametrize("attributes", [{"symmetric": True}, {}])
def test_quad_form_needs_a_semidefinite_parameter(attributes):
    x, P = cp.Variable(2), cp.Parameter((2, 2), **attributes)
    if not attributes:
        return  # CVXPY itself refuses a matrix that is not declared symmetric
    refused("Problem must be DPP", cp.Problem(cp.Minimize(cp.quad_form(x, P))), [P], [x])


def test_quad_form_with_parameters_in_its_argument():
    x, p, Q = cp.Variable(2), cp.Parameter(2), cp.Parameter((2, 2), PSD=True)
    ParametricProgram.from_problem(cp.Problem(cp.Minimize(cp.quad_form(x + p, Q))), [p, Q], [x])
    refused("Problem must be DPP", cp.Problem(cp.Minimize(cp.quad_form(x, Q @ Q, assume_PSD=True))), [Q], [x])
    with pytest.raises(ValueError):
        ParametricProgram.from_problem(cp.Problem(cp.Minimize(cp.quad_form(p, Q))), [p, Q], [])


def test_problems_without_variables_and_with_integers():
    p, k = cp.Parameter(), cp.Variable(integer=True)
    refused("no variables", cp.Problem(cp.Minimize(p)), [p], [])
    refused("integer", cp.Problem(cp.Minimize(cp.abs(k - p))), [p], [k])


def test_constraints_of_an_indicator_are_checked():
    """CVXPY solves all but the semidefinite one, without the constraint or with the wrong side of it."""
    x, X, p, q = cp.Variable(2), cp.Variable((2, 2), symmetric=True), cp.Parameter(2), cp.Parameter()
    lost = cp.constraints.RelEntrConeQuad(x[0], x[1], cp.Constant(1.0), 3, 3)
    for match, error, constraint in (
        ("integer or boolean", InvalidArgument, cp.FiniteSet(x, [1, 2])),
        ("must be DPP, also inside of indicator", InvalidArgument, cp.norm(x) >= 1),
        ("must be DPP, also inside of indicator", InvalidArgument, p[0] * q * x <= 1),
        ("RelEntrConeQuad.* add it to the problem's constraints", UnsupportedError, lost),
        ("PSD.* add it to the problem's constraints", UnsupportedError, X >> 0),
    ):
        objective = cp.sum_squares(x - p) + cp.sum_squares(X) + q + cp.max(cp.hstack([x[0], indicator([constraint])]))
        refused(match, cp.Problem(cp.Minimize(objective)), [p, q], [x], error=error)
    objective = cp.sum_squares(x - p) + indicator([x <= q, cp.norm(x) <= 1])
    ParametricProgram.from_problem(cp.Problem(cp.Minimize(objective)), [p, q], [x])


def test_canonicalization_backends_that_cannot_are_named():
    X, A = cp.Variable((2, 2, 2)), cp.Parameter((2, 2, 2))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - A)))
    for name in ("CPP", "none such"):
        refused(f"canon_backend='{name}'", problem, [A], [X], canon_backend=name, error=UnsupportedError)


def test_norms_along_the_axes_that_cvxpy_mixes_up_are_refused():
    """With two entries along every axis the sizes fit, and CVXPY's own solution violates the constraint."""
    X, A, t = cp.Variable((2, 2, 2)), cp.Parameter((2, 2, 2)), cp.Variable((2, 2))
    objective = cp.Minimize(cp.sum_squares(X - A) + cp.sum_squares(t))
    for wrong in (cp.norm(X, 2, axis=1) <= 1, cp.std(X, axis=2) <= t, 2 * cp.norm(X - A, axis=-1) <= 1):
        refused("norms along the first axis only", cp.Problem(objective, [wrong]), [A], [X], error=UnsupportedError)
    moved = cp.norm(cp.moveaxis(X, 1, 0), 2, axis=0)
    program = ParametricProgram.from_problem(cp.Problem(objective, [moved <= 1]), [A], [X])
    point = 3 * torch.randn(2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = Clarabel().solve(program.values(point))
    (found,) = program.recover(solution.x, solution.y)
    shrunk = point / point.norm(dim=1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(found, shrunk, rtol=1e-6, atol=1e-6)


def test_rows_that_do_not_fit_their_cones_are_refused(monkeypatch):
    monkeypatch.setattr(arguments, "_check_norms", lambda problem: None)
    X, A = cp.Variable((2, 3, 2)), cp.Parameter((2, 3, 2))
    wrong = cp.Problem(cp.Minimize(cp.sum_squares(X - A)), [cp.std(X, axis=1) <= 1])
    refused("not those of their cones", wrong, [A], [X], error=UnsupportedError)


def test_partial_optimization():
    """CVXPY 1.9.3 finds no way when the rest of the objective is quadratic."""
    x, y, p = cp.Variable(2), cp.Variable(2), cp.Parameter(2)
    inner = partial_optimize(cp.Problem(cp.Minimize(cp.sum_squares(x - y)), [y >= p]), [y], [x], cp.CLARABEL)
    ParametricProgram.from_problem(cp.Problem(cp.Minimize(inner + cp.norm1(x - p))), [p], [x])
    refused("CVXPY cannot reduce", cp.Problem(cp.Minimize(inner + cp.sum_squares(x))), [p], [x], error=UnsupportedError)
    P = cp.Parameter((2, 2), PSD=True)
    inner = partial_optimize(cp.Problem(cp.Minimize(cp.quad_form(x - y, P)), [y >= 0]), [y], [x], cp.CLARABEL)
    refused("only supported in the objective", cp.Problem(cp.Minimize(inner + cp.norm1(x - p))), [p, P], [x])


def test_not_a_problem():
    refused("problem must be a cvxpy.Problem", cp.Variable(), [], [])


def test_old_cvxpy(monkeypatch, problem):
    for version in ("1.9.2", "1.8.10", "0.4"):
        monkeypatch.setattr(arguments.importlib.metadata, "version", lambda _, v=version: v)
        refused("cvxpy .* is too old", problem[0], [problem[2], problem[3]], [problem[1]], error=UnsupportedError)
    for version in ("1.9.3", "1.10.0rc1", "2.0"):
        monkeypatch.setattr(arguments.importlib.metadata, "version", lambda _, v=version: v)
        arguments.check_version()


def test_complex_soc_duals_are_refused_clearly():
    z, p = cp.Variable(2, complex=True), cp.Parameter()
    cone = cp.SOC(p, z)
    problem = cp.Problem(cp.Minimize(cp.real(z[0])), [cone])
    refused("no dual value", problem, [p], [z, cone.dual_variables[1]], error=UnsupportedError)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ([(2,)], "A tensor must be provided for each CVXPY parameter"),
        ([(2,), (3,), (1,)], "A tensor must be provided for each CVXPY parameter"),
        ([(3,), (3,)], "Invalid parameter shape for parameter 0 .a."),
        ([(4, 2), (4, 2)], "Invalid parameter shape for parameter 1 .b."),
        ([(4, 2), (5, 3)], "Inconsistent batch sizes"),
        ([(4, 2), (4, 4, 3)], "Invalid parameter dimensionality for parameter 0"),
        ([(), (3,)], "Invalid parameter dimensionality for parameter 0"),
        ([(2, 2), ()], "Invalid parameter dimensionality for parameter 1"),
        ([(2, 5, 2), (2, 4, 3)], "Inconsistent batch sizes"),
    ],
)
def test_shapes_that_do_not_fit(program, shapes, match):
    values = [torch.zeros(shape) for shape in shapes]
    for call in (lambda: program.validate_params(values), lambda: program.values(*values)):
        with pytest.raises(InvalidArgument, match=match):
            call()


@pytest.mark.parametrize(
    ("shapes", "batch"),
    [
        ([(2,), (3,)], ()),
        ([(4, 2), (3,)], (4,)),
        ([(4, 2), (1, 3)], (4,)),
        ([(5, 1, 2), (1, 4, 3)], (5, 4)),
        ([(0, 2), (3,)], (0,)),
    ],
)
def test_batch_shapes(program, shapes, batch):
    values = [torch.zeros(shape) for shape in shapes]
    assert program.validate_params(values) == batch
    assert program.values(*values).q.shape[-1] == program.structure.n


def test_things_that_are_not_tensors(program):
    for value in (None, np.zeros(3), [0.0, 0.0, 0.0]):
        with pytest.raises(ValueError, match="A tensor must be provided.*parameter 1 .b."):
            program.validate_params([torch.zeros(2), value])


def test_complex_tensor_for_a_real_parameter(program):
    with pytest.raises(InvalidArgument, match="is real but its tensor is complex"):
        program.validate_params([torch.zeros(2, dtype=torch.complex128), torch.zeros(3)])


def test_real_tensor_for_a_complex_parameter():
    z, p = cp.Variable(2, complex=True), cp.Parameter(2, complex=True)
    program = ParametricProgram.from_problem(cp.Problem(cp.Minimize(cp.sum_squares(z - p))), [p], [z])
    one, other = program.values(torch.ones(2)), program.values(torch.ones(2, dtype=torch.complex128))
    for name in "PqAb":
        assert torch.equal(getattr(one, name), getattr(other, name))

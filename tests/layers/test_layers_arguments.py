"""What users get wrong at a call: the error names the argument, and nothing wrong is accepted in silence."""

import warnings

import cvxpy as cp
import pytest
import torch

from conelayers import ConeLayer, CvxpyLayer, solve_cone_program
from conelayers.backends import SCS, Batched, Diffcp
from conelayers.cones import Nonnegative, SecondOrder, Zero
from conelayers.errors import InvalidArgument, UnsupportedError


@pytest.fixture(scope="module")
def simplex():
    x, a, b = cp.Variable(3), cp.Parameter(3, name="a"), cp.Parameter(name="b")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) <= b, x >= 0])
    return problem, [a, b], [x]


@pytest.fixture(scope="module")
def layer(simplex):
    return CvxpyLayer(*simplex)


a = torch.tensor([0.5, 0.2, 0.9])
b = torch.tensor(1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((a.to_sparse(), b), r"parameter 0 \(a\) is a sparse tensor.*to_dense"),
        ((a + 1j, b), r"parameter 0 \(a\) is real"),
        ((a, None), r"parameter 1 \(b\) is a NoneType"),
        ((a, 1.0), r"parameter 1 \(b\) is a float"),
        ((a.to("meta"), b), "on one device"),
        ((a[:2], b), r"parameter shape for parameter 0 \(a\).*\(3,\).*\(2,\)"),
        ((a.expand(2, 1, 3), b.expand(4)), r"dimensionality for parameter 1 \(b\)"),
    ],
)
def test_values(layer, values, message):
    with pytest.raises(ValueError, match=message):
        layer(*values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -1}, r"'eps'.*positive"),
        ({"tol": "tight"}, r"'tol'.*positive"),
        ({"max_iters": "many"}, r"'max_iters'.*whole"),
        ({"max_iters": 10.5}, r"'max_iters'.*whole"),
        ({"n_jobs_forward": float("inf")}, r"'n_jobs_forward'.*whole"),
        ({"max_iters": 0}, "max_iter is 0"),
        ({"solve_method": "simplex"}, "'simplex' is unknown"),
        ([("eps", 1)], "dictionary"),
    ],
)
def test_solver_args(layer, simplex, options, message):
    with pytest.raises(InvalidArgument, match=message):
        layer(a, b, solver_args=options)
    with pytest.raises(InvalidArgument, match=message):
        CvxpyLayer(*simplex, solver_args=options)


def test_solver_args_that_other_packages_take(layer, simplex):
    torch.testing.assert_close(layer(a, b, solver_args={"max_iters": 1e3, "n_jobs_forward": -1}), layer(a, b))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(layer(a, b, solver_args={"solve_method": "ECOS", "mode": "lsqr"}), layer(a, b))
        assert isinstance(CvxpyLayer(*simplex, solver_args={"solve_method": "ECOS"}).backend, Batched)
    assert CvxpyLayer(*simplex, solver_args={"solve_method": "SCS", "eps": 1e-7}).backend == SCS(tol=1e-7)


@pytest.mark.parametrize("how", [{"solver": "DIFFCP"}, {"solver_args": {"solve_method": "diffcp"}}], ids=str)
def test_a_quadratic_objective_is_lifted_for_a_backend_without_one(layer, simplex, how):
    lifted = CvxpyLayer(*simplex, **how)
    assert isinstance(lifted.backend, Diffcp) and lifted.program.structure.P_nnz == 0
    torch.testing.assert_close(lifted(a, b), layer(a, b), rtol=1e-8, atol=1e-8)
    x, P = cp.Variable(2), cp.Parameter((2, 2), PSD=True)
    with pytest.raises(InvalidArgument, match=r"Problem must be DPP.*without quadratic objectives"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x - 1, P))), [P], [x], **how)
    with pytest.raises(UnsupportedError, match="quadratic"):
        layer(a, b, solver_args={"solve_method": "DIFFCP"})


def test_warm_start_of_another_kind(layer):
    with pytest.raises(InvalidArgument, match="warm_start"):
        layer(a, b, warm_start=layer(a, b))


P, q = torch.eye(3), torch.tensor([1.0, -2.0, 0.5])
A = torch.cat([torch.ones(1, 3), -torch.eye(3)])
rhs = torch.tensor([1.0, 0.0, 0.0, 0.0])
cone = [Zero(1), Nonnegative(3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((P.numpy(), q, A, rhs), "P must be a real tensor, got a ndarray"),
        ((P, None, A, rhs), "q must be a real tensor"),
        ((P, q, [[1.0]], rhs), "A must be a real tensor"),
        ((P, q, A, rhs + 1j), "b must be a real tensor, got a complex"),
        ((P, q[:2], A, rhs), "q has shape"),
        ((P, q, A, rhs.to("meta")), "on one device"),
        ((P[:2], q, A, rhs), "P has shape"),
        ((P, q, A[:2], rhs), "A has 2 rows"),
    ],
)
def test_cone_data(arguments, message):
    with pytest.raises(InvalidArgument, match=message):
        solve_cone_program(*arguments, cone)


def test_cone_layer_options():
    for option in ({"derivative": "exact"}, {"on_failure": "zero"}, {"solver": "simplex"}, {"solver_args": 3}):
        with pytest.raises(InvalidArgument, match=str(next(iter(option)))):
            ConeLayer(cone, A, P, **option)


def test_a_quadratic_part_without_a_pattern_is_not_dropped():
    linear = ConeLayer(cone, A)
    with pytest.raises(InvalidArgument, match="without a pattern for P"):
        linear(P, q, A, rhs)
    assert "n=3, m=4" in repr(linear)


def test_integer_data_are_computed_in_floating_point():
    exact = solve_cone_program(P, q, A, rhs, cone)
    whole = solve_cone_program(P.long(), (2 * q).long(), A.long(), rhs.long(), cone)
    assert whole.x.dtype == torch.get_default_dtype()
    torch.testing.assert_close(whole.x, solve_cone_program(P, 2 * q, A, rhs, cone).x)
    mixed = solve_cone_program(P, q.float(), A, rhs, cone)
    assert mixed.x.dtype == torch.float64
    torch.testing.assert_close(mixed.x, exact.x)


def test_one_cone_by_itself():
    q = torch.tensor([-1.0, 2.0])
    ours = solve_cone_program(torch.eye(2), q, -torch.eye(2), torch.zeros(2), SecondOrder(2))
    torch.testing.assert_close(ours.x, torch.tensor([1.5, -1.5]))

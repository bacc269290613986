"""Items without a solution: what the error carries and says, and what is kept of them."""

import pickle

import cvxpy as cp
import pytest
import torch

from conelayers import ConeLayer, CvxpyLayer, SolveError
from conelayers.cones import Nonnegative
from conelayers.program import Status

w, z = cp.Variable(3, name="w"), cp.Variable(2, name="z")
floor, q = cp.Parameter(3, name="floor"), cp.Parameter(3, name="q")
Sigma, gamma = cp.Parameter((3, 3), PSD=True, name="Sigma"), cp.Parameter(nonneg=True, name="gamma")
I, O = torch.eye(3).double(), torch.zeros(3).double()  # noqa: E741
nan, inf = float("nan"), float("inf")


def portfolio(**options):
    budget, least = (cp.sum(w) == 1).set_label("budget"), (w >= floor).set_label("least")
    return CvxpyLayer(
        cp.Problem(cp.Minimize(cp.quad_form(w, Sigma)), [budget, least, w <= 5]), [Sigma, floor], [w], **options
    )


def ray(**options):
    return CvxpyLayer(cp.Problem(cp.Minimize(q @ w + cp.sum(z)), [w >= 0, z >= 1]), [q], [w], **options)


def ball(**options):
    return CvxpyLayer(
        cp.Problem(cp.Minimize(cp.norm(w - q)), [cp.norm(w) <= gamma, w >= 1]), [q, gamma], [w], **options
    )


def penalised(**options):
    problem = cp.Problem(cp.Minimize(cp.sum_squares(w) + gamma * cp.norm1(w)), [w >= -1])
    return CvxpyLayer(problem, [gamma], [w], **options)


CAUSES = [
    (portfolio, (I, O + 0.5), {}, r"infeasible: 'budget' and 'least' contradict each other.*Relax one"),
    (portfolio, (I, torch.tensor([0, nan, 0])), {}, r"parameter 1 \(floor\) \(NaN\) are finite.*upstream"),
    (portfolio, (I * inf, O), {}, r"parameter 0 \(Sigma\) \("),
    (portfolio, (I - 1.5 * torch.ones(3, 3), O), {}, r"\(Sigma\) is declared PSD=True and has the eigenvalue -3.5"),
    (penalised, (torch.tensor(-3.0),), {}, r"\(gamma\) is declared nonneg=True and has an entry -3"),
    (ray, (torch.tensor([1.0, -1.0, 0.0]),), {}, r"unbounded: .* along 'w'\. Bound"),
    (ball, (O, torch.tensor(5.0)), {"max_iters": 1}, r"stopped at the limit .* residual of .*Raise max_iters"),
]


@pytest.mark.parametrize(
    ("make", "values", "options", "message"), CAUSES, ids=lambda v: v if isinstance(v, str) else ""
)
def test_each_cause_has_its_own_message(make, values, options, message):
    with pytest.raises(SolveError, match=message) as caught:
        make()(*values, solver_args=options)
    assert caught.value.status != Status.SOLVED and caught.value.indices == ()


def test_the_error_says_which_items_and_carries_the_others():
    with pytest.raises(SolveError, match=r"3 of 4 batch items \(1: PRIMAL.*Items 1, 3: infeasible.*Item 2: ") as caught:
        portfolio()(I, torch.stack([O, O + 0.5, O + nan, O + 0.5]))
    error = pickle.loads(pickle.dumps(caught.value.args)) and caught.value
    assert error.indices == (1, 2, 3)
    assert error.status[0] == Status.SOLVED and error.status[1] == Status.PRIMAL_INFEASIBLE
    (found,) = error.solution.variables
    torch.testing.assert_close(found[0], torch.full((3,), 1 / 3).double())
    assert found[1:].isnan().all()


def test_several_batch_axes_and_parameters_that_do_not_enter():
    with pytest.raises(SolveError, match=r"Item \(1, 0\): infeasible") as caught:
        portfolio()(I, torch.stack([O, O + 0.5])[:, None])
    assert caught.value.indices == ((1, 0),)


def test_an_objective_that_is_not_convex():
    P = cp.Parameter((3, 3), symmetric=True, name="P")
    with pytest.raises(ValueError, match="not known to be semidefinite"):
        CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(w, P)), [cp.norm(w) <= 1]), [P], [w])
    free = portfolio()
    from conelayers.layers.failures import _Item, _not_convex

    text = _not_convex(free.program, _Item(free.program.values(-I, O), (-I, O), Status.FAILED, inf))
    assert "smallest curvature is -2, along 'w'" in text and "parameter 0 (Sigma)" in text


def test_solve_never_raises():
    for make, values, options, _ in CAUSES:
        solution = make().solve(*values, solver_args=options)
        assert solution.status != Status.SOLVED and solution.variables[0].isnan().all()


@pytest.mark.parametrize("solver", [None, "CLARABEL", "SCS"])
def test_the_last_iterate_is_kept(solver):
    values = torch.ones(2, 3).double() * 2, torch.tensor([2.5, 3.0], dtype=torch.float64, requires_grad=True)
    few = {"max_iters": 3}
    full = ball(solver=solver)(*values)[0]
    for solution in (
        ball(solver=solver).solve(*values, solver_args=few),
        ball(solver=solver, on_failure="keep").solve(*values, solver_args=few),
    ):
        assert list(solution.status) == [Status.ITERATION_LIMIT] * 2
        assert solution.cone.x.isfinite().all() and (solution.cone.x != 0).any()
        assert solution.primal_residual.isfinite().all() and solution.gap.isfinite().all()
    (kept,) = solution.variables
    assert (kept - full).abs().max() < 10
    kept.sum().backward()
    assert (values[1].grad == 0).all()
    with pytest.raises(SolveError) as caught:
        ball(solver=solver)(*values, solver_args=few)
    assert caught.value.solution.cone.x.isfinite().all()


def test_keep_gives_nan_where_there_is_no_iterate():
    (found,) = portfolio(on_failure="keep")(I, torch.stack([O, O + 0.5]))
    assert found[0].isfinite().all() and found[1].isnan().all()


def test_cone_programmes_carry_their_failures_too():
    layer = ConeLayer(Nonnegative(2), torch.ones(2, 1))
    with pytest.raises(SolveError) as caught:
        layer(None, torch.ones(1), torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0], [-2.0, 1.0]]))
    assert caught.value.indices == (1,) and caught.value.status[1] == Status.PRIMAL_INFEASIBLE
    assert caught.value.solution.x[0].isfinite().all()

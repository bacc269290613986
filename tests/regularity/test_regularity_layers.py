"""The report, the policy and the margin history, on problems as users write them."""

import copy
import pickle
import warnings

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers import ConeLayer, CvxpyLayer, solve_cone_program
from conelayers.cones import Nonnegative, SecondOrder
from conelayers.errors import InvalidArgument, RegularityError, RegularityWarning, UnsupportedError
from conelayers.layers import LayerSolution, MarginHistory
from conelayers.regularity import policy
from conelayers.regularity.sparse import smallest_singular


def T(*values):
    return torch.tensor(values, dtype=torch.float64)


def projection(constraints, **options):
    """The layer a -> argmin |x - a|^2 under constraints, which are given x."""
    x, a = cp.Variable(3, name="x"), cp.Parameter(3, name="a")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), constraints(x))
    return CvxpyLayer(problem, [a], [x], **options)


ARTEFACTS = {
    "norm": lambda x: [cp.norm(x) <= 10],
    "abs": lambda x: [cp.abs(x) <= 10],
    "exp": lambda x: [cp.exp(x) <= 50],
    "max": lambda x: [cp.max(x) <= 10],
    "sum of norms": lambda x: [cp.norm(x) + cp.norm(2 * x - 1) <= 30],
    "norm1": lambda x: [cp.norm1(x) <= 10],
    "mixed sum": lambda x: [cp.norm1(x) + cp.sum(cp.exp(x)) + cp.max(x) <= 100],
    "nested": lambda x: [cp.max(cp.hstack([cp.norm(x), cp.norm1(x), cp.sum_squares(x)])) <= 100],
    "sum of squares": lambda x: [cp.sum_squares(x) + cp.quad_over_lin(x[0], x[1] + 5) <= 100],
    "log_sum_exp": lambda x: [cp.log_sum_exp(x) <= 20],
    "power": lambda x: [cp.sum(cp.power(cp.abs(x), 3)) <= 500],
    "lambda_max": lambda x: [cp.lambda_max(cp.diag(x)) + cp.norm(x) <= 50],
    "sum_largest active": lambda x: [cp.sum_largest(x, 2) <= 1],
    "huber": lambda x: [cp.sum(cp.huber(x, 10)) <= 200],
}


@pytest.mark.parametrize("name", ARTEFACTS)
def test_inactive_epigraphs_are_regular(name):
    report = projection(ARTEFACTS[name]).solve(T(0.7, 2.0, -1.0)).regularity()
    assert bool(report.regular) and bool(report.decided), report.explain()
    assert float(report.sigma_primal) > 1e-6
    assert not report.undetermined and not report.dependent


def test_undetermined_user_variable_is_not_an_artefact():
    """The same free epigraph variable, but the user's own and requested."""
    x, t, a = cp.Variable(2, name="x"), cp.Variable(name="t"), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.norm(x) <= t, t <= 10])
    report = CvxpyLayer(problem, [a], [x, t]).solve(T(1.0, 1.0)).regularity()
    assert not bool(report.regular) and bool(report.decided)
    assert list(report.undetermined) == ["t"]


def test_auxiliary_variable_pushed_by_a_parameter_is_no_artefact():
    """With weight 0 on |x| the epigraph is free, but the parameter pushes it."""
    x, a, weight = cp.Variable(2), cp.Parameter(2), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a) + weight * cp.norm1(x)), [cp.norm1(x) <= 10])
    layer = CvxpyLayer(problem, [a, weight], [x])
    assert bool(layer.solve(T(1.0, 2.0), T(0.5).squeeze()).regularity().regular)
    assert not bool(layer.solve(T(1.0, 2.0), T(0.0).squeeze()).regularity().regular)


def test_parameters_in_inactive_rows_of_free_epigraphs_are_harmless():
    x, a, weight = cp.Variable(2), cp.Parameter(2), cp.Parameter(nonneg=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [weight * cp.norm(x) + cp.norm1(x) <= 30])
    assert bool(CvxpyLayer(problem, [a, weight], [x]).solve(T(1.0, 2.0), T(0.5).squeeze()).regularity().regular)


def test_geometric_programme():
    x, y, a = cp.Variable(pos=True, name="x"), cp.Variable(pos=True, name="y"), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(x + y), [(x * y >= a).set_label("area"), (x <= 10).set_label("cap")])
    layer = CvxpyLayer(problem, [a], [x, y], gp=True)
    assert bool(layer.solve(T(2.0).squeeze()).regularity().regular)
    problem = cp.Problem(cp.Minimize(x + y), [(x * y >= a).set_label("area"), (x * y >= 1).set_label("unit")])
    report = CvxpyLayer(problem, [a], [x, y], gp=True).solve(T(1.0).squeeze()).regularity()
    assert list(report.dependent) == ["area", "unit"]


CASES = {
    # name: (constraints, a, regular, dependent, undetermined, weak)
    "interior": (lambda x: [cp.sum(x) <= 9], (1.0, 1.0, 1.0), True, [], [], []),
    "weak bound": (lambda x: [(x >= 0).set_label("bound")], (0.0, 1.0, 2.0), True, [], [], ["bound"]),
    "weak ball": (lambda x: [(cp.norm(x) <= 3).set_label("ball")], (2.0, 2.0, 1.0), True, [], [], ["ball"]),
    "redundant": (
        lambda x: [
            (cp.sum(x) <= 1).set_label("cap"),
            (x[0] >= -9).set_label("far"),
            (2 * cp.sum(x) <= 2).set_label("twice"),
        ],
        (1.0, 1.0, 1.0),
        False,
        ["cap", "twice"],
        [],
        [],
    ),
    "equalities": (
        lambda x: [(cp.sum(x) == 1).set_label("one"), (3 * cp.sum(x) == 3).set_label("three")],
        (1.0, 2.0, 1.0),
        False,
        ["one", "three"],
        [],
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reports_name_the_constraints(name):
    constraints, a, regular, dependent, undetermined, weak = CASES[name]
    report = projection(constraints).solve(T(*a)).regularity()
    assert bool(report.regular) == regular and bool(report.decided)
    assert list(report.dependent) == dependent
    assert list(report.undetermined) == undetermined
    assert list(report.weakly_active) == weak
    for label in dependent + undetermined:
        assert label in report.explain()
    assert ("Remedies" in str(report)) == (not regular)


@pytest.mark.parametrize("cone", ["linear", "second-order", "semidefinite", "exponential"])
def test_dual_degenerate_optima(cone):
    """A linear objective parallel to a face leaves the solution undetermined."""
    x, c = cp.Variable(3, name="x"), cp.Parameter(3)
    X, C = cp.Variable((2, 2), symmetric=True, name="X"), cp.Parameter((2, 2), symmetric=True)
    problem, parameter, value, variable = {
        "linear": (cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1]), c, T(1.0, 1.0, 2.0), x),
        "second-order": (
            cp.Problem(cp.Minimize(c @ x), [cp.norm(x[:2]) <= 1, cp.abs(x[2]) <= 1]),
            c,
            T(1.0, 0.0, 0.0),
            x,
        ),
        "semidefinite": (
            cp.Problem(cp.Minimize(cp.trace(C @ X)), [X >> 0, cp.trace(X) == 1]),
            C,
            torch.eye(2, dtype=torch.float64),
            X,
        ),
        "exponential": (
            cp.Problem(cp.Minimize(c @ x), [cp.exp(x[0]) <= x[1], x[0] >= 0, cp.abs(x[2]) <= 1]),
            c,
            T(0.0, 1.0, 0.0),
            x,
        ),
    }[cone]
    report = CvxpyLayer(problem, [parameter], [variable]).solve(value).regularity()
    assert not bool(report.regular) and bool(report.decided)
    assert list(report.undetermined) == [variable.name()]
    assert float(report.sigma_primal) < 1e-8


def test_hermitian_constraints_are_judged_as_such():
    """The lifted dual of a Hermitian block is never unique; the user's is, unless the constraint stands there twice."""
    Z, C = cp.Variable((2, 2), hermitian=True, name="Z"), cp.Parameter((2, 2), hermitian=True)
    value = torch.tensor([[1.0, 0.3j], [-0.3j, 2.0]], dtype=torch.complex128)
    objective = cp.Minimize(cp.real(cp.trace(C @ Z)))
    total = cp.real(cp.trace(Z)) == 1
    layer = CvxpyLayer(cp.Problem(objective, [Z >> 0, total]), [C], [Z])
    report = layer.solve(value).regularity()
    assert bool(report.regular) and float(report.sigma_dual) > 1e-3
    twice = CvxpyLayer(
        cp.Problem(objective, [(Z >> 0).set_label("one"), (2 * Z >> 0).set_label("two"), total]), [C], [Z]
    )
    report = twice.solve(value).regularity()
    assert not bool(report.regular) and list(report.dependent) == ["one", "two"]
    tie = torch.eye(2, dtype=torch.complex128)
    assert list(layer.solve(tie).regularity().undetermined) == ["Z"]


def test_batch_shapes_and_failed_items():
    layer = projection(lambda x: [x >= 0, cp.sum(x) <= 1])
    solution = layer.solve(torch.randn(2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    report = solution.regularity(radius=0.01)
    for name in ("regular", "decided", "sigma_dual", "sigma_primal", "margin"):
        assert getattr(report, name).shape == (2, 3)
    assert layer.solve(T(1.0, 1.0, 1.0)).regularity().margin.shape == ()
    x, a = cp.Variable(), cp.Parameter()
    failing = CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x)), [x >= a, x <= 1]), [a], [x], on_failure="nan")
    report = failing.solve(T(0.5, 2.0)).regularity()
    assert report.regular.tolist() == [True, False] and report.decided.tolist() == [True, False]
    assert report.margin.isnan().tolist() == [False, True]
    with pytest.raises(UnsupportedError):
        LayerSolution(solution.variables, solution.cone).regularity()


def test_policy_warns_and_raises_by_item():
    bad, good = T(1.0, 1.0, 1.0), T(0.1, 0.1, 0.1)
    make = CASES["redundant"][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RegularityWarning)
        projection(make)(bad)  # ignored by default
        projection(make, regularity="warn")(good)
    with pytest.warns(RegularityWarning, match=r"1 of 3 batch items \(1\).*'cap', 'twice'.*Remedies"):
        projection(make, regularity="warn")(torch.stack([good, bad, good]))
    with pytest.raises(RegularityError, match="cap"):
        projection(make, regularity="raise")(bad)
    with pytest.raises(InvalidArgument, match="regularity"):
        projection(make, regularity="yes")


def test_policy_works_under_transforms():
    layer = projection(CASES["redundant"][0], regularity="warn")
    points = torch.ones(2, 3, dtype=torch.float64)
    with pytest.warns(RegularityWarning):
        torch.func.vmap(lambda a: layer(a)[0])(points)
    with pytest.warns(RegularityWarning):
        torch.func.jacrev(lambda a: layer(a)[0])(points[0])


def test_ordinary_items_take_no_rank_test(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("rank test of an ordinary item")

    layer = projection(lambda x: [x >= 0, cp.sum(x) == 1, cp.norm(x) <= 2], regularity="raise")
    monkeypatch.setattr(policy, "examine", refuse)
    layer(T(0.5, 0.4, 0.3).expand(5, 3))


def test_screening_misses_nothing():
    """Every item that the full certificate rejects is suspicious."""
    from conelayers.regularity import suspicious

    layer = projection(lambda x: [x >= 0, cp.sum(x) <= 1, x[0] + x[1] <= 1, cp.norm(x) <= 1])
    points = torch.cat([torch.randint(-1, 3, (200, 3), generator=torch.Generator().manual_seed(1)).double() / 2])
    program = layer.program.values(points)
    solution = layer.solve(points)
    doubtful = suspicious(program, solution.cone.detach())
    report = solution.regularity()
    assert bool((doubtful | report.regular).all())
    assert 0 < int((~report.regular).sum()) and 0 < int((~doubtful).sum())


def test_margin_history():
    layer = projection(lambda x: [x >= 0])
    with MarginHistory(layer, certify=True) as history:
        layer(T(0.5, 0.2, 1.0))
        layer(T(0.0, 0.2, 1.0).expand(4, 3))
    layer(T(0.5, 0.2, 1.0))
    assert [m.shape for m in history.margins] == [(), (4,)]
    assert float(history.margins[0]) == pytest.approx(0.2, abs=1e-8)
    assert float(history.margins[1].max()) < 1e-8
    ax = history.plot()
    assert len(ax.lines) == 2
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(T(0.5, 0.2, 1.0))[0], layer(T(0.5, 0.2, 1.0))[0])


def test_large_problems_by_sparse_factorization(monkeypatch):
    """The sparse tests agree with the dense ones."""
    from conelayers.regularity import certificate

    makers = [CASES["redundant"][0], ARTEFACTS["sum of norms"], lambda x: [x >= 0, cp.sum(x) == 1]]
    for maker in makers:
        solution = projection(maker).solve(T(1.0, 0.6, -0.5))
        dense = solution.regularity()
        with monkeypatch.context() as patch:
            patch.setattr(certificate, "DENSE_SIZE", 0)
            found = solution.regularity()
        assert bool(found.regular) == bool(dense.regular) and bool(found.decided) == bool(dense.decided)
        assert list(found.dependent) == list(dense.dependent)


@pytest.mark.parametrize("shape", [(40_000, 12), (40_000, 3), (5, 9), (3, 2)])
def test_smallest_singular_values_of_sparse_matrices(shape):
    """Tall, wide and tiny ones, with a column that repeats another; nothing of the size of rows times rows is made."""
    rng = np.random.default_rng(0)
    X = sp.random_array(shape, density=0.5, rng=rng, format="csc") + sp.eye_array(*shape, format="csc")
    X = sp.csc_array(sp.hstack([X @ sp.diags_array(0.5 ** np.arange(shape[1])), X[:, [0]]]))
    sigma = np.linalg.svd(X.toarray(), compute_uv=False)
    sigma = np.concatenate([sigma, np.zeros(X.shape[1] - len(sigma))])
    found = smallest_singular(X)
    zeros = int((sigma < 1e-9 * sigma[0]).sum())
    assert zeros >= 1 and found.sigma < 1e-9 and found.null.shape == (X.shape[1], zeros)
    assert np.abs(X @ found.null).max() < 1e-8
    assert found.above == pytest.approx(sigma[-1 - zeros], rel=1e-4)


def test_large_sparse_problem():
    n = 600
    x, a = cp.Variable(n, name="x"), cp.Parameter(n)
    problem = cp.Problem(
        cp.Minimize(cp.sum_squares(x - a)), [x >= 0, cp.sum(x) == 1, (cp.sum(x) <= 1).set_label("again")]
    )
    rng = np.random.default_rng(0)
    report = CvxpyLayer(problem, [a], [x]).solve(torch.tensor(rng.standard_normal(n))).regularity()
    assert not bool(report.regular) and "again" in report.dependent
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x >= 0, cp.sum(x) == 1, cp.norm1(x) <= 30])
    report = CvxpyLayer(problem, [a], [x]).solve(torch.tensor(rng.standard_normal(n))).regularity()
    assert bool(report.regular), report.explain()


def test_cone_programmes_given_as_data():
    """The same report without CVXPY: cones and entries of x have names of their own."""
    cone = [Nonnegative(1), SecondOrder(3), Nonnegative(1)]
    A = torch.tensor([[1.0, 1, 0], [0, 0, -1], [1, 0, 0], [0, 1, 0], [2, 2, 0]], dtype=torch.float64)
    P, b = torch.diag(T(1.0, 1.0, 0.0)), T(1.0, 0.0, 0.0, 0.0, 2.0)
    layer = ConeLayer(cone, A, P)
    q = torch.stack([T(-3.0, -3.0, 1.0), T(0.5, 0.4, 1.0)]).requires_grad_()
    solution = layer(P, q, A, b)
    report = solution.regularity()
    assert report.regular.tolist() == [False, True] and report.decided.tolist() == [True, True]
    assert report.sigma_dual.shape == (2,) and not report.sigma_dual.requires_grad
    assert list(report.dependent) == ["cone 0: Nonnegative(dim=1)", "cone 2: Nonnegative(dim=1)"]
    assert report.dependent["cone 0: Nonnegative(dim=1)"].tolist() == [True, False]
    assert solution.x.requires_grad and solution.detach().x.shape == (2, 3)
    free = solve_cone_program(P, T(-1.0, -1.0, 0.0), A[1:4], b[1:4], SecondOrder(3)).regularity()
    assert list(free.undetermined) == ["x[2]"] and free.regular.shape == ()
    near = solve_cone_program(P, T(0.5, 0.4, 1.0), A[:4], T(10.0, 0.0, 0.0, 0.0), cone[:2])
    assert bool(near.regularity().regular) and not bool(near.regularity(radius=20.0).regular)
    single = layer(P.float(), q.detach().float(), A.float(), b.float())
    assert single.x.dtype == torch.float32 and single.regularity().regular.tolist() == [False, True]
    for twin in (copy.deepcopy(solution.detach()), pickle.loads(pickle.dumps(single))):
        assert twin.x.shape == (2, 3)


@pytest.mark.parametrize("bound", [1e3, 1e10, 1e20])
def test_bounds_that_nothing_comes_near_do_not_hide_the_other_rows(bound):
    x, q, u = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) / 2 + q @ x), [x <= u, x >= -0.5, cp.norm(x) <= 3])
    layer = CvxpyLayer(problem, [q, u], [x])
    slopes = torch.tensor([[-1.0, 2.0, 0.3], [-1.0, 0.5, 0.3]], dtype=torch.float64)
    limits = torch.full((3,), bound, dtype=torch.float64)
    report = layer.solve(slopes, limits).regularity()
    assert report.regular.tolist() == [True, True] and report.decided.all()
    # in the second item the bound on x_1 is weakly active: reached, with a multiplier of zero
    assert report.margin[0] > 0.1 and report.margin[1] < 1e-8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer.regularity = "warn"
        layer(slopes[:1], limits)


@pytest.mark.parametrize("radius", [-1.0, float("nan"), "a"])
def test_a_radius_is_a_number_at_or_above_zero(radius):
    solution = projection(lambda x: [x >= 0]).solve(T(1.0, -1.0, 0.0))
    with pytest.raises(InvalidArgument, match="radius"):
        solution.regularity(radius)


def test_a_regular_item_on_a_kink_says_so():
    """Isotonic regression at equal values: the margin, what is weakly active, and how to give it a name."""
    y, p = cp.Variable(4), cp.Parameter(4)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(y - p)), [cp.diff(y) >= 0])
    text = str(CvxpyLayer(problem, [p], [y]).solve(torch.zeros(4).double()).regularity())
    assert text.startswith("Regular") and "margin" in text and "constraint 0:" in text and "set_label" in text
    y, p = cp.Variable(4, name="fit"), cp.Parameter(4, name="data")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(y - p)), [(cp.diff(y) >= 0).set_label("order")])
    layer = CvxpyLayer(problem, [p], [y])
    text = str(layer.solve(torch.zeros(2, 4).double()).regularity())
    assert "weakly active: 'order'" in text and "2 of 2 items" in text and "set_label" not in text
    assert "kink" not in str(layer.solve(torch.arange(4.0).double()).regularity())


def test_dependent_terms_of_the_objective_are_named_with_a_remedy():
    x, u, w = cp.Variable(2, name="x"), cp.Variable(2, name="trade"), cp.Parameter(2, name="holding")
    problem = cp.Problem(cp.Minimize(cp.norm1(u) + cp.norm1(x)), [(u == x - w).set_label("change")])
    text = str(CvxpyLayer(problem, [w], [x]).solve(torch.zeros(2).double()).regularity())
    assert "'change'" in text and "nonsmooth terms of the objective" in text and "huber in place of abs" in text

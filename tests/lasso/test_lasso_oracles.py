"""Solutions and derivatives against closed forms, scikit-learn, CVXPY and the generic fixed-point adapter."""

import math
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet as SkElasticNet
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso

from conelayers.errors import InvalidArgument, RegularityWarning
from conelayers.lasso import (
    L1,
    MCP,
    SCAD,
    Box,
    ElasticNet,
    EpsilonBox,
    GroupLasso,
    Huber,
    Logistic,
    Multinomial,
    MultitaskL1,
    MultitaskQuadratic,
    ProximalGradient,
    ProximalModel,
    Quadratic,
    Quantile,
    SparseGroupLasso,
    WeightedL1,
    WorkingSet,
    as_design,
)

TIGHT = WorkingSet(tol=1e-14, max_iter=100)


def _orthogonal(n=12, p=8, seed=0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((n, p)))
    return torch.tensor(q * math.sqrt(n)), torch.tensor(rng.standard_normal(n) * 2)


@settings(max_examples=40, deadline=None)
@given(st.floats(-8, 8), st.floats(0.05, 0.95), st.floats(0, 3))
def test_orthogonal_design_closed_form(exponent, share, ridge):
    # X'X = n I: b = soft(X'y / n, l1) / (1 + l2), at any scale of the targets
    X, y = _orthogonal()
    y = y * 10.0**exponent
    z = X.mT @ y / X.shape[0]
    l1 = (share * z.abs().max()).requires_grad_()
    l2 = torch.tensor(ridge, dtype=torch.float64, requires_grad=True)
    coef, _ = ProximalModel(Quadratic(), ElasticNet(), False, TIGHT)(X, y, l1, l2)
    expected = torch.sign(z) * (z.abs() - l1).clamp_min(0) / (1 + l2)
    scale = float(z.abs().max())
    torch.testing.assert_close(coef, expected, rtol=1e-10, atol=1e-12 * scale)
    ours = torch.autograd.grad(coef.square().sum(), (l1, l2))
    closed = torch.autograd.grad(expected.square().sum(), (l1, l2))
    torch.testing.assert_close(ours[0], closed[0], rtol=1e-9, atol=1e-11 * scale)
    torch.testing.assert_close(ours[1], closed[1], rtol=1e-9, atol=1e-11 * scale**2)


def test_group_closed_form():
    X, y = _orthogonal()
    z = (X.mT @ y / X.shape[0]).reshape(4, 2)
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    coef, _ = ProximalModel(Quadratic(), GroupLasso((0, 0, 1, 1, 2, 2, 3, 3)), False, TIGHT)(X, y, alpha)
    expected = z * (1 - alpha * math.sqrt(2) / z.norm(dim=1, keepdim=True)).clamp_min(0)
    torch.testing.assert_close(coef.reshape(4, 2), expected, rtol=1e-10, atol=1e-12)
    ours, closed = (torch.autograd.grad(c.pow(3).sum(), alpha)[0] for c in (coef, expected))
    torch.testing.assert_close(ours, closed, rtol=1e-9, atol=1e-11)


def _data(n=60, p=30, seed=1):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 0.5
    return X, X[:, :4] @ np.array([1.0, -2, 1.5, 0.5]) + rng.standard_normal(n) + 2, rng.uniform(0.2, 2, n)


def test_scikit_learn_solutions():
    X, y, w = _data()
    exact = {"tol": 1e-12, "max_iter": 100_000}
    reference = Lasso(alpha=0.2, **exact).fit(X, y, w)
    fit = ProximalModel(Quadratic(), L1(), True, TIGHT).fit(X, y, 0.2, sample_weight=w)
    np.testing.assert_allclose(fit.coef.numpy(), reference.coef_, atol=1e-8)
    assert abs(float(fit.intercept) - reference.intercept_) < 1e-7
    reference = SkElasticNet(alpha=0.4, l1_ratio=0.25, **exact).fit(X, y)
    fit = ProximalModel(Quadratic(), ElasticNet(), True, TIGHT).fit(X, y, 0.1, 0.3)
    np.testing.assert_allclose(fit.coef.numpy(), reference.coef_, atol=1e-8)
    Y = np.column_stack([y, y[::-1]])
    reference = MultiTaskLasso(alpha=0.5, **exact).fit(X, Y)
    fit = ProximalModel(MultitaskQuadratic(), MultitaskL1(), True, TIGHT).fit(X, Y, 0.5)
    np.testing.assert_allclose(fit.coef.T.numpy(), reference.coef_, atol=1e-7)
    labels = np.where(y > np.median(y), 1, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = LogisticRegression(penalty="l1", C=1 / (0.05 * 60), solver="saga", tol=1e-10, max_iter=100_000).fit(
            X, labels
        )
    fit = ProximalModel(Logistic(), L1(), True, TIGHT).fit(X, labels, 0.05)
    np.testing.assert_allclose(fit.coef.numpy(), reference.coef_[0], atol=1e-5)


def _cvxpy_cases():
    import cvxpy as cp

    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((20, 9)), rng.standard_normal(20)
    Y, labels = np.column_stack([y, y[::-1]]), np.where(y > 0, 1.0, -1.0)
    b, B = cp.Variable(9), cp.Variable((9, 2))
    one, two = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    fit, groups = cp.sum_squares(X @ b - y) / 40, (0, 0, 0, 1, 1, 1, 2, 2, 2)
    norms = math.sqrt(3) * sum(cp.norm2(b[3 * g : 3 * g + 3]) for g in range(3))
    rows = sum(cp.norm2(B[j]) for j in range(9))
    net = one * cp.norm1(b) + two / 2 * cp.sum_squares(b)
    margins = -cp.multiply(labels, X @ b)
    quadratic, box = Quadratic(), [b >= 0, b <= one]
    dual = cp.sum_squares(X @ b - y) / 40 + two * cp.norm1(b) - y[:9] @ b
    return {
        "lasso": (quadratic, L1(), y, (0.1,), fit + one * cp.norm1(b), []),
        "nonnegative": (quadratic, L1(True), y, (0.02,), fit + one * cp.norm1(b), [b >= 0]),
        "elastic net": (quadratic, ElasticNet(), y, (0.05, 0.2), fit + net, []),
        "group": (quadratic, GroupLasso(groups), y, (0.05,), fit + one * norms, []),
        "sparse group": (
            quadratic,
            SparseGroupLasso(groups),
            y,
            (0.03, 0.05),
            fit + one * norms + two * cp.norm1(b),
            [],
        ),
        "multitask": (MultitaskQuadratic(), MultitaskL1(), Y, (0.2,), cp.sum_squares(X @ B - Y) / 40 + one * rows, []),
        "huber": (Huber(0.7), L1(), y, (0.05,), cp.sum(cp.huber(X @ b - y, 0.7)) / 40 + one * cp.norm1(b), []),
        "logistic": (Logistic(), ElasticNet(), labels, (0.03, 0.1), cp.sum(cp.logistic(margins)) / 20 + net, []),
        "svm": (quadratic, Box(), y, (0.3,), fit - cp.sum(b), box),
        "svr": (quadratic, EpsilonBox(tuple(y[:9])), y, (0.5, 0.1), dual, [b >= -one, b <= one]),
    }


CVXPY_CASES = (
    "lasso",
    "nonnegative",
    "elastic net",
    "group",
    "sparse group",
    "multitask",
    "huber",
    "logistic",
    "svm",
    "svr",
)


@pytest.mark.parametrize("name", CVXPY_CASES)
def test_agrees_with_cvxpy_layer(name):
    import cvxpy as cp

    from conelayers import CvxpyLayer

    X = torch.tensor(np.random.default_rng(3).standard_normal((20, 9)))
    datafit, penalty, target, values, objective, constraints = _cvxpy_cases()[name]
    problem = cp.Problem(cp.Minimize(objective), constraints)
    variable = problem.variables()[0]
    parameters = sorted(problem.parameters(), key=lambda p: p.id)
    layer, model = CvxpyLayer(problem, parameters, [variable]), ProximalModel(datafit, penalty, False, TIGHT)
    answers = []
    for solve in (lambda *t: layer(*t)[0], lambda *t: model(X, target, *t)[0]):
        theta = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
        coef = solve(*theta)
        direction = torch.linspace(-1, 2, coef.numel(), dtype=torch.float64).reshape(coef.shape)
        answers.append((coef.detach(), *torch.autograd.grad((direction * coef).sum(), theta)))
    assert 0 < int((answers[1][0] != 0).sum())
    for first, second in zip(*answers):
        torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


def test_certificate_covers_every_element_on_weak_features():
    # zero is the solution at the largest alpha; features with equal |correlation| are weakly active together
    rng = np.random.default_rng(7)
    X, y = rng.standard_normal((20, 4)), rng.standard_normal(20)
    for design, regular in ((X, True), (np.column_stack([X, -X[:, 0]]), False)):
        correlation = np.abs(design.T @ y) / 20
        scaled = design * (correlation.max() / correlation)  # all features weakly active
        model = ProximalModel(Quadratic(), L1(), False, TIGHT)
        zero = torch.zeros(design.shape[1], dtype=torch.float64)
        found = model.regularity(scaled, y, float(correlation.max()), coef=zero, intercept=torch.zeros(()))
        assert found.weak.numel() == design.shape[1] and found.regular is regular
        gram, smallest = scaled.T @ scaled / 20, np.inf
        for q in [*rng.random((200, gram.shape[0])), np.ones(gram.shape[0])]:
            element = np.diag(q) @ gram + np.eye(gram.shape[0]) - np.diag(q)
            smallest = min(smallest, np.linalg.svd(element, compute_uv=False)[-1])
        assert bool(smallest > 1e-10) is regular


def test_certificate_sees_weak_and_duplicated_features():
    X, y, _ = _data(40, 8)
    model = ProximalModel(Quadratic(), L1(), False, TIGHT)
    fit = model.fit(X, y, 0.3)
    certificate = model.regularity(X, y, 0.3, coef=fit.coef, intercept=fit.intercept)
    assert certificate.regular and certificate.weak.numel() == 0 and certificate.margin > 1e-6
    assert certificate.support.tolist() == torch.nonzero(fit.coef).flatten().tolist()
    # a copy of an active feature has the same correlation with the residual: weakly active, and X_E'X_E is singular
    active = int(certificate.support[0])
    doubled = np.column_stack([X, X[:, active]])
    coef = torch.cat([fit.coef, torch.zeros(1, dtype=torch.float64)])
    certificate = model.regularity(doubled, y, 0.3, coef=coef, intercept=fit.intercept)
    assert certificate.weak.tolist() == [8] and not certificate.regular
    both = coef.clone()
    both[active], both[8] = coef[active] / 2, coef[active] / 2
    assert not model.regularity(doubled, y, 0.3, coef=both, intercept=fit.intercept).regular
    alpha = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    with pytest.warns(RegularityWarning):
        out, _ = model(torch.tensor(doubled), y, alpha, start=(both, fit.intercept))
        torch.autograd.grad(out.sum(), alpha)
    # at the smallest alpha with a zero solution, the first feature is weakly active
    largest = float(np.abs(X.T @ y).max() / 40)
    zero = torch.zeros(8, dtype=torch.float64)
    weak = model.regularity(X, y, largest, coef=zero, intercept=fit.intercept)
    assert weak.weak.numel() == 1 and weak.regular


def test_batches_and_dtypes():
    X, y, w = _data()
    model = ProximalModel(Quadratic(), L1(), True, TIGHT)
    alphas = torch.tensor([[0.1, 0.2], [0.4, 50.0]], dtype=torch.float32, requires_grad=True)
    coef, intercept = model(X, y, alphas)
    assert coef.shape == (2, 2, 30) and intercept.shape == (2, 2) and coef.dtype == torch.float32
    (grad,) = torch.autograd.grad(coef.sum(), alphas)
    for index in np.ndindex(2, 2):
        alpha = alphas[index].detach().double().requires_grad_()
        single, _ = model(X, y, alpha)
        torch.testing.assert_close(coef[index].double(), single, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            grad[index].double(), torch.autograd.grad(single.sum(), alpha)[0], rtol=1e-5, atol=1e-6
        )
    mapped = torch.func.vmap(lambda a: model(X, y, a)[0])(alphas.detach()[0].double())
    torch.testing.assert_close(mapped, model(X, y, alphas.detach()[0].double())[0], rtol=1e-12, atol=1e-13)
    weights = WeightedL1()
    jacobian = torch.func.jacrev(lambda a: ProximalModel(Quadratic(), weights, True, TIGHT)(X, y, a)[0])
    each = torch.full((30,), 0.2, dtype=torch.float64)
    forward = torch.func.jacfwd(lambda a: ProximalModel(Quadratic(), weights, True, TIGHT)(X, y, a)[0])
    torch.testing.assert_close(jacobian(each), forward(each), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0)])
@pytest.mark.parametrize("sparse", [False, True])
def test_gradients_may_be_mapped(mapped, sparse):
    X, y, _ = _data()
    design = sp.csc_matrix(X) if sparse else torch.as_tensor(X)
    model = ProximalModel(Quadratic(), L1(), True, TIGHT)
    values = [torch.as_tensor(y), torch.tensor(0.3, dtype=torch.float64)]
    values = [v if dim is None else torch.stack([v, 1.1 * v, 0.8 * v]) for v, dim in zip(values, mapped, strict=True)]

    def loss(target, alpha):
        return model(design, target, alpha)[0].square().sum()

    found = torch.func.vmap(torch.func.grad(loss, (0, 1)), mapped)(*values)
    for item in range(3):
        single = [v if dim is None else v[item] for v, dim in zip(values, mapped, strict=True)]
        expected = torch.func.grad(loss, (0, 1))(*single)
        torch.testing.assert_close(tuple(g[item] for g in found), expected, rtol=1e-9, atol=1e-10)


def test_errors_name_the_argument():
    X, y, _ = _data()
    model = ProximalModel(Quadratic(), L1())
    with pytest.raises(InvalidArgument, match="alpha"):
        model(X, y, -1.0)
    with pytest.raises(InvalidArgument, match="alpha"):
        model(X, y)
    with pytest.raises(InvalidArgument, match="MultitaskQuadratic"):
        model(X, np.column_stack([y, y]), 0.1)
    with pytest.raises(InvalidArgument, match="labels"):
        ProximalModel(Logistic(), L1())(X, y, 0.1)
    with pytest.raises(InvalidArgument, match="samples"):
        model(X, y[:-1], 0.1)
    with pytest.raises(InvalidArgument, match="groups"):
        ProximalModel(Quadratic(), GroupLasso((0, 2)))(X[:, :2], y, 0.1)
    with pytest.raises(InvalidArgument, match=r"alpha \(3,\)"):
        ProximalModel(Quadratic(), WeightedL1())(X, y, [0.1, 0.1, 0.1])
    for penalty, gamma in ((SCAD(), 2.0), (MCP(), 0.0)):
        with pytest.raises(InvalidArgument, match="gamma"):
            ProximalModel(Quadratic(), penalty)(X, y, 0.1, gamma)
    broken = np.where(X == X[0, 0], np.inf, X)
    for wrong in (broken, sp.csc_array(broken), torch.tensor(broken), torch.tensor(broken).to_sparse()):
        with pytest.raises(InvalidArgument, match="X must be finite"):
            model(wrong, y, 0.1)
    with pytest.raises(InvalidArgument, match="y must be finite"):
        model(X, y * np.nan, 0.1)
    for weights in (-np.ones(len(y)), np.zeros(len(y))):
        with pytest.raises(InvalidArgument, match="sample_weight must be nonnegative"):
            model(X, y, 0.1, sample_weight=weights)
    with pytest.raises(InvalidArgument, match="delta"):
        Huber(-1.0)
    with pytest.raises(InvalidArgument, match="tol"):
        WorkingSet(tol=-1.0)


def test_memory_is_not_read_on_other_devices():
    design = as_design(torch.empty(5, 3, dtype=torch.float64, device="meta"))
    assert design.gram(torch.empty(5, dtype=torch.float64, device="meta")).shape == (3, 3)


def test_unfinished_solutions_say_so():
    X, y, _ = _data()
    fit = ProximalModel(Quadratic(), L1(), solver=ProximalGradient(max_iter=2, newton=False)).fit(X, y, 0.01)
    assert fit.violation > 1e-4 and fit.gap > 1e-4


@pytest.mark.parametrize("solver", [WorkingSet(), ProximalGradient()])
@pytest.mark.parametrize("size", [1e-8, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("mean", [0.0, 1.5, 1e3])
def test_units_of_the_features_do_not_matter(size, mean, solver):
    """Beside features of size 1e-8 the slope of the intercept is 1e8 times the gradient."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 8))
    y = X @ np.r_[1.0, 2.0, 3.0, np.zeros(5)] + mean + 0.1 * rng.normal(size=40)
    alpha = 0.05 * np.abs(X.T @ (y - y.mean())).max() / 40
    expected = Lasso(alpha=alpha, tol=1e-14, max_iter=100_000).fit(X, y)
    fit = ProximalModel(Quadratic(), L1(), solver=solver).fit(size * X, y, size * alpha)
    assert fit.violation <= 1e-8
    np.testing.assert_allclose(size * fit.coef.numpy(), expected.coef_, rtol=0, atol=1e-7)
    assert float(fit.intercept) == pytest.approx(expected.intercept_, abs=1e-7)


LOSSES = {
    "squares": (Quadratic(), lambda y: y),
    "outputs": (MultitaskQuadratic(), lambda y: np.column_stack([y, -(y**2)])),
    "two classes": (Logistic(), lambda y: np.where(y > 1, 1, -1)),
    "three classes": (Multinomial(3), lambda y: np.digitize(y, [-3.0, 1.0])),
    "Huber": (Huber(0.5), lambda y: y),
    "quantile": (Quantile(0.3, 0.1), lambda y: y),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("features", "targets"), [(1e3, 0.0), (0.0, 1e5), (1e2, 1e5)])
def test_what_the_intercept_takes_away_does_not_loosen_the_tolerance(name, features, targets):
    """Targets of mean 1e5 have a gradient of 1e5 at zero, beside which nothing that the features explain is seen."""
    datafit, labels = LOSSES[name]
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 8))
    y = labels(X @ np.r_[1.0, 2.0, -3.0, np.zeros(5)] + 0.3 * rng.normal(size=60))
    model = ProximalModel(datafit, L1(), solver=WorkingSet(tol=1e-6))
    expected = ProximalModel(datafit, L1(), solver=WorkingSet(tol=1e-10)).fit(X, y, 0.05)
    assert int((expected.coef != 0).sum()) > 2
    moved = y + targets if np.issubdtype(y.dtype, np.floating) else y
    found = model.fit(X + features, moved, 0.05)
    np.testing.assert_allclose(found.coef.numpy(), expected.coef.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["squares", "two classes", "Huber", "quantile"])
@pytest.mark.parametrize("mean", [1e2, 1e4])
def test_sparse_columns_collinear_with_the_intercept(name, mean):
    """As of years or times of day beside indicators; the columns are too many for Newton's method at once."""
    datafit, labels = LOSSES[name]
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 120)) + mean * rng.normal(size=120)
    X[:, 0] = mean
    y = labels((X - X.mean(0))[:, 1:4] @ np.r_[1.0, 2.0, -3.0] + 0.3 * rng.normal(size=80))
    model = ProximalModel(datafit, L1(), solver=WorkingSet(tol=1e-7))
    dense, sparse = model.fit(X, y, 0.05), model.fit(sp.csc_array(X), y, 0.05)
    assert int((dense.coef != 0).sum()) > 2 and dense.violation <= 1e-6
    assert sparse.violation <= 1e-6
    np.testing.assert_allclose(sparse.coef.numpy(), dense.coef.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("datafit", [Huber(0.5), Quantile(0.3, 0.1), Quadratic(), Logistic(), Multinomial(3)])
def test_solvers_start_at_the_best_constant(datafit):
    rng = np.random.default_rng(1)
    labels = {Logistic: np.where(rng.random(30) > 0.8, 1, -1), Multinomial: np.arange(30) % 7 % 3}
    y = datafit.targets(torch.as_tensor(labels.get(type(datafit), 1e4 + rng.normal(size=30))))
    weights = torch.as_tensor(rng.random(30) * (rng.random(30) > 0.3))
    eta = datafit.constant(y, weights) + torch.zeros_like(y)
    slopes = datafit.gradient(eta, y, weights)
    assert slopes.sum(0).abs().max() <= 1e-11 * slopes.abs().sum()


@pytest.mark.parametrize("size", [1e-8, 1e-4, 1e4])
def test_units_of_the_features_do_not_matter_to_nonconvex_penalties(size):
    X, y, _ = _data()
    y = y + 3.0
    model = ProximalModel(Quadratic(), MCP())
    one, other = model.fit(X, y, 0.3, 3.0), model.fit(size * X, y, size * 0.3, 3.0 / size**2)
    assert max(one.violation, other.violation) <= 1e-8
    np.testing.assert_allclose(size * other.coef.numpy(), one.coef.numpy(), rtol=0, atol=1e-7)
    assert other.iterations <= one.iterations + 2


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e4])
def test_certificates_do_not_depend_on_the_units_of_the_features(size):
    X, y, _ = _data()
    model = ProximalModel(Quadratic(), L1())
    fit = model.fit(size * X, y + 3.0, size * 0.3)
    found = model.regularity(size * X, y + 3.0, size * 0.3, coef=fit.coef, intercept=fit.intercept)
    reference = model.fit(X, y + 3.0, 0.3)
    expected = model.regularity(X, y + 3.0, 0.3, coef=reference.coef, intercept=reference.intercept)
    assert found.regular and found.weak.numel() == expected.weak.numel() == 0
    assert found.margin == pytest.approx(expected.margin, rel=1e-4)

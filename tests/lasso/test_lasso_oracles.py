"""Solutions and derivatives against closed forms, scikit-learn, CVXPY and the generic fixed-point adapter."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet as SkElasticNet
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso

from conelayers.errors import InvalidArgument, RegularityWarning
from conelayers.lasso import (
    L1,
    Box,
    ElasticNet,
    GroupLasso,
    Logistic,
    MultitaskL1,
    MultitaskQuadratic,
    ProximalGradient,
    ProximalModel,
    Quadratic,
    SparseGroupLasso,
    WeightedL1,
    WorkingSet,
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


@pytest.mark.parametrize("model_name", ["lasso", "sparse group", "box"])
def test_agrees_with_cvxpy_layer(model_name):
    import cvxpy as cp

    from conelayers import CvxpyLayer

    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((20, 9)), rng.standard_normal(20)
    beta, a, b = cp.Variable(9), cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    fit = cp.sum_squares(X @ beta - y) / 40
    groups = (0, 0, 0, 1, 1, 1, 2, 2, 2)
    if model_name == "lasso":
        penalty, values, constraints = L1(), (0.1,), []
        objective = fit + a * cp.norm1(beta)
    elif model_name == "sparse group":
        penalty, values, constraints = SparseGroupLasso(groups), (0.03, 0.05), []
        norms = sum(cp.norm2(beta[3 * g : 3 * g + 3]) for g in range(3))
        objective = fit + a * math.sqrt(3) * norms + b * cp.norm1(beta)
    else:
        penalty, values, constraints = Box(), (0.3,), [beta >= 0, beta <= a]
        objective = fit - cp.sum(beta)
    parameters = [a, b][: len(values)]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective), constraints), parameters, [beta])
    direction = torch.linspace(-1, 2, 9, dtype=torch.float64)
    answers = []
    for solve in (
        lambda *t: layer(*t)[0],
        lambda *t: ProximalModel(Quadratic(), penalty, False, TIGHT)(torch.tensor(X), torch.tensor(y), *t)[0],
    ):
        theta = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
        coef = solve(*theta)
        answers.append((coef.detach(), *torch.autograd.grad(direction @ coef, theta)))
    assert 0 < int((answers[1][0] != 0).sum())
    for first, second in zip(*answers):
        torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("case", ["lasso", "elastic net", "group", "logistic"])
def test_agrees_with_the_fixed_point_adapter(case):
    from conelayers.iterations import NewtonKrylov
    from conelayers.layers.fixed_point import fixed_point

    X, y, _ = _data(40, 12)
    datafit, penalty, values = {
        "lasso": (Quadratic(), L1(), (0.2,)),
        "elastic net": (Quadratic(), ElasticNet(), (0.2, 0.1)),
        "group": (Quadratic(), GroupLasso(tuple(j // 3 for j in range(12))), (0.2,)),
        "logistic": (Logistic(), L1(), (0.05,)),
    }[case]
    target = np.where(y > np.median(y), 1.0, -1.0) if case == "logistic" else y
    design, target = torch.tensor(X), torch.tensor(target)
    model = ProximalModel(datafit, penalty, False, TIGHT)
    theta = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
    coef, _ = model(design, target, *theta)
    direction = torch.linspace(-1, 2, 12, dtype=torch.float64)
    ours = torch.autograd.grad(direction @ coef, theta)
    step = 0.5 / float(torch.linalg.eigvalsh(design.mT @ design / 40)[-1])

    def update(beta, *theta):
        gradient = design.mT @ datafit.slope(design @ beta, target) / 40
        return penalty.term((12,), *theta).prox(beta - step * gradient, step)

    z = fixed_point(update, coef.detach(), *theta, solver=NewtonKrylov(atol=1e-13, rtol=1e-13))
    torch.testing.assert_close(z, coef, rtol=1e-9, atol=1e-10)
    generic = torch.autograd.grad(direction @ z, theta)
    for a, b in zip(ours, generic):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


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


def test_unfinished_solutions_say_so():
    X, y, _ = _data()
    fit = ProximalModel(Quadratic(), L1(), solver=ProximalGradient(max_iter=2, newton=False)).fit(X, y, 0.01)
    assert fit.violation > 1e-4 and fit.gap > 1e-4

"""Hypergradients of every model against central differences of solutions at the accuracy of double precision."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

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
    WeightedElasticNet,
    WeightedL1,
    WorkingSet,
)

N, P, K = 40, 24, 3
GROUPS = tuple(j // 3 for j in range(P))
TIGHT = 1e-14


def _data(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, P)) + 0.3
    beta = np.where(np.arange(P) < 6, rng.standard_normal(P), 0)
    y = X @ beta + 0.5 * rng.standard_normal(N) + 1
    Y = X @ np.where(np.arange(P)[:, None] < 5, rng.standard_normal((P, K)), 0) + rng.standard_normal((N, K))
    labels = np.sign(y - np.median(y) + 1e-9)
    classes = np.argmax(Y, 1)
    w = rng.uniform(0.5, 2, N)
    return X, y, Y, labels, classes, w


X, y, Y, LABELS, CLASSES, W = _data()
EACH = np.linspace(0.05, 0.3, P)
CASES = {
    "lasso": (Quadratic(), L1(), y, (0.2,)),
    "nonnegative lasso": (Quadratic(), L1(nonnegative=True), y, (0.2,)),
    "weighted lasso": (Quadratic(), WeightedL1(), y, (EACH,)),
    "elastic net": (Quadratic(), ElasticNet(), y, (0.2, 0.3)),
    "weighted elastic net": (Quadratic(), WeightedElasticNet(), y, (EACH, EACH[::-1].copy())),
    "nonnegative elastic net": (Quadratic(), ElasticNet(nonnegative=True), y, (0.2, 0.3)),
    "group lasso": (Quadratic(), GroupLasso(GROUPS), y, (0.15,)),
    "group lasso, each": (Quadratic(), GroupLasso(GROUPS, each=True), y, (np.linspace(0.05, 0.3, P // 3),)),
    "sparse group lasso": (Quadratic(), SparseGroupLasso(GROUPS), y, (0.1, 0.1)),
    "multitask": (MultitaskQuadratic(), MultitaskL1(), Y, (0.5,)),
    "multitask, each": (MultitaskQuadratic(), MultitaskL1(each=True), Y, (EACH + 0.2,)),
    "multitask l1": (MultitaskQuadratic(), L1(), Y, (0.4,)),
    "logistic": (Logistic(), L1(), LABELS, (0.05,)),
    "logistic elastic net": (Logistic(), ElasticNet(), LABELS, (0.03, 0.1)),
    "logistic groups": (Logistic(), GroupLasso(GROUPS), LABELS, (0.05,)),
    "multinomial": (Multinomial(K), L1(), CLASSES, (0.05,)),
    "multinomial, per class": (Multinomial(K), WeightedL1(axes=2), CLASSES, (np.array([[0.03, 0.04, 0.06]]),)),
    "multinomial elastic net": (Multinomial(K), ElasticNet(), CLASSES, (0.03, 0.1)),
    "multinomial rows": (Multinomial(K), MultitaskL1(), CLASSES, (0.07,)),
    "huber": (Huber(0.7), L1(), y, (0.1,)),
    "quantile": (Quantile(0.3, 0.5), L1(), y, (0.05,)),
    "mcp": (Quadratic(), MCP(), y, (0.3, 3.0)),
    "scad": (Quadratic(), SCAD(), y, (0.3, 3.7)),
}


def _model(name, fit_intercept=True, solver=None):
    datafit, penalty, target, values = CASES[name]
    model = ProximalModel(datafit, penalty, fit_intercept, solver or WorkingSet(tol=TIGHT, max_iter=60))
    theta = [torch.tensor(v, dtype=torch.float64) for v in values]
    return model, torch.as_tensor(target), theta


def _loss(coef, intercept):
    # the part of an intercept that softmax cannot see is left out
    intercept = intercept - intercept.mean() if intercept.ndim else intercept
    a = torch.linspace(-1, 2, coef.numel(), dtype=coef.dtype).reshape(coef.shape)
    b = torch.linspace(1, 2, max(intercept.numel(), 1), dtype=coef.dtype).reshape(intercept.shape)
    return (a * coef).sum() + 0.1 * (coef**2).sum() + (b * intercept).sum()


def _central(function, theta, h):
    flat = theta.flatten()
    out = torch.zeros_like(flat)
    for i in range(flat.numel()):
        step = torch.zeros_like(flat)
        step[i] = h
        up, down = (flat + step).reshape(theta.shape), (flat - step).reshape(theta.shape)
        near = (function(up) - function(down)) / (2 * h)
        wide = (function((flat + 2 * step).reshape(theta.shape)) - function((flat - 2 * step).reshape(theta.shape))) / (
            4 * h
        )
        out[i] = (4 * near - wide) / 3
    return out.reshape(theta.shape)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("name", list(CASES))
def test_solution_is_optimal(name, fit_intercept):
    model, target, theta = _model(name, fit_intercept)
    fit = model.fit(X, target, *theta, sample_weight=W)
    assert fit.violation < 1e-12
    assert model.penalty.names[-1] == "gamma" or fit.gap < 1e-10
    assert 0 < int((fit.coef != 0).sum()) < fit.coef.numel()


@pytest.mark.parametrize("name", list(CASES))
def test_wrong_zeros_are_violations(name):
    model, target, theta = _model(name)
    fit = model.fit(X, target, *theta)
    for i in torch.nonzero(fit.coef.flatten()).flatten().tolist()[:8]:
        coef = fit.coef.flatten().clone()
        size, coef[i] = float(coef[i].abs()), 0.0
        wrong = coef.reshape(fit.coef.shape)
        entries, _ = fit.problem.violations(wrong, fit.problem.predictions(wrong, fit.intercept))
        assert float(entries.flatten()[i]) > 1e-3 * min(size, 1.0)


@pytest.mark.parametrize("name", list(CASES))
def test_hypergradient_central_differences(name):
    model, target, theta = _model(name)
    weight = torch.tensor(W)
    leaves = [t.clone().requires_grad_() for t in theta]
    coef, intercept = model(X, target, *leaves, sample_weight=weight)
    grads = torch.autograd.grad(_loss(coef, intercept), leaves)
    for i, grad in enumerate(grads):

        def function(value, i=i):
            moved = [*theta[:i], value, *theta[i + 1 :]]
            return _loss(*model(X, target, *moved, sample_weight=weight, start=(coef.detach(), intercept.detach())))

        expected = _central(function, theta[i], 1e-4)
        torch.testing.assert_close(grad, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["lasso", "group lasso", "logistic", "multinomial", "huber", "multitask"])
def test_derivatives_in_the_data(name):
    model, target, theta = _model(name)
    inputs = [torch.tensor(X), torch.tensor(W), theta[0]]

    def function(design, weight, alpha):
        coef, intercept = model(design, target, alpha, *theta[1:], sample_weight=weight)
        return coef, intercept - intercept.mean() if intercept.ndim else intercept

    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(
        function, inputs, eps=1e-5, atol=1e-6, rtol=1e-6, check_forward_ad=True, fast_mode=True
    )


@pytest.mark.parametrize("name", list(CASES))
def test_forward_mode_is_the_transpose(name):
    model, target, theta = _model(name)
    tangents = tuple(torch.linspace(1, 2, t.numel(), dtype=t.dtype).reshape(t.shape) for t in theta)

    def function(*values):
        return _loss(*model(X, target, *values))

    _, forward = torch.func.jvp(function, tuple(theta), tangents)
    reverse = torch.func.grad(function, argnums=tuple(range(len(theta))))(*theta)
    expected = sum((g * t).sum() for g, t in zip(reverse, tangents))
    torch.testing.assert_close(forward, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", list(CASES))
def test_agrees_with_the_fixed_point_adapter(name):
    from conelayers.fixed_points.iterations import NewtonKrylov
    from conelayers.layers.fixed_point import fixed_point

    model, target, theta = _model(name, fit_intercept=False)
    leaves = [t.clone().requires_grad_() for t in theta]
    coef, _ = model(X, target, *leaves)
    direction = torch.linspace(-1, 2, coef.numel(), dtype=coef.dtype).reshape(coef.shape)
    ours = torch.autograd.grad((direction * coef).sum(), leaves)
    problem = model.problem(X, target, *theta)
    bound = model.datafit.curvature * float(torch.linalg.eigvalsh(torch.tensor(X.T @ X) / N)[-1])
    step, shape = min(0.9 / bound, problem.term.max_step()), tuple(coef.shape)

    def update(flat, *values):  # leading axes would be batch axes
        beta = flat.reshape(shape)
        gradient, _ = problem.gradients(problem.design.matmul(beta))
        return model.penalty.term(shape, *values).prox(beta - step * gradient, step).flatten()

    z = fixed_point(update, coef.detach().flatten(), *leaves, solver=NewtonKrylov(atol=1e-13, rtol=1e-13))
    z = z.reshape(shape)
    torch.testing.assert_close(z, coef, rtol=1e-9, atol=1e-10)
    generic = torch.autograd.grad((direction * z).sum(), leaves)
    for a, b in zip(ours, generic):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", list(CASES))
def test_certificate_of_every_model(name):
    model, target, theta = _model(name)
    fit = model.fit(X, target, *theta)
    found = model.regularity(X, target, *theta, coef=fit.coef, intercept=fit.intercept)
    assert found.regular and found.smallest > 0 and found.weak.numel() == 0 and found.margin > 1e-8
    assert found.support.tolist() == torch.nonzero(fit.coef.flatten()).flatten().tolist()


@pytest.mark.parametrize("name", ["elastic net", "group lasso", "logistic", "multinomial elastic net", "multitask"])
@pytest.mark.parametrize("sparse", [False, True])
def test_second_derivatives(name, sparse):
    model, target, theta = _model(name)
    design = sp.csc_array(X) if sparse else torch.tensor(X)

    def function(*values):
        return _loss(*model(design, target, *values))

    leaves = [t.requires_grad_() for t in theta]
    assert torch.autograd.gradgradcheck(function, leaves, eps=1e-5, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", list(CASES))
def test_proximal_gradient_agrees(name):
    if name in ("mcp", "scad"):
        pytest.skip("stationary points are not unique")
    model, target, theta = _model(name)
    other, _, _ = _model(name, solver=ProximalGradient(tol=TIGHT, max_iter=50_000))
    first, second = model.fit(X, target, *theta), other.fit(X, target, *theta)
    torch.testing.assert_close(first.coef, second.coef, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["lasso", "logistic", "multitask"])
def test_sparse_design_agrees(name):
    model, target, theta = _model(name)
    kept = np.where(np.abs(X) > 0.5, X, 0)
    outcomes = []
    for design in (torch.tensor(kept), sp.csr_array(kept), torch.tensor(kept).to_sparse(), kept):
        leaf = theta[0].clone().requires_grad_()
        coef, intercept = model(design, target, leaf)
        outcomes.append((coef, intercept, torch.autograd.grad(_loss(coef, intercept), leaf)[0]))
    for outcome in outcomes[1:]:
        for a, b in zip(outcomes[0], outcome):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_support_vector_machine_duals():
    rows = torch.tensor(X * LABELS[:, None]).mT.contiguous()
    for penalty, values in ((Box(), (0.05,)), (EpsilonBox(tuple(y)), (0.05, 0.3))):
        design = rows if isinstance(penalty, Box) else torch.tensor(X.T)
        model = ProximalModel(Quadratic(), penalty, False, WorkingSet(tol=TIGHT), average=False)
        target = torch.zeros(P, dtype=torch.float64)
        leaves = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]
        dual, _ = model(design, target, *leaves)
        assert float((dual.abs() == values[0]).sum()) > 0 and float((dual.abs() < values[0]).sum()) > 0
        grads = torch.autograd.grad(_loss(dual, torch.zeros(())), leaves)
        for i, grad in enumerate(grads):

            def function(value, i=i, leaves=leaves, model=model, design=design):
                moved = [*leaves[:i], value, *leaves[i + 1 :]]
                with torch.no_grad():
                    return _loss(*model(design, torch.zeros(P, dtype=torch.float64), *moved))

            expected = _central(function, leaves[i].detach(), 1e-5)
            torch.testing.assert_close(grad, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if not isinstance(case[1], Box | EpsilonBox)])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_nothing_selected_has_derivatives_too(name, fit_intercept):
    # alpha far above the threshold: the coefficients stay at zero, the intercept knows no features
    datafit, penalty, target, theta = CASES[name]
    model = ProximalModel(datafit, penalty, fit_intercept, WorkingSet(tol=TIGHT))
    large = [1e3 * torch.as_tensor(np.asarray(t)) if i == 0 else torch.as_tensor(t) for i, t in enumerate(theta)]
    if isinstance(penalty, SparseGroupLasso):
        large[1] = 1e3 * large[1]

    def outputs(features):
        coef, intercept = model(features, target, *large)
        return coef.sum() + intercept.square().sum()

    at = torch.tensor(X)
    slope, second = torch.func.grad(outputs)(at), torch.func.grad(lambda x: torch.func.grad(outputs)(x).sum())(at)
    assert slope.shape == at.shape and not slope.any() and not second.any()
    _, moved = torch.func.jvp(outputs, (at,), (torch.ones_like(at),))
    assert not moved
    each = torch.func.vmap(torch.func.grad(outputs))(torch.stack([at, 2 * at]))
    assert each.shape == (2, *at.shape) and not each.any()

"""Criteria have right gradients; searches find minima and keep their promises."""

import math
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from joblib import parallel_config

from conelayers.errors import InvalidArgument
from conelayers.lasso import L1, ElasticNet, Logistic, ProximalModel, Quadratic, WeightedL1, WorkingSet
from conelayers.model_selection import (
    GCV,
    LBFGS,
    SURE,
    Adam,
    CrossValidation,
    GradientDescent,
    GridSearch,
    HeldOut,
    LogSpace,
    MultiStart,
    Safeguarded,
    Shared,
    Shrunk,
    TorchCriterion,
    tune,
)

TIGHT = WorkingSet(tol=1e-14, max_iter=100)


def _data(seed=0, n=60, p=40):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    return X, X[:, :5] @ np.array([2.0, -1, 1, 1.5, -2]) + rng.standard_normal(n) + 1


def _criteria():
    X, y = _data()
    labels = np.where(y > 0, 1, -1)
    one = LogSpace.between({"alpha": (1e-3, 2.0)})
    two = LogSpace.between({"l1": (1e-3, 2.0), "l2": (1e-4, 2.0)})
    many = LogSpace.between({"alpha": (np.full(40, 1e-3), np.full(40, 2.0))})
    lasso = ProximalModel(Quadratic(), L1(), True, TIGHT)
    net = ProximalModel(Quadratic(), ElasticNet(), True, TIGHT)
    w = np.random.default_rng(1).uniform(0.5, 2, 60)
    features = CrossValidation(ProximalModel(Quadratic(), WeightedL1(), True, TIGHT), many, X, y, cv=3)
    return {
        "shared": Shared(features, np.arange(40) // 10),
        "shrunk": Shrunk(features, many.center(), 0.3),
        "held-out": HeldOut(lasso, one, X[:40], y[:40], X[40:], y[40:]),
        "weighted held-out": HeldOut(net, two, X[:40], y[:40], X[40:], y[40:], None, w[:40], w[40:]),
        "cross-validation": CrossValidation(net, two, X, y, cv=3, sample_weight=w),
        "sparse": CrossValidation(lasso, one, sp.csr_array(X), y, cv=3),
        "logistic": CrossValidation(
            ProximalModel(Logistic(), L1(), True, TIGHT), LogSpace.between({"alpha": (1e-2, 0.3)}), X, labels, cv=3
        ),
        "per feature": features,
        "sure": SURE(lasso, one, X, y, sigma=1.0, probes=2),
        "gcv": GCV(net, two, X, y, sigma=1.0),
    }


@pytest.mark.parametrize("name", list(_criteria()))
def test_gradients_by_central_differences(name):
    criterion = _criteria()[name]
    rng = np.random.default_rng(5)
    point = criterion.space.center() + 0.1 * rng.standard_normal(criterion.space.size)
    direction = rng.standard_normal(criterion.space.size)
    got = criterion.evaluate(point)
    h = 1e-5
    values = [criterion.evaluate(point + t * h * direction, gradient=False).value for t in (1, -1, 2, -2)]
    expected = (8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * h)
    np.testing.assert_allclose(got.gradient @ direction, expected, rtol=1e-7, atol=1e-9)
    warm = criterion.evaluate(point, state=got.state)
    np.testing.assert_allclose(warm.gradient, got.gradient, rtol=1e-8, atol=1e-11)


def test_sure_is_unbiased_for_the_risk():
    X, _ = _data(n=80, p=30)
    truth = X[:, :5] @ np.array([2.0, -1, 1, 1.5, -2])
    space = LogSpace.between({"alpha": (1e-3, 2.0)})
    model = ProximalModel(Quadratic(), L1(), False)
    rng = np.random.default_rng(0)
    estimates, risks = [], []
    for seed in range(60):
        y = truth + rng.standard_normal(80)
        sure = SURE(model, space, X, y, sigma=1.0, seed=seed)
        estimates.append(sure.evaluate(np.log([0.1]), gradient=False).value)
        coef = model.fit(X, y, 0.1).coef.numpy()
        risks.append(np.mean((X @ coef - truth) ** 2))
    gap = np.mean(estimates) - np.mean(risks)
    assert abs(gap) < 4 * np.std(np.array(estimates) - risks) / math.sqrt(60)


def test_risk_estimates_count_the_support():
    # the degrees of freedom of the Lasso are its support (Zou, Hastie & Tibshirani 2007), and probes average
    X, y = _data()
    space, model = LogSpace.between({"alpha": (1e-3, 2.0)}), ProximalModel(Quadratic(), L1(), False, TIGHT)
    fit = model.fit(X, y, 0.3)
    residual, share = np.mean((y - X @ fit.coef.numpy()) ** 2), float((fit.coef != 0).sum()) / 60
    noise = math.sqrt(2 * share / 60 / 80)  # standard deviation of an average of 80 quadratic forms
    settings = {"sigma": 1.5, "probes": 80, "epsilon": 1e-6}
    sure = SURE(model, space, X, y, **settings).evaluate(np.log([0.3]), gradient=False).value
    assert abs(sure - (residual - 1.5**2 + 2 * 1.5**2 * share)) < 2 * 1.5**2 * 4 * noise
    gcv = GCV(model, space, X, y, **settings).evaluate(np.log([0.3]), gradient=False).value
    assert abs(math.sqrt(residual / gcv) - (1 - share)) < 4 * noise


SEARCHES = [
    Safeguarded(rtol=1e-6),
    LBFGS(rtol=1e-9),
    GradientDescent(rtol=1e-8),
    Adam(max_evaluations=60, step=0.2, rtol=1e-9),
    MultiStart(LBFGS(rtol=1e-6, max_evaluations=15), starts=2),
]


@pytest.mark.parametrize("search", SEARCHES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ["cross-validation", "sparse"])
def test_searches_reach_the_grid(search, name):
    criterion = _criteria()[name]
    grid = GridSearch(size=40 if criterion.space.size == 1 else 9, max_evaluations=100).run(criterion)
    found = search.run(criterion, criterion.space.center() + 0.5)
    assert found.value <= 1.01 * grid.value
    assert found.history.best[-1] == found.value == found.history.values.min() or isinstance(search, Safeguarded)


def test_a_penalty_per_feature_on_unseen_data():
    # two thousand hyperparameters, chosen on one sample, judged on another
    rng, p = np.random.default_rng(0), 2000
    X = rng.standard_normal((2600, p))
    y = X[:, :20] @ rng.choice([-0.5, 0.5], 20) + rng.standard_normal(2600)
    space = LogSpace.between({"alpha": (np.full(p, 1e-3), np.full(p, 1.0))})
    model = ProximalModel(Quadratic(), WeightedL1(), solver=WorkingSet(tol=1e-6))
    held, unseen = (HeldOut(model, space, X[:300], y[:300], X[i:j], y[i:j]) for i, j in ((300, 600), (600, 2600)))
    single = Safeguarded().run(Shared(held, np.zeros(p, dtype=int)))
    center = np.full(p, single.point[0])
    many = LBFGS(max_evaluations=12).run(Shrunk(held, center, 0.01 * single.value), center)
    losses = [unseen.evaluate(point, gradient=False).value for point in (center, many.point)]
    assert many.value < 0.75 * single.value  # on the sample that chose
    assert losses[1] - 1 < 0.75 * (losses[0] - 1)  # beyond the variance of the noise, which is one


def test_safeguard_survives_useless_gradients():
    space = LogSpace.between({"a": (1e-4, 1.0)})

    def wiggly(a):
        x = a.log()
        return (x + 3).abs().sqrt() + 0.3 * torch.sin(40 * x)

    grid = GridSearch(size=8).run(TorchCriterion(wiggly, space))
    assert Safeguarded(size=8, patience=None).run(TorchCriterion(wiggly, space)).value <= grid.value

    def wrong_slopes(a):
        x = a.log()
        return (x + 3).square().detach() - x + x.detach()

    grid = GridSearch(size=8).run(TorchCriterion(wrong_slopes, space))
    assert Safeguarded(size=8, patience=None).run(TorchCriterion(wrong_slopes, space)).value <= grid.value


def test_quadratics_are_minimised_within_bounds():
    space = LogSpace.between({"a": (1e-3, 1.0), "b": (np.full(3, 1e-3), np.full(3, 1.0))})
    target = torch.tensor([-2.0, -9.0, -1.0, 3.0])  # two outside the bounds

    def function(a, b):
        return ((torch.cat([a.log().reshape(1), b.log()]) - target) ** 2).sum() + 1

    expected = np.clip(target.numpy(), space.lower, space.upper)
    for search in (LBFGS(rtol=1e-12), Adam(max_evaluations=400, step=0.3, patience=100), GradientDescent(rtol=1e-9)):
        found = search.run(TorchCriterion(function, space))
        np.testing.assert_allclose(found.point, expected, atol=1e-2)


def test_budget_callback_and_errors():
    space = LogSpace.between({"a": (1e-3, 1.0)})
    seen = []
    result = Adam(max_evaluations=7).run(TorchCriterion(lambda a: a, space), callback=seen.append)
    assert len(seen) == len(result.history) <= 7
    result.history.plot()
    with pytest.raises(InvalidArgument, match="start"):
        Adam().run(TorchCriterion(lambda a: a, space), np.zeros(2))
    with pytest.raises(InvalidArgument, match="bounds of a"):
        LogSpace.between({"a": (0.0, 1.0)})


def _waves(a, b):
    # many minima; the best is at log a = log b = -1
    x, y = a.log() + 1, b.log() + 1
    return 2 + 0.1 * (x**2 + y**2) - torch.cos(5 * x) - torch.cos(5 * y)


def test_restarts_are_deterministic_and_parallel():
    space = LogSpace.between({"a": (1e-3, 10.0), "b": (1e-3, 10.0)})
    criterion, start = TorchCriterion(_waves, space), np.array([-5.0, 1.0])
    alone = LBFGS().run(criterion, start)
    found = MultiStart(starts=12).run(criterion, start)
    assert found.value < alone.value - 0.1 and len(found.history) > len(alone.history)
    assert found.value == found.history.values.min()
    with parallel_config(backend="threading"):
        both = MultiStart(starts=12, n_jobs=2).run(criterion, start)
    assert both.value == found.value and np.array_equal(both.history.points, found.history.points)
    again = Safeguarded(size=2, local=MultiStart(starts=3)).run(criterion)  # as a part of another search
    assert again.value <= GridSearch(size=2).run(criterion).value
    with pytest.raises(InvalidArgument, match="starts"):
        MultiStart(starts=0)


def test_restarts_have_the_settings_of_their_search_or_their_own():
    criterion = TorchCriterion(_waves, LogSpace.between({"a": (1e-3, 10.0), "b": (1e-3, 10.0)}))
    assert len(MultiStart(LBFGS(max_evaluations=3), starts=2).run(criterion).history) == 6
    assert len(MultiStart(Adam(), starts=2, max_evaluations=4).run(criterion).history) == 8


def test_progress_is_shown(capsys, monkeypatch):
    space = LogSpace.between({"a": (1e-3, 1.0)})
    criterion = TorchCriterion(lambda a: (a.log() + 3) ** 2 + 1, space)
    evaluations = len(LBFGS().run(criterion).history)
    assert capsys.readouterr().err == ""
    LBFGS(verbose=2).run(criterion)
    assert len(capsys.readouterr().err.splitlines()) == evaluations
    pytest.importorskip("tqdm")
    LBFGS(verbose=True).run(criterion)
    assert f"{evaluations}/{evaluations}" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # not installed: lines
    LBFGS(verbose=True).run(criterion)
    assert len(capsys.readouterr().err.splitlines()) == evaluations


def test_shared_hyperparameters_check_their_index():
    many = _criteria()["per feature"]
    with pytest.raises(InvalidArgument, match="40 integers"):
        Shared(many, np.zeros(3, dtype=int))
    with pytest.raises(InvalidArgument, match="without gaps"):
        Shared(many, np.full(40, 2))


def test_pandas_objects():
    pd = pytest.importorskip("pandas")
    X, y = _data()
    space = LogSpace.between({"alpha": (1e-3, 2.0)})
    model, shuffled = ProximalModel(Quadratic(), L1(), True, TIGHT), np.arange(60)[::-1] + 7
    frame, series = pd.DataFrame(X, index=shuffled), pd.Series(y, index=shuffled)
    for kind in (lambda X, y: CrossValidation(model, space, X, y, cv=3), lambda X, y: SURE(model, space, X, y, 1.0)):
        assert kind(frame, series).evaluate(np.zeros(1)).value == kind(X, y).evaluate(np.zeros(1)).value


def test_tune_a_cvxpy_model():
    import cvxpy as cp

    from conelayers import CvxpyLayer

    X, y = _data(2, 40, 10)
    X_held, y_held = (torch.tensor(a[25:]) for a in (X, y))
    beta, intercept = cp.Variable(10), cp.Variable()
    l1, l2 = (cp.Parameter(nonneg=True, name=name) for name in ("l1", "l2"))
    residual = X[:25] @ beta + intercept - y[:25]
    objective = cp.sum_squares(residual) / 50 + l1 * cp.norm1(beta) + l2 / 2 * cp.sum_squares(beta)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective)), [l1, l2], [beta, intercept])

    def loss(b, c):
        return (X_held @ b + c - y_held).square().mean()

    bounds = {"l1": (1e-3, 1.0), "l2": (1e-4, 1.0)}
    found = tune(layer, loss, bounds, search=LBFGS(max_evaluations=25))
    model = ProximalModel(Quadratic(), ElasticNet(), True, TIGHT)
    ours = HeldOut(model, LogSpace.between(bounds), X[:25], y[:25], X[25:], y[25:])
    direct = LBFGS(max_evaluations=25).run(ours)
    np.testing.assert_allclose(found.value, direct.value, rtol=1e-3)
    at = ours.evaluate(found.point)
    np.testing.assert_allclose(at.value, found.value, rtol=1e-6)
    with pytest.raises(InvalidArgument, match="scalar"):
        tune(layer, lambda b, c: b, bounds)

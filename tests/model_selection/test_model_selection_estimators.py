"""The estimators follow scikit-learn's conventions and find what its grids find."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.datasets import load_diabetes, make_regression
from sklearn.linear_model import LassoCV
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from conelayers.model_selection.estimators import (
    ElasticNetImplicitCV,
    GroupLassoImplicitCV,
    LassoImplicitCV,
    LogisticImplicitCV,
    MultiTaskLassoImplicitCV,
    WeightedLassoImplicitCV,
)
from conelayers.model_selection.searches import LBFGS, GridSearch, Safeguarded

QUICK = Safeguarded(size=2, max_evaluations=4)  # the conventions do not depend on the search
ESTIMATORS = [
    LassoImplicitCV(),
    ElasticNetImplicitCV(search=QUICK, cv=3),
    GroupLassoImplicitCV(search=QUICK, cv=3),
    WeightedLassoImplicitCV(search=LBFGS(max_evaluations=2), cv=3, strengths=(0.1,)),
    MultiTaskLassoImplicitCV(search=QUICK, cv=3),
    LogisticImplicitCV(search=QUICK, cv=3),
]


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)


def _sparse_problem(seed=0):
    X, y, _ = make_regression(120, 60, n_informative=6, noise=20.0, coef=True, random_state=seed)
    return X, y


def test_lasso_matches_lasso_cv_grid():
    X, y = load_diabetes(return_X_y=True)
    for cv in (4, KFold(3, shuffle=True, random_state=0)):
        ours, reference = LassoImplicitCV(cv=cv).fit(X, y), LassoCV(cv=cv, tol=1e-8, max_iter=100_000).fit(X, y)
        best = reference.mse_path_.mean(1).min()
        assert ours.best_criterion_ <= 1.001 * best
        again = ours.set_params(search=GridSearch(size=30)).fit(X, y)
        assert again.n_iter_ == 30


def test_criterion_equals_scikit_learn():
    from sklearn.linear_model import Lasso
    from sklearn.model_selection import cross_val_score

    X, y = _sparse_problem()
    model = LassoImplicitCV(tol=1e-11).fit(X, y)
    scores = cross_val_score(
        Lasso(alpha=model.alpha_, tol=1e-12, max_iter=10**5), X, y, scoring="neg_mean_squared_error", cv=KFold(5)
    )
    np.testing.assert_allclose(model.best_criterion_, -scores.mean(), rtol=1e-6)
    reference = Lasso(alpha=model.alpha_, tol=1e-12, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(model.coef_, reference.coef_, atol=1e-6)


def test_pipelines_clones_sparse_and_groups():
    X, y = _sparse_problem()
    groups = np.arange(120) % 4
    folds = list(GroupKFold(4).split(X, y, groups))
    model = make_pipeline(StandardScaler(), LassoImplicitCV(cv=folds)).fit(X, y)
    assert model.score(X, y) > 0.8
    assert clone(model).get_params()["lassoimplicitcv__eps"] == 1e-3
    dense = LassoImplicitCV(cv=folds).fit(X, y)
    sparse = LassoImplicitCV(cv=folds).fit(sp.csr_array(X), y)
    np.testing.assert_allclose(dense.coef_, sparse.coef_, atol=1e-5 * np.abs(dense.coef_).max())


def test_elastic_net_is_at_least_as_good_as_lasso():
    X, y = _sparse_problem(1)
    lasso, net = LassoImplicitCV().fit(X, y), ElasticNetImplicitCV().fit(X, y)
    assert net.best_criterion_ <= 1.01 * lasso.best_criterion_
    assert 0 < net.l1_ratio_ <= 1


def _blocks(seed, differ):
    """Twenty groups of five features; two of them matter if groups differ."""
    rng = np.random.default_rng(seed)
    X, beta = rng.standard_normal((620, 100)), np.zeros(100)
    if differ:
        beta[:10] = 0.7 * rng.standard_normal(10)
    else:
        beta = 0.1 * rng.standard_normal(100)
    return X, X @ beta + rng.standard_normal(620), np.arange(100) // 5


@pytest.mark.parametrize("differ", [True, False])
def test_group_penalties_on_unseen_data(differ):
    ratios = []
    for seed in range(3 if differ else 2):
        X, y, groups = _blocks(seed, differ)
        models = (LassoImplicitCV(), WeightedLassoImplicitCV(groups=groups))
        errors = [np.mean((m.fit(X[:120], y[:120]).predict(X[120:]) - y[120:]) ** 2) for m in models]
        ratios.append(errors[1] / errors[0])
        many = models[1]
        assert many.alpha_.shape == (100,) and many.judged_.shape == (5, 5)
        assert np.ptp(many.alpha_.reshape(20, 5), axis=1).max() == 0
        if np.isinf(many.strength_):
            assert np.ptp(many.alpha_) == 0 and ratios[-1] < 1.001
    if differ:
        assert max(ratios) <= 1.001 and np.mean(ratios) < 0.97
    else:
        assert np.mean(ratios) < 1.01


def test_strength_within_one_standard_error():
    from conelayers.model_selection.estimators.weighted import _strongest

    losses = np.array([[1.0, 0.5, 0.45, 0.9], [1.1, 0.6, 0.62, 0.9], [1.0, 0.5, 0.47, 0.9]])
    assert _strongest(losses) == 1  # 2 is best, 1 within an error of it
    assert _strongest(np.array([[1.0, 0.9], [1.0, 1.2], [1.0, 0.7]])) == 0
    assert _strongest(np.array([[1.0, 0.9], [1.0, 0.9], [1.0, 0.89]])) == 1
    assert _strongest(np.array([[1.0, 0.1]])) == 0  # one fold shows no error


def test_errors_of_weighted_lasso():
    X, y = _sparse_problem()
    with pytest.raises(ValueError, match="strengths"):
        WeightedLassoImplicitCV(strengths=(0.1, 0.3)).fit(X, y)
    with pytest.raises(ValueError, match="groups"):
        WeightedLassoImplicitCV(groups=[0, 1]).fit(X, y)


def test_multinomial_per_class():
    from sklearn.datasets import load_iris

    X, y = load_iris(return_X_y=True)
    one = LogisticImplicitCV(cv=3).fit(X, y)
    each = LogisticImplicitCV(cv=3, per_class=True).fit(X, y)
    assert each.alpha_.shape == (3,) and one.coef_.shape == (3, 4)
    assert each.best_criterion_ <= 1.02 * one.best_criterion_
    assert one.score(X, y) > 0.9
    np.testing.assert_allclose(one.predict_proba(X).sum(1), 1)


@pytest.mark.parametrize("backend", ["threading"])
def test_folds_in_parallel(backend):
    from joblib import parallel_config

    X, y = _sparse_problem(3)
    alone = LassoImplicitCV().fit(X, y)
    with parallel_config(backend=backend, n_jobs=2):
        together = LassoImplicitCV(n_jobs=2).fit(X, y)
    assert alone.alpha_ == together.alpha_


@pytest.mark.parametrize("mean", [0.0, 1e5])
@pytest.mark.parametrize("size", [1e-14, 1e-7, 1e7])
@pytest.mark.parametrize("estimator", [LassoImplicitCV(cv=3), ElasticNetImplicitCV(cv=3), GroupLassoImplicitCV(cv=3)])
def test_units_and_means_do_not_matter(estimator, size, mean):
    X = np.random.default_rng(0).normal(size=(60, 10))
    y = X @ np.r_[1.0, 2.0, -1.0, np.zeros(7)] + 0.5 * np.random.default_rng(1).normal(size=60)
    one = clone(estimator).fit(X, y)
    other = clone(estimator).fit(X, size * (y + mean))
    assert 0 < np.abs(one.coef_).max()
    np.testing.assert_allclose(other.predict(X) / size - mean, one.predict(X), rtol=0, atol=1e-3)
    assert other.best_criterion_ / size**2 == pytest.approx(one.best_criterion_, rel=1e-3)


@pytest.mark.parametrize("constant", [0.0, 1e-9, 1e6])
def test_constant_targets_have_no_coefficients(constant):
    X, _ = _sparse_problem()
    model = LassoImplicitCV(cv=3).fit(X, np.full(len(X), constant))
    assert model.alpha_ > 0 and not model.coef_.any()
    np.testing.assert_allclose(model.predict(X), constant, rtol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_log_probabilities_of_what_is_all_but_impossible(classes):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    model = LogisticImplicitCV(cv=3, search=QUICK).fit(X, np.digitize(X[:, 0], [-0.5, 0.5][: classes - 1]))
    far = 1e4 * X[:5]
    logarithms = model.predict_log_proba(far)
    assert np.isfinite(logarithms).all() and logarithms.min() < -1000
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X), rtol=1e-9)

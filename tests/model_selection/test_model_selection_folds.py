"""Folds that cannot be judged are told of, splitters get their metadata, and what is left unsolved is said once."""

import time
import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.datasets import load_diabetes, load_iris
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold

from conelayers.errors import InaccurateWarning, InvalidArgument
from conelayers.lasso import L1, Huber, Logistic, Multinomial, ProximalGradient, ProximalModel, Quadratic, WorkingSet
from conelayers.model_selection import (
    SURE,
    CrossValidation,
    GridSearch,
    HeldOut,
    LassoImplicitCV,
    LogisticImplicitCV,
    LogSpace,
    MultiStart,
    WeightedLassoImplicitCV,
)

SPACE = LogSpace.between({"alpha": (1e-3, 1.0)})


def test_folds_without_the_classes_that_they_test():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(InvalidArgument, match="StratifiedKFold"):
        LogisticImplicitCV(cv=KFold(3)).fit(X, y)
    half = np.arange(100)
    with pytest.raises(InvalidArgument, match="2 of 2 folds"):
        LogisticImplicitCV(cv=KFold(2)).fit(X[half], y[half])


def test_samples_of_a_class_that_is_not_trained_on_do_not_count():
    X, y = load_iris(return_X_y=True)
    train, test = np.arange(0, 100), np.r_[0:100:5, 100:110]
    model = ProximalModel(Multinomial(3), L1(), solver=WorkingSet(tol=1e-10))
    with pytest.warns(UserWarning, match="10 of 30 samples"):
        found = HeldOut(model, SPACE, X[train], y[train], X[test], y[test])
    known = HeldOut(model, SPACE, X[train], y[train], X[test[:20]], y[test[:20]])
    point = np.log([0.05])
    assert found.evaluate(point, gradient=False).value == known.evaluate(point, gradient=False).value < 1
    folds = [(train, test), (np.arange(1, 150, 2), np.arange(0, 150, 2))]
    with pytest.warns(UserWarning, match="1 of 2 folds") as caught:
        CrossValidation(model, SPACE, X, y, cv=folds)
    assert len(caught) == 1
    weight = np.where(y[train] == 1, 0.0, 1.0)  # a class whose samples have no weight is not trained on
    with pytest.warns(UserWarning, match="do not count"):
        HeldOut(model, SPACE, X[train], y[train], X[test[:20]], y[test[:20]], sample_weight=weight)
    with pytest.raises(InvalidArgument, match="y_held"):
        HeldOut(ProximalModel(Logistic(), L1()), SPACE, X[:50], np.ones(50), X[50:60], -np.ones(10))


def test_unsolved_problems_are_told_of_once():
    X, y = load_diabetes(return_X_y=True)
    X = X * np.exp(np.arange(10))
    hasty = WorkingSet(tol=1e-8, max_iter=1)
    model = ProximalModel(Quadratic(), L1(), solver=hasty)
    space = LogSpace.between({"alpha": (0.5, 1.0)})
    calls = [
        lambda: model(X, y, torch.tensor([0.5, 0.6])),
        lambda: model.fit(X, y, 0.5),
        lambda: GridSearch(size=5).run(CrossValidation(model, space, X, y)),
        lambda: MultiStart(starts=2, max_evaluations=3).run(SURE(model, space, X, y, 1.0)),
        lambda: HeldOut(model, space, X[:300], y[:300], X[300:], y[300:]).value(torch.log(torch.tensor([0.5]))),
        lambda: LassoImplicitCV(max_iter=1).fit(X, y),
        lambda: WeightedLassoImplicitCV(max_iter=1, cv=3, strengths=(0.1,)).fit(X, y),
    ]
    for call in calls:
        with pytest.warns(InaccurateWarning, match="max_iter") as caught:
            call()
        assert len(caught) == 1 and caught[0].filename == __file__


@pytest.mark.parametrize("solver", [WorkingSet(tol=1e-16), ProximalGradient(tol=1e-16)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e8])
def test_what_rounding_leaves_is_solved(solver, scale):
    X, y = load_diabetes(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InaccurateWarning)
        for datafit, target in ((Quadratic(), y), (Huber(), y - y.mean()), (Logistic(), np.sign(y - 140.5))):
            largest = np.abs(X.T @ (target - target.mean())).max() / len(y)
            ProximalModel(datafit, L1(), solver=solver).fit(scale * X, target, 0.1 * scale * largest)


@pytest.mark.parametrize("solver", [WorkingSet(), ProximalGradient(max_iter=500)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_without_any_variation(value, solver):
    y, began = np.random.default_rng(0).normal(size=20), time.perf_counter()
    for datafit, target in ((Quadratic(), y), (Logistic(), np.sign(y)), (Multinomial(3), np.arange(20) % 3)):
        fit = ProximalModel(datafit, L1(), solver=solver).fit(np.full((20, 3), value), target, 0.1)
        assert fit.converged and fit.violation < 1e-8 and not fit.coef.any()
        torch.testing.assert_close(fit.intercept, fit.problem.null_model()[1])
    assert time.perf_counter() - began < 5


def test_splitters_get_their_groups():
    X, y = load_diabetes(return_X_y=True)
    groups = np.arange(len(y)) % 7
    model = LassoImplicitCV(cv=GroupKFold(4))
    expected = LassoImplicitCV(cv=list(GroupKFold(4).split(X, y, groups))).fit(X, y).alpha_
    assert model.fit(X, y, groups=groups).alpha_ == expected
    with pytest.raises(InvalidArgument, match="grups"):
        model.fit(X, y, grups=groups)
    with pytest.raises(InvalidArgument, match="groups"):
        model.fit(X, y, groups=groups[:-1])
    with sklearn.config_context(enable_metadata_routing=True):
        assert model.fit(X, y, groups=groups).alpha_ == expected
        outer = GridSearchCV(model, {"eps": [1e-2, 1e-3]}, cv=GroupKFold(3)).fit(X, y, groups=groups)
        assert outer.best_estimator_.n_features_in_ == 10
        with pytest.raises(TypeError, match="groups"):  # nobody asked for them
            LassoImplicitCV(cv=KFold(3)).fit(X, y, groups=groups)
    codes = (y > np.median(y)).astype(int)
    assert LogisticImplicitCV(cv=GroupKFold(3)).fit(X, codes, groups=groups).score(X, codes) > 0.6

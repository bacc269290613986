"""The search is never worse than a coarse grid, whatever the units of the features and the shape of the criterion."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.linear_model import LassoCV

from conelayers.model_selection import GridSearch, LassoImplicitCV, LogSpace, Safeguarded, TorchCriterion


def _units(seed):
    """Features whose units differ by orders of magnitude."""
    rng = np.random.default_rng(seed)
    n, p = int(rng.integers(60, 200)), int(rng.integers(8, 60))
    X = rng.standard_normal((n, p))
    beta = np.where(rng.random(p) < 0.3, rng.standard_normal(p), 0)
    y = X @ beta + rng.standard_normal(n) * rng.choice([0.3, 1.0])
    return X * np.exp(2 * rng.standard_normal(p)), y


@pytest.mark.parametrize("seed", [9, 23, 30, 34])
def test_features_of_different_units(seed):
    X, y = _units(seed)
    best = LassoCV(cv=5, max_iter=20_000).fit(X, y).mse_path_.mean(1).min()
    assert LassoImplicitCV(cv=5).fit(X, y).best_criterion_ <= 1.01 * best


@pytest.mark.parametrize("target", ["hue", "class"])
def test_wine_as_it_comes(target):
    data = load_wine()
    if target == "class":
        X, y = data.data, data.target.astype(float)
    else:
        column = data.feature_names.index(target)
        X, y = np.delete(data.data, column, 1), data.data[:, column]
    found = LassoImplicitCV(cv=5).fit(X, y)
    grid = LassoImplicitCV(cv=5, search=GridSearch(size=20)).fit(X, y)
    assert found.best_criterion_ <= 1.001 * grid.best_criterion_ and found.coef_.any()


def test_every_dip_that_promises_more_is_refined():
    space = LogSpace.between({"a": (1e-3, 1.0)})

    def two_dips(a):  # the grid sees the wide one lower; the narrow one is
        x = a.log()
        return 2 - 0.3 * (-((x + 1.0) ** 2)).exp() - (-6 * (x + 5.43) ** 2).exp()

    search = Safeguarded(size=8, rtol=1e-8)
    grid = GridSearch(size=8).run(TorchCriterion(two_dips, space))
    assert abs(grid.point[0] + 1) < 0.5
    assert search.run(TorchCriterion(two_dips, space)).value == pytest.approx(1.0, abs=1e-3)


def test_coarse_evaluations_follow_the_penalty():
    X, y = _units(3)
    history = LassoImplicitCV(cv=5).fit(X, y).history_
    coarse = [t for t in history.trials if not np.isnan(t.tol)]
    shares = np.exp([t.point[0] - history.space.upper[0] for t in coarse])
    assert len(coarse) == 20 and all(t.tol <= 0.0101 * share for t, share in zip(coarse, shares))

"""Estimators on data in other units, from data frames, and with parameters that are none."""

import warnings

import numpy as np
import pytest

from conelayers.errors import InvalidArgument
from conelayers.model_selection import (
    ElasticNetImplicitCV,
    GroupLassoImplicitCV,
    LassoImplicitCV,
    MultiTaskLassoImplicitCV,
    WeightedLassoImplicitCV,
)

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((40, 6))
Y = X[:, 0] - X[:, 1] + 0.1 * RANDOM.standard_normal(40)


@pytest.mark.parametrize(("features", "targets"), [(1e-6, 1e6), (1e6, 1e-6), (1e4, 1e4)])
def test_both_penalties_of_the_elastic_net_follow_the_units(features, targets):
    """With X s and y t the same model has l1 s t and l2 s^2, coefficients t / s."""
    own = ElasticNetImplicitCV(tol=1e-10).fit(X, Y)
    scaled = ElasticNetImplicitCV(tol=1e-10).fit(features * X, targets * Y)
    first, second = own.search_result_.hyperparameters, scaled.search_result_.hyperparameters
    assert scaled.score(features * X, targets * Y) == pytest.approx(own.score(X, Y), abs=1e-6)
    assert second["l1"] / (features * targets) == pytest.approx(first["l1"], rel=1e-2)
    np.testing.assert_allclose(scaled.coef_ * features / targets, own.coef_, atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [LassoImplicitCV, MultiTaskLassoImplicitCV])
def test_data_frames_are_taken_without_a_warning(make):
    pandas = pytest.importorskip("pandas")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame, series = pandas.DataFrame(X, columns=list("abcdef")), pandas.Series(Y)
        model = make(cv=3).fit(frame, series)
    np.testing.assert_allclose(model.coef_, make(cv=3).fit(X, Y).coef_)
    assert list(model.feature_names_in_) == list("abcdef")


def test_targets_that_may_not_be_written_are_taken_without_a_warning():
    frozen = Y.copy()
    frozen.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LassoImplicitCV(cv=3).fit(X, frozen)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("eps", LassoImplicitCV(eps="a")),
        ("search", LassoImplicitCV(search="lbfgs")),
        ("search", WeightedLassoImplicitCV(search="lbfgs")),
        ("groups", GroupLassoImplicitCV(groups=["a"] * 6)),
        ("groups", GroupLassoImplicitCV(groups=[0, 0, 0.5, 1, 1, 1])),
        ("groups", WeightedLassoImplicitCV(groups=[0, 0, 1])),
        ("groups", WeightedLassoImplicitCV(groups=[0, 0, 2, 2, 2, 2])),
    ],
)
def test_wrong_parameters_are_named(name, model):
    with pytest.raises(InvalidArgument, match=f"^{name} must"):
        model.fit(X, Y)

"""Criteria: risk estimates of several outputs, data that do not fit, hyperparameters and bounds that are none."""

import numpy as np
import pytest
import torch

from conelayers.errors import InvalidArgument
from conelayers.lasso import L1, MultitaskL1, MultitaskQuadratic, ProximalModel, Quadratic, WorkingSet
from conelayers.model_selection import (
    GCV,
    LBFGS,
    SURE,
    CrossValidation,
    GridSearch,
    HeldOut,
    LogSpace,
    Shared,
    Shrunk,
    tune,
)

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((30, 6))
Y = X[:, 0] - X[:, 1] + 0.1 * RANDOM.standard_normal(30)
MODEL = ProximalModel(Quadratic(), L1(), solver=WorkingSet(tol=1e-13))
TASKS = ProximalModel(MultitaskQuadratic(), MultitaskL1(), solver=WorkingSet(tol=1e-13))
SPACE = LogSpace.between({"alpha": (1e-3, 1.0)})
POINT = np.log([0.07])


@pytest.mark.parametrize("kind", [SURE, GCV])
def test_risk_estimates_of_one_output_in_two_forms(kind):
    one = kind(MODEL, SPACE, X, Y, 0.3, probes=3).evaluate(POINT)
    other = kind(TASKS, SPACE, X, Y[:, None], 0.3, probes=3).evaluate(POINT)
    np.testing.assert_allclose(other.value, one.value, rtol=1e-10)
    np.testing.assert_allclose(other.gradient, one.gradient, rtol=1e-8)


@pytest.mark.parametrize("kind", [SURE, GCV])
def test_risk_estimates_of_several_outputs_have_their_slopes(kind):
    criterion = kind(TASKS, SPACE, X, np.stack([Y, Y + X[:, 2], -Y], 1), 0.3)
    step = 1e-5
    values = [criterion.evaluate(POINT + s * step, gradient=False).value for s in (1, -1)]
    slope = criterion.evaluate(POINT).gradient[0]
    np.testing.assert_allclose(slope, (values[0] - values[1]) / (2 * step), rtol=1e-7)


def test_risk_of_outputs_without_penalty_counts_all_entries():
    """Least squares on p features and an intercept has (p + 1) degrees of freedom per output."""
    y = np.stack([Y, X[:, 2] + 0.1 * RANDOM.standard_normal(30)], 1)
    space = LogSpace.between({"alpha": (1e-12, 1.0)})
    criterion = SURE(TASKS, space, X, y, 0.1, probes=400)
    full = np.column_stack([X, np.ones(30)])
    residual = y - full @ np.linalg.lstsq(full, y, rcond=None)[0]
    expected = (residual**2).mean() - 0.01 + 2 * 0.01 * 7 / 30
    assert abs(criterion.evaluate(np.log([1e-12]), gradient=False).value - expected) < 2 * 0.01 * 0.02


def test_generalised_cross_validation_needs_no_noise_level():
    spread = float(Y.std())
    left_out = GCV(MODEL, SPACE, X, Y).evaluate(POINT)
    assert left_out.value == pytest.approx(GCV(MODEL, SPACE, X, Y, spread).evaluate(POINT).value, rel=1e-9)
    assert np.isfinite(GCV(MODEL, SPACE, X, 0 * Y).evaluate(POINT).value)


def test_folds_may_be_masks():
    train = np.arange(30) < 20
    masks = CrossValidation(MODEL, SPACE, X, Y, cv=[(train, ~train)]).evaluate(POINT)
    numbers = CrossValidation(MODEL, SPACE, X, Y, cv=[(np.arange(20), list(range(20, 30)))]).evaluate(POINT)
    assert masks.value == numbers.value


def test_layers_may_return_one_tensor():
    result = tune(lambda a: 2 * a, lambda b: (b - 1).square(), {"a": (0.1, 10.0)})
    assert result.hyperparameters["a"] == pytest.approx(0.5, rel=1e-3)


def test_losses_without_derivatives_are_no_flat_ones():
    for loss in (lambda b: b.detach().square(), lambda b: torch.tensor(b.item())):
        with pytest.raises(InvalidArgument, match="without derivatives"):
            tune(lambda a: 2 * a, loss, {"a": (0.1, 10.0)}, search=LBFGS())
        assert tune(lambda a: a, loss, {"a": (0.1, 10.0)}, search=GridSearch(size=5)).value > 0


def held(**changes):
    return HeldOut(**{"model": MODEL, "space": SPACE, "X": X, "y": Y, "X_held": X, "y_held": Y, **changes})


def crossed(**changes):
    return CrossValidation(MODEL, SPACE, X, **{"y": Y, "cv": 3, **changes})


def tuned(layer=lambda a: (a,), loss=lambda a: a, bounds=None, **options):
    return tune(layer, loss, {"a": (0.1, 1.0)} if bounds is None else bounds, **options)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("X_held must have", lambda: held(X_held=X[:, :3])),
        ("X_held must have", lambda: held(X_held=X[:0], y_held=Y[:0])),
        ("y_held must have", lambda: held(y_held=Y[:3])),
        ("weight_held must", lambda: held(weight_held=np.ones(3))),
        ("weight_held must", lambda: held(weight_held=np.full(30, np.nan))),
        ("HeldOut: model must", lambda: held(model="lasso")),
        ("HeldOut: space must", lambda: held(space={"alpha": (0.1, 1.0)})),
        ("point must have 1 entries", lambda: held().evaluate(np.zeros(3))),
        ("y must have 30 samples", lambda: crossed(y=Y[:4])),
        ("sample_weight must", lambda: crossed(sample_weight=np.ones(4))),
        ("sample_weight must", lambda: crossed(sample_weight=np.zeros(30))),
        ("cv must", lambda: crossed(cv=[(np.arange(20), np.arange(20, 40))])),
        ("X_held must have", lambda: crossed(cv=[(np.arange(20), [])])),
        ("SURE: sigma must", lambda: SURE(MODEL, SPACE, X, Y, 0.0)),
        ("SURE: probes must", lambda: SURE(MODEL, SPACE, X, Y, 0.1, probes=0)),
        ("GCV: epsilon must", lambda: GCV(MODEL, SPACE, X, Y, epsilon=0.0)),
        ("center must hold 1", lambda: Shrunk(held(), np.zeros(3), 1.0)),
        ("Shrunk: strength must", lambda: Shrunk(held(), np.zeros(1), -1.0)),
        ("Shared: criterion must", lambda: Shared("x", [0])),
        ("bounds must", lambda: LogSpace.between({})),
        ("bounds of a must be a pair", lambda: LogSpace.between({"a": 1.0})),
        ("bounds of a must hold real", lambda: LogSpace.between({"a": ("x", 1.0)})),
        ("bounds of a must have shapes", lambda: LogSpace.between({"a": (np.ones(2), np.ones(3))})),
        ("alpha must be positive", lambda: SPACE.pack([0.0])),
        ("alpha must have shape", lambda: SPACE.pack([[1.0, 2.0]])),
        ("values must be one for each", lambda: SPACE.pack([])),
        ("layer must", lambda: tuned(layer=3)),
        ("loss must be", lambda: tuned(loss=None)),
        ("loss must return a scalar", lambda: tuned(loss=lambda a: 1.0)),
        ("loss must return a scalar", lambda: tuned(loss=lambda a: a.expand(2))),
        ("search must", lambda: tuned(search="lbfgs")),
        ("start must name a", lambda: tuned(start={"b": 1.0})),
        ("a must be positive", lambda: tuned(start={"a": -1.0})),
    ],
)
def test_what_does_not_fit_is_named(name, call):
    with pytest.raises(InvalidArgument, match=f"^{name}"):
        call()

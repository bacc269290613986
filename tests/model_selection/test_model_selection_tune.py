"""`tune` by the names of a layer's parameters, over real hyperparameters."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.errors import InvalidArgument
from conelayers.model_selection import tune
from conelayers.model_selection.space import RealSpace

x = cp.Variable(2)
up, shift = cp.Parameter(nonneg=True, name="up"), cp.Parameter(name="shift")


@pytest.fixture(scope="module")
def layer():
    """x = (shift, shift + up)."""
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.square(x[0] - shift) + cp.square(x[1] - shift - up))), [up, shift], [x])


def loss(value):
    return ((value - torch.tensor([-0.7, 1.3], dtype=value.dtype)) ** 2).sum() + 1


@pytest.mark.parametrize("order", [("up", "shift"), ("shift", "up")])
def test_names_and_not_positions_count(layer, order):
    bounds = {"up": (1e-2, 10.0), "shift": (-3.0, 3.0)}
    result = tune(layer, loss, {name: bounds[name] for name in order})
    found = result.hyperparameters
    assert abs(found["up"] - 2.0) < 1e-3 and abs(found["shift"] + 0.7) < 1e-3


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"up": (0.1, 1.0)}, r"parameters \(up, shift\): shift missing"),
        ({"up": (0.1, 1.0), "shift": (0, 1), "l1": (0, 1)}, "l1 unknown to the layer"),
    ],
)
def test_unknown_and_missing_names(layer, bounds, message):
    with pytest.raises(InvalidArgument, match=message):
        tune(layer, loss, bounds)


def test_arguments_may_name_the_parameters(layer):
    result = tune(layer, loss, {"t": (-2.0, 2.0)}, arguments=lambda t: {"shift": t, "up": 2 + 0 * t}, start={"t": 0.5})
    found = result.hyperparameters
    assert abs(found["t"] + 0.7) < 1e-3


def test_real_space():
    space = RealSpace.between({"a": (-2.0, [4.0, 0.0]), "b": (1e-2, 1.0)})
    point = space.pack([np.array([1.0, -1.0]), 0.1])
    a, b = space.unpack(torch.as_tensor(point))
    np.testing.assert_allclose(a.numpy(), [1.0, -1.0])
    assert abs(float(b) - 0.1) < 1e-12
    assert (space.clip(point + 100) == space.upper).all()
    np.testing.assert_allclose(space.unpack(torch.as_tensor(space.upper))[0].numpy(), [4.0, 0.0])
    for bad in ({"a": (0.0, np.inf)}, {"a": (2.0, 1.0)}, {}, {"a": 3}):
        with pytest.raises(InvalidArgument):
            RealSpace.between(bad)
    with pytest.raises(InvalidArgument, match="b must be positive"):
        space.pack([0.0, -1.0])

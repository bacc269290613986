"""Settings out of their ranges are refused where they are made, by name."""

import math

import numpy as np
import pytest
import torch

from conelayers.errors import InvalidArgument
from conelayers.fixed_points import PhantomGradient, Piggyback, Unrolled
from conelayers.fixed_points.iterations import (
    Anderson,
    Broyden,
    ForwardBackward,
    NewtonKrylov,
    PeacemanRachford,
    Picard,
)

COUNTS = [(Anderson, "max_steps"), (Anderson, "check_every"), (Anderson, "memory"), (Broyden, "memory")]
COUNTS += [(NewtonKrylov, "krylov_steps"), (PhantomGradient, "k"), (Unrolled, "k"), (Piggyback, "max_steps")]
NUMBERS = [(Picard, "atol"), (Picard, "rtol"), (Picard, "damping"), (Anderson, "mixing"), (Anderson, "restart")]
NUMBERS += [(Anderson, "ridge"), (Anderson, "plain_below"), (Broyden, "restart"), (NewtonKrylov, "forcing")]
NUMBERS += [(ForwardBackward, "alpha"), (PeacemanRachford, "alpha"), (PhantomGradient, "tau"), (Piggyback, "atol")]


@pytest.mark.parametrize(("kind", "name"), COUNTS)
@pytest.mark.parametrize("value", [1.5, 0, -1, "3", math.nan, True])
def test_counts(kind, name, value):
    with pytest.raises(InvalidArgument, match=f"{name} must be an integer >= 1"):
        kind(**{name: value})
    assert getattr(kind(**{name: np.int64(3)}), name) == 3


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, -1.0, "1"])
def test_numbers(kind, name, value):
    with pytest.raises(InvalidArgument, match=rf"{name} must be a number in [\[(]\d"):
        kind(**{name: value})


def test_ends_of_intervals_and_numbers_in_tensors():
    assert Picard(damping=1).damping == 1 and Anderson(plain_below=0).plain_below == 0
    assert NewtonKrylov(halvings=0).halvings == 0
    for kind, setting in ((Picard, {"damping": 0}), (Anderson, {"restart": 1}), (NewtonKrylov, {"halvings": -1})):
        with pytest.raises(InvalidArgument):
            kind(**setting)
    result = Picard(atol=torch.tensor(1e-6)).run(lambda z: z / 2, torch.ones(2, 3))
    assert result.converged.all()

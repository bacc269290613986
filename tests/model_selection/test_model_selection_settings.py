"""Settings of searches, inner solvers and hypergradients are checked where they are made, by name."""

import math

import pytest

from conelayers.bilevel import StochasticNeumann
from conelayers.errors import InvalidArgument
from conelayers.lasso import Huber, Multinomial, ProximalGradient, Quantile, WorkingSet
from conelayers.linalg import CG
from conelayers.model_selection import (
    LBFGS,
    Adam,
    BilevelDescent,
    GradientDescent,
    GridSearch,
    LogSpace,
    MultiStart,
    Safeguarded,
    TorchCriterion,
)

COUNTS = [(LBFGS, "max_evaluations"), (LBFGS, "memory"), (Adam, "patience"), (GridSearch, "size")]
COUNTS += [(Safeguarded, "size"), (Safeguarded, "patience"), (MultiStart, "starts"), (BilevelDescent, "outer_steps")]
COUNTS += [(BilevelDescent, "inner_steps"), (WorkingSet, "max_iter"), (WorkingSet, "first"), (Multinomial, "n_classes")]
COUNTS += [(ProximalGradient, "check")]
COUNTS += [(StochasticNeumann, "terms"), (MultiStart, "max_evaluations")]
NUMBERS = [(LBFGS, "rtol"), (Adam, "step"), (Adam, "beta1"), (GradientDescent, "first_tol"), (Safeguarded, "xtol")]
NUMBERS += [(GradientDescent, "decrease"), (GradientDescent, "first_step"), (BilevelDescent, "inner_step")]
NUMBERS += [(BilevelDescent, "momentum"), (WorkingSet, "tol"), (Huber, "delta"), (Quantile, "level")]
NUMBERS += [(Quantile, "smoothing")]
NUMBERS += [(StochasticNeumann, "step"), (Safeguarded, "coarse_tol")]
KINDS = [(Safeguarded, "local", LBFGS), (MultiStart, "local", LBFGS), (BilevelDescent, "solver", CG)]
KINDS += [(WorkingSet, "inner", ProximalGradient)]


@pytest.mark.parametrize(("kind", "name"), COUNTS)
@pytest.mark.parametrize("value", [1.5, -1, "3"])
def test_counts(kind, name, value):
    with pytest.raises(InvalidArgument, match=f"{name} must be an integer"):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name"), NUMBERS)
@pytest.mark.parametrize("value", [math.nan, -1.0, "1"])
def test_numbers(kind, name, value):
    with pytest.raises(InvalidArgument, match=f"{name} must be a number"):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "name", "wanted"), KINDS)
def test_kinds(kind, name, wanted):
    with pytest.raises(InvalidArgument, match=f"{name} must be an instance of"):
        kind(**{name: "x"})
    with pytest.raises(InvalidArgument, match="call it to make one"):
        kind(**{name: wanted})


@pytest.mark.parametrize("search", [LBFGS(), Adam(), GradientDescent(), Safeguarded(), MultiStart(), GridSearch()])
@pytest.mark.parametrize("start", [[math.nan], [0.0, 0.0], "a", [math.inf]])
def test_starts(search, start):
    criterion = TorchCriterion(lambda a: a, LogSpace.between({"a": (0.1, 1.0)}))
    with pytest.raises(InvalidArgument, match="start must"):
        search.run(criterion, start)
    with pytest.raises(InvalidArgument, match="criterion must be an instance of Criterion"):
        search.run("x")

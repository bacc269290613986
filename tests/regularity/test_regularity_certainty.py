"""A positive verdict is certain: constructed programmes, natural cases, and costs of sizes far apart."""

import importlib.util
import pathlib
import sys

import cvxpy as cp
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.errors import RegularityError

BENCHMARK = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "certificate.py"


def T(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.skipif(not BENCHMARK.exists(), reason="no benchmarks beside the tests")
def test_no_verdict_contradicts_the_construction():
    """A short form of benchmarks/certificate.py."""
    spec = importlib.util.spec_from_file_location("benchmark_certificate", BENCHMARK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    table, mistakes = module.count_verdicts(60, 1)
    assert not mistakes, [(item.kind, item.scales, item.blocks, said) for item, said in mistakes]
    assert table["regular"]["regular"] >= 9 and sum(row["undecided"] for row in table.values()) <= 12


@pytest.mark.parametrize("r", [0.7, 1.0, 1.5, 1.7, 2.2])
def test_constant_returns_to_scale_are_not_regular(r):
    """Profit c'u against a geometric mean: at these prices every scale earns nothing, and beside them one end is best."""
    u, c = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Maximize(cp.geo_mean(u, [1, 2]) - c @ u), [u <= 2, u >= 0.1])
    prices = T(r ** (2 / 3) / 3, 2 / 3 * r ** (-1 / 3))
    assert not bool(CvxpyLayer(problem, [c], [u]).solve(prices).regularity().regular)
    with pytest.raises(RegularityError):
        CvxpyLayer(problem, [c], [u], regularity="raise")(prices)
    assert bool(CvxpyLayer(problem, [c], [u]).solve(1.01 * prices).regularity().regular)


@pytest.mark.parametrize(("weight", "cost"), [(100.0, 1e-5), (1e4, 1e-4), (1.0, 1e-7), (1e-3, 1e-8), (1e6, 1.0)])
def test_costs_of_sizes_far_apart(weight, cost):
    """A multiplier of 1e-5 beside one of 100 is a strong one: the conditions fix it to its own rounding errors."""
    x, z = cp.Variable(), cp.Variable()
    w, c = cp.Parameter(nonneg=True), cp.Parameter(nonneg=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(w * cp.square(x - 2) + c * z), [x <= 1, z >= 0]), [w, c], [x, z])
    report = layer.solve(torch.tensor(weight).double(), torch.tensor(cost).double()).regularity()
    assert bool(report.regular), report.explain()
    report = layer.solve(torch.tensor(weight).double(), torch.tensor(0.0).double()).regularity()
    assert not bool(report.regular) and list(report.undetermined) == [z.name()]

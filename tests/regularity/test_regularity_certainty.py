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
    table, mistakes = module.count_verdicts(36, 1)
    assert not mistakes, [(item.kind, item.scales, item.blocks, said) for item, said in mistakes]
    assert table["regular"]["undecided"] == 0
    assert sum(row["undecided"] for row in table.values()) <= 8


@pytest.mark.parametrize("r", [0.7, 1.0, 1.5, 1.7, 2.2])
def test_constant_returns_to_scale_are_not_regular(r):
    """Profit against a geometric mean: at these prices no scale earns anything, and beside them one end is best."""
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


def switched(constraint):
    """The layer (a, k) -> argmin |x - a|^2 + k |x|_1 under a constraint."""
    x, a, k = cp.Variable(2), cp.Parameter(2), cp.Parameter(nonneg=True)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a) + k * cp.norm1(x)), [constraint(x)]), [a, k], [x])


def test_a_term_that_is_switched_off_does_not_count_where_it_moves_nothing():
    """At k = 0 the epigraph of |x| is free. On sum(x) == 1, x > 0 it is constant, so that k moves nothing."""
    layer = switched(lambda x: cp.sum(x) == 1)
    a, k = T(0.3, 1.2), torch.tensor(0.0).double()
    report = layer.solve(a, k).regularity()
    assert bool(report.regular) and bool(report.decided), report.explain()
    jacobian, slope = torch.func.jacrev(lambda a, k: layer(a, k)[0], argnums=(0, 1))(a, k)
    assert torch.allclose(jacobian, T(0.5, -0.5)[:, None] * T(1.0, -1.0))
    assert torch.allclose(slope, (layer(a, k + 1e-4)[0] - layer(a, k)[0]) / 1e-4, atol=1e-8)


def test_a_term_that_is_switched_off_counts_where_it_moves_the_solution():
    """Here x moves with k to the right of 0, which the Jacobian at k = 0 does not see."""
    layer = switched(lambda x: x[0] + 2 * x[1] == 1)
    a, k = T(0.9, 1.2), torch.tensor(0.0).double()
    assert not bool(layer.solve(a, k).regularity().regular)
    assert bool(layer.solve(a, k + 0.01).regularity().regular)

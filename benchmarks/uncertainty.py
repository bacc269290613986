"""Uncertainty sets over many seeds, and beside the peers' values: skfolio, dro, RSOME.

    python benchmarks/uncertainty.py --part newsvendor    learned sets, seeds 0 to 5
    python benchmarks/uncertainty.py --part radius        tuned radii, seeds 0 to 7
    python benchmarks/uncertainty.py --part peers         optimal values of the same problems
    python benchmarks/uncertainty.py --part negatives     where a learned set gains nothing, seeds 0 to 2

The peers are imported when first needed (pip install skfolio dro rsome); those not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cvxpy as cp
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor

from conelayers import CvxpyLayer
from conelayers.uncertainty import AugmentedLagrangian, Box, CrossPolytope, Ellipsoid, Polyhedron, cvar, worst_case_mean


def example(name: str) -> ModuleType:
    path = Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def newsvendor() -> None:
    for earned in (0.0, 0.5):
        print(f"training for the guaranteed profit + {earned} times the earned one")
        print(
            "| seed | guaranteed profit | earned profit | violations | of mean and covariance |\n|---|---|---|---|---|"
        )
        rows = [example("uncertainty_newsvendor").experiment(seed, earned=earned)[0] for seed in range(6)]
        for seed, row in enumerate(rows):
            percent = [100 * row[key] for key in ("guaranteed", "earned", "violations", "base_violations")]
            print("| {} | {:+.1f} % | {:+.1f} % | {:.1f} % | {:.1f} % |".format(seed, *percent))
        gains = [100 * row["guaranteed"] for row in rows]
        print(f"guaranteed: least {min(gains):+.1f} %, mean {np.mean(gains):+.1f} %")


def radius() -> None:
    print("| seed | radius | test error | at radius 1e-4 | difference |\n|---|---|---|---|---|")
    rows = [example("uncertainty_radius").experiment(seed)[0] for seed in range(8)]
    for seed, row in enumerate(rows):
        print(
            f"| {seed} | {row['radius']:.3f} | {row['tuned']:.4f} | {row['plain']:.4f} | {-100 * row['below']:+.1f} % |"
        )
    below = [-100 * row["below"] for row in rows]
    print(f"worst {max(below):+.1f} %, mean {np.mean(below):+.1f} %")


def value(objective: cp.Expression, constraints: list[cp.Constraint]) -> float:
    """Minimum, by a layer without parameters to speak of."""
    nothing, bound = cp.Parameter(), cp.Variable()
    problem = cp.Problem(cp.Minimize(bound), [objective + 0 * nothing <= bound, *constraints])
    return float(CvxpyLayer(problem, [nothing], [bound])(torch.zeros((), dtype=torch.float64))[0])


def robust_cvar() -> tuple[float, Callable[[], float]]:
    """Distributionally robust CVaR of 60 days of 8 stocks, returns >= -1, moves in the sum norm."""
    from skfolio.datasets import load_sp500_dataset  # the peer carries the data
    from skfolio.preprocessing import prices_to_returns

    returns = prices_to_returns(load_sp500_dataset()).tail(60).iloc[:, :8]
    samples, beta, size = returns.to_numpy(), 0.9, 0.02
    n = samples.shape[1]
    w, tau = cp.Variable(n, nonneg=True), cp.Variable()
    steep = 1 + 1 / (1 - beta)
    pieces = [(-w, tau), (-steep * w, (1 - 1 / (1 - beta)) * tau)]
    possible = Polyhedron(-np.eye(n), np.ones(n))
    ours = value(worst_case_mean(pieces, samples, CrossPolytope(np.zeros(n), size), possible), [cp.sum(w) == 1])

    def theirs() -> float:
        from skfolio.optimization import DistributionallyRobustCVaR

        model = DistributionallyRobustCVaR(cvar_beta=beta, wasserstein_ball_radius=size, save_problem=True)
        return float(model.fit(returns).problem_.value)

    return ours, theirs


def absolute_deviations(p: float) -> tuple[float, Callable[[], float]]:
    """Least absolute deviations on 120 rows of the diabetes data, features moved in the norm p."""
    X, y = load_diabetes(return_X_y=True)
    X, y = 20 * X[:120], (y[:120] - 150) / 75
    n, size = X.shape[1], 0.1
    coef, intercept = cp.Variable(n), cp.Variable()
    slope = cp.hstack([coef, np.array([-1.0])])
    kind = {1: CrossPolytope, 2: Ellipsoid, np.inf: Box}[p]
    moves = kind(np.zeros(n + 1), size * np.eye(n + 1, n))
    ours = value(worst_case_mean([(slope, intercept), (-slope, -intercept)], np.column_stack([X, y]), moves), [])

    def theirs() -> float:
        from dro.linear_model.wasserstein_dro import WassersteinDRO

        model = WassersteinDRO(n, model_type="lad")
        model.update({"eps": size, "p": "inf" if p == np.inf else p, "kappa": "inf"})
        model.fit(X, y)
        return model.robust_obj

    return ours, theirs


def budget_portfolio() -> tuple[float, Callable[[], float]]:
    """Bertsimas and Sim's portfolio of 50 stocks: each return falls short by up to its range, 4 ranges in all."""
    n, budget = 50, 4.0
    mean = 1.15 + 0.05 * np.arange(1, n + 1) / n
    spread = 0.05 / 450 * np.sqrt(2 * n * np.arange(1, n + 1) * (n + 1))
    w = cp.Variable(n, nonneg=True)
    returns = Box(mean, spread) & CrossPolytope(mean, budget * spread)
    ours = -value(returns.support(-w), [cp.sum(w) == 1])

    def theirs() -> float:
        from rsome import norm, ro

        model = ro.Model()
        x, z = model.dvar(n), model.rvar(n)
        model.maxmin((mean + spread * z) @ x, norm(z, np.inf) <= 1, norm(z, 1) <= budget)
        model.st(x.sum() == 1, x >= 0)
        model.solve(display=False)
        return float(model.get())

    return ours, theirs


def peers() -> None:
    print("| problem | ours | peer | difference |\n|---|---|---|---|")
    cases = {
        "robust CVaR, skfolio": robust_cvar,
        **{f"robust LAD, p = {p}, dro": lambda p=p: absolute_deviations(p) for p in (1, 2, np.inf)},
        "budget portfolio, RSOME": budget_portfolio,
    }
    for name, make in cases.items():
        try:
            ours, theirs = make()
            other = theirs()
        except ImportError as missing:
            print(f"| {name} | not installed: {missing.name} | | |")
            continue
        print(f"| {name} | {ours:.10f} | {other:.10f} | {abs(ours - other):.1e} |")


def negatives() -> None:
    """Two problems where the ellipsoid of mean and covariance is hard to beat."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)

        def normal(*size: int, generator: torch.Generator = generator) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=torch.float64)

        n = 6
        mean, root = 0.3 * normal(n).abs(), normal(n, n) / n**0.5
        returns = [mean + normal(count, n) @ root for count in (200, 500, 20_000)]
        base, learned = compare(portfolio(n), returns, lambda w, t, u: -u @ w[..., None] - t[..., None, None])
        print(f"seed {seed}, symmetric returns: guaranteed loss {base:.4f}, learned {learned:.4f}")
        uses = [(0.5 * normal(count, n) @ root).exp() for count in (500, 500, 20_000)]
        base, learned = compare(resources(n), uses, lambda x, t, u: u @ x[..., None] - 1)
        print(f"seed {seed}, skewed resource use: value {-base:.4f}, learned {-learned:.4f}")


def portfolio(n: int) -> CvxpyLayer:
    """Centre and shape of returns -> weights and the loss that they keep below in the set."""
    w, bound, center, shape = cp.Variable(n, nonneg=True), cp.Variable(), cp.Parameter(n), cp.Parameter((n, n))
    kept = [cp.sum(w) == 1, Ellipsoid(center, shape).support(-w) <= bound]
    return CvxpyLayer(cp.Problem(cp.Minimize(bound + 0.01 * cp.sum_squares(w)), kept), [center, shape], [w, bound])


def resources(n: int) -> CvxpyLayer:
    """Centre and shape of resource uses -> activities of the largest value within 1, and minus the value."""
    x, cost, center, shape = cp.Variable(n, nonneg=True), cp.Variable(), cp.Parameter(n), cp.Parameter((n, n))
    kept = [Ellipsoid(center, shape).support(x) <= 1, cost >= 0.05 * cp.sum_squares(x) - cp.sum(x)]
    return CvxpyLayer(cp.Problem(cp.Minimize(cost), kept), [center, shape], [x, cost])


def compare(layer: CvxpyLayer, samples: list[Tensor], excess: Callable[..., Tensor]) -> tuple[float, float]:
    """Costs of mean and covariance and of the learned ellipsoid, each scaled to CVaR <= 0 on the second sample."""
    training, validation, test = samples

    def violation(decision: Tensor, bound: Tensor, data: Tensor) -> Tensor:
        return cvar(excess(decision, bound, data)[..., 0], 0.9)

    @torch.no_grad()
    def judged(c: Tensor, S: Tensor) -> float:
        scales = torch.tensor(np.geomspace(0.2, 5, 200))
        decisions, bounds = layer(c.expand(len(scales), -1), scales[:, None, None] * S)
        met = torch.stack([violation(*pair, validation) for pair in zip(decisions, bounds, strict=True)]) <= 0
        best = torch.where(met, bounds, torch.inf).argmin()
        # The promise, and by how much the third sample breaks it.
        return float(bounds[best] + violation(decisions[best], bounds[best], test).clamp_min(0))

    c, S = training.mean(0), torch.linalg.cholesky(torch.cov(training.mT))
    base = judged(c, S)
    c, S = c.requires_grad_(), S.requires_grad_()
    optimizer = torch.optim.Adam([c, S], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    loss = AugmentedLagrangian()
    for _ in range(200):
        optimizer.zero_grad()
        decision, bound = layer(c, S)
        loss(bound, violation(decision, bound, training)).backward()
        optimizer.step()
        schedule.step()
    return base, judged(c.detach(), S.detach())


PARTS = {"newsvendor": newsvendor, "radius": radius, "peers": peers, "negatives": negatives}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    PARTS[parser.parse_args().part]()


if __name__ == "__main__":
    main()

"""An uncertainty set learned from demands: two goods, ordered before the demand is known.

The layer orders so as to guarantee a profit for every demand in a set. The usual set is the ellipsoid of the sample's
mean and covariance; here its centre and shape are trained, for 64 problems with different prices at once, so that the
guarantee is as large as can be while the worst tenth of demands breaks it by nothing on average (a conditional value at
risk of at most 0). Both sets are then scaled on a second sample to that same target, and judged on a third. With
--earned 0.5 half of the earned profit counts in training as well.

Run: python examples/uncertainty_newsvendor.py [--seeds 0 1] [--steps 200] [--earned 0.5] [--figure FILE]
"""

import argparse
import dataclasses
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from conelayers import CvxpyLayer
from conelayers.uncertainty import AugmentedLagrangian, Ellipsoid, Polyhedron, cvar

BETA, PROBLEMS = 0.9, 64


@dataclasses.dataclass
class Market:
    """Prices and costs of the problems, shape (problems, 2), and samples of demands, shape (N, 2)."""

    price: Tensor
    cost: Tensor
    training: Tensor
    validation: Tensor
    test: Tensor

    @classmethod
    def draw(cls, seed: int) -> "Market":
        """Lognormal demands of standard deviation 0.8 and correlation 0.3 in logarithms."""
        generator = torch.Generator().manual_seed(seed)
        root = 0.8 * torch.tensor([[1.0, 0.0], [0.3, 0.91**0.5]], dtype=torch.float64)

        def demands(count: int) -> Tensor:
            return (torch.randn(count, 2, generator=generator, dtype=torch.float64) @ root.mT).exp()

        def uniform() -> Tensor:
            return torch.rand(PROBLEMS, 2, generator=generator, dtype=torch.float64)

        samples = demands(500), demands(500), demands(20_000)
        price = 1 + uniform()
        return cls(price, price * (0.2 + 0.4 * uniform()), *samples)

    def profit(self, orders: Tensor, demands: Tensor) -> Tensor:
        """Shape (*batch, problems, N)."""
        sold = torch.minimum(orders[..., None, :], demands)
        return (sold * self.price[:, None]).sum(-1) - (orders * self.cost).sum(-1, keepdim=True)

    def shortfall(self, orders: Tensor, guaranteed: Tensor, demands: Tensor) -> Tensor:
        """By how much the worst tenth of demands breaks the guarantee, a mean over the problems."""
        return cvar(guaranteed[..., None] - self.profit(orders, demands), BETA).nanmean(-1)


def newsvendor() -> CvxpyLayer:
    """Price, cost, centre and shape of the set -> orders and the profit that the set guarantees."""
    orders, guaranteed = cp.Variable(2, nonneg=True), cp.Variable()
    price, cost, center, shape = cp.Parameter(2), cp.Parameter(2), cp.Parameter(2), cp.Parameter((2, 2))
    demands = Ellipsoid(center, shape) & Polyhedron(-np.eye(2), np.zeros(2), name="nonnegative")
    constraints = []
    # price'min(orders, u) is the least of four sums: of each good either all the orders or all the demand is sold.
    for short in np.array([[0, 0], [1, 0], [0, 1], [1, 1]]):
        income = cp.multiply(1 - short, price) @ orders - demands.support(-cp.multiply(short, price))
        constraints.append(guaranteed <= income - cost @ orders)
    objective = cp.Maximize(guaranteed - 0.01 * cp.sum_squares(orders))
    # A set that training moves away from the nonnegative demands is empty: such an item is left out.
    return CvxpyLayer(
        cp.Problem(objective, constraints), [price, cost, center, shape], [orders, guaranteed], on_failure="nan"
    )


def mean_and_covariance(demands: Tensor) -> tuple[Tensor, Tensor]:
    """The centre and the shape that everybody begins with."""
    return demands.mean(0), torch.linalg.cholesky(torch.cov(demands.mT))


def learned(layer: CvxpyLayer, market: Market, steps: int, earned: float) -> tuple[Tensor, Tensor]:
    """The centre and the shape that guarantee (and earn) most on the training demands."""
    center, shape = mean_and_covariance(market.training)
    log_center, shape = center.log().requires_grad_(), shape.requires_grad_()  # the centre stays positive
    optimizer = torch.optim.Adam([log_center, shape], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    loss = AugmentedLagrangian(penalty=10.0, multiplier=1.0, every=10)
    for _ in range(steps):
        optimizer.zero_grad()
        orders, guaranteed = layer(market.price, market.cost, log_center.exp(), shape)
        gain = guaranteed.nanmean() + earned * market.profit(orders, market.training).nanmean()
        loss(-gain, market.shortfall(orders, guaranteed, market.training)).backward()
        optimizer.step()
        schedule.step()
    return log_center.detach().exp(), shape.detach()


@torch.no_grad()
def scaled(layer: CvxpyLayer, market: Market, center: Tensor, shape: Tensor) -> dict[str, Tensor]:
    """The results of the set at every scale; `best` guarantees most among those that meet the target."""
    # Violations need not fall as the set grows, so that bisection could miss the best scale.
    scales = torch.tensor(np.geomspace(0.2, 3.0, 200))
    shapes = (scales[:, None, None] * shape).repeat_interleave(PROBLEMS, 0)
    problems = [data.repeat(len(scales), 1) for data in (market.price, market.cost)]
    orders, guaranteed = layer(*problems, center.expand(len(shapes), 2), shapes)
    orders, guaranteed = orders.reshape(-1, PROBLEMS, 2), guaranteed.reshape(-1, PROBLEMS)
    meets = market.shortfall(orders, guaranteed, market.validation) <= 0
    best = torch.where(meets, guaranteed.nanmean(-1), -torch.inf).argmax()
    earned = market.profit(orders[best], market.test)
    return {
        "guaranteed": guaranteed.nanmean(-1),
        "earned": torch.stack([market.profit(x, market.validation).nanmean() for x in orders]),
        "meets": meets,
        "best": best,
        "best_shape": scales[best] * shape,
        "center": center,
        "best_guaranteed": guaranteed[best].nanmean(),
        "best_earned": earned.nanmean(),
        # A decision to order nothing guarantees 0 and earns 0: that is no violation.
        "violations": (earned < guaranteed[best][:, None] - 1e-6).double().mean(),
    }


def experiment(
    seed: int, steps: int = 200, earned: float = 0.0
) -> tuple[dict[str, float], Market, dict[str, dict[str, Tensor]]]:
    """What the learned set gains over the ellipsoid of mean and covariance."""
    market, layer = Market.draw(seed), newsvendor()
    base = scaled(layer, market, *mean_and_covariance(market.training))
    ours = scaled(layer, market, *learned(layer, market, steps, earned))
    numbers = {
        "guaranteed": float(ours["best_guaranteed"] / base["best_guaranteed"] - 1),
        "earned": float(ours["best_earned"] / base["best_earned"] - 1),
        "violations": float(ours["violations"]),
        "base_violations": float(base["violations"]),
    }
    return numbers, market, {"mean and covariance": base, "learned": ours}


def plot(path: Path, market: Market, results: dict[str, dict[str, Tensor]]) -> None:
    """Both sets over the demands, and guaranteed against earned profit along the scale."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.plot(*market.training.T, ".", color="0.75", markersize=3)
    angles = torch.linspace(0, 2 * torch.pi, 200, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()])
    for (name, found), color in zip(results.items(), ("C0", "C1"), strict=True):
        left.plot(*(found["center"][:, None] + found["best_shape"] @ circle).clamp_min(0), color, label=name)
        right.plot(found["guaranteed"], found["earned"], color, linestyle=":")
        met = torch.where(found["meets"], found["guaranteed"], torch.nan)
        right.plot(met, found["earned"], color, linewidth=2.5)
        best = found["best"]
        right.plot(found["guaranteed"][best], found["earned"][best], "o", color=color, label=name)
    left.set(xlim=(0, 5), ylim=(0, 5), xlabel="demand for good 1", ylabel="demand for good 2", title="The sets")
    left.legend()
    right.set(xlabel="guaranteed profit", ylabel="earned profit", title="Along the scale; dotted: target missed")
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"figure: {path}")


def main(argv: list[str] | None = None) -> dict[int, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--earned", type=float, default=0.0, help="weight of the earned profit in training")
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "uncertainty_newsvendor.png")
    options = parser.parse_args(argv)
    found = {}
    for seed in options.seeds:
        found[seed], market, results = experiment(seed, options.steps, options.earned)
        numbers = found[seed]
        print(
            f"seed {seed}: guaranteed profit {100 * numbers['guaranteed']:+.1f} %, "
            f"earned {100 * numbers['earned']:+.1f} %; violations {100 * numbers['violations']:.1f} % "
            f"against {100 * numbers['base_violations']:.1f} %"
        )
        if seed == options.seeds[0]:
            plot(options.figure, market, results)
    return found


if __name__ == "__main__":
    main()

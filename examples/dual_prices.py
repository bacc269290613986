"""A layer's dual prices: calibrate the costs of power plants from the prices of a market.

A market clears by minimising the plants' quadratic costs a_i g_i + b_i g_i^2 / 2 subject to total generation =
demand and 0 <= g <= capacity. The price is the dual variable of the balance. Prices for many demands are public,
cost curves are not: gradient descent through the dual variable finds costs that reproduce the prices.

Run: python examples/dual_prices.py [--steps 200] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import trange

from conelayers import CvxpyLayer

CAPACITY = np.array([2.0, 3.0, 1.5])


def market() -> CvxpyLayer:
    """Parameters: linear costs (3,), square roots of quadratic costs (3,), demand (). Returns generation and price."""
    g, a, root_b, demand = cp.Variable(3), cp.Parameter(3), cp.Parameter(3, nonneg=True), cp.Parameter()
    balance = demand - cp.sum(g) == 0
    cost = a @ g + cp.sum_squares(cp.multiply(root_b, g)) / 2
    problem = cp.Problem(cp.Minimize(cost), [balance, g >= 0, g <= CAPACITY])
    return CvxpyLayer(problem, [a, root_b, demand], [g, balance.dual_variables[0]])


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "dual_prices.png")
    options = parser.parse_args()

    layer = market()
    true_a = torch.tensor([1.0, 1.6, 2.5], dtype=torch.float64)
    true_b = torch.tensor([0.8, 0.3, 1.2], dtype=torch.float64)
    demand = torch.linspace(0.3, 6.2, 40, dtype=torch.float64)
    prices = layer(true_a, true_b.sqrt(), demand)[1].detach()

    a = torch.tensor([0.5, 2.0, 2.0], dtype=torch.float64, requires_grad=True)
    log_b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([a, log_b], lr=0.05)
    errors = []
    for _ in (progress := trange(options.steps, desc="costs", ncols=90)):
        _, predicted = layer(a, (log_b / 2).exp(), demand)
        loss = ((predicted - prices) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.detach().sqrt().item())
        progress.set_postfix(error=f"{errors[-1]:.4f}")
    print(f"root mean square error of the price: {errors[-1]:.4f}, at the start {errors[0]:.4f}")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.semilogy(errors)
    left.set(xlabel="step", ylabel="price error", title="Calibration")
    right.plot(demand, prices, "k.", label="observed")
    right.plot(demand, predicted.detach(), label="layer")
    right.set(xlabel="demand", ylabel="price", title="Market price")
    right.legend()
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return {"error": errors[-1], "start": errors[0]}


if __name__ == "__main__":
    main()

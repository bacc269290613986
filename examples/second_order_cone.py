"""A second-order cone programme as a layer: find the demands that explain where a warehouse was built.

A warehouse at x minimises sum_i w_i ||x - a_i||, the demand-weighted sum of distances to the customers. Positions were
observed for many sets of customers, the demand weights of the customer types were not. Gradient descent through the
layer recovers them (up to scale).

Run: python examples/second_order_cone.py [--steps 80] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import trange

from conelayers import CvxpyLayer

TYPES = 6


def warehouse() -> CvxpyLayer:
    """Parameters: customer positions (TYPES, 2), weights (TYPES,). The weights enter through scaled positions: DPP."""
    x, weighted, w = cp.Variable(2), cp.Parameter((TYPES, 2)), cp.Parameter(TYPES, nonneg=True)
    distances = [cp.norm(w[i] * x - weighted[i]) for i in range(TYPES)]
    return CvxpyLayer(cp.Problem(cp.Minimize(sum(distances) + 0.01 * cp.sum_squares(x))), [weighted, w], [x])


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "second_order_cone.png")
    options = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    customers = torch.randn(48, TYPES, 2, generator=generator, dtype=torch.float64)
    truth = torch.tensor([0.5, 1.0, 0.3, 0.8, 1.4, 0.6], dtype=torch.float64)
    truth = truth / truth.sum()
    layer = warehouse()

    def locate(weights: torch.Tensor) -> torch.Tensor:
        return layer(weights[:, None] * customers, weights)[0]

    observed = locate(truth).detach()
    logits = torch.zeros(TYPES, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    errors = []
    for _ in (progress := trange(options.steps, desc="demands", ncols=90)):
        weights = torch.softmax(logits, 0)
        loss = ((locate(weights) - observed) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float((weights.detach() - truth).abs().max()))
        progress.set_postfix(error=f"{errors[-1]:.4f}")
    recovered = torch.softmax(logits, 0).detach()
    print(
        f"largest error of a demand weight: {float((recovered - truth).abs().max()):.4f}, at the start {errors[0]:.4f}"
    )

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.semilogy(errors)
    left.set(xlabel="step", ylabel="largest error", title="Recovery of the demands")
    positions = torch.arange(TYPES)
    right.bar(positions - 0.2, truth, 0.4, label="true")
    right.bar(positions + 0.2, recovered, 0.4, label="recovered")
    right.set(xlabel="customer type", ylabel="weight")
    right.legend()
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return {"error": float((recovered - truth).abs().max()), "start": errors[0]}


if __name__ == "__main__":
    main()

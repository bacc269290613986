"""Learning a constraint: find out what limits somebody's decisions by watching them.

An agent wants x near its wish c but obeys G x <= 1 with two rows nobody told us. From pairs (c, x) the layer's G is
learned by gradient descent on the distance between predicted and observed decisions.

Run: python examples/learning_a_constraint.py [--steps 150] [--figure FILE]
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


def agent() -> CvxpyLayer:
    """Parameters: wish (2,), constraint rows (2, 2)."""
    x, c, G = cp.Variable(2), cp.Parameter(2), cp.Parameter((2, 2))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [G @ x <= 1])
    return CvxpyLayer(problem, [c, G], [x])


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "learning_a_constraint.png")
    options = parser.parse_args()

    truth = torch.tensor([[1.0, 0.4], [-0.3, 0.9]], dtype=torch.float64)
    wishes = 2 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer = agent()
    observed = layer(wishes, truth)[0].detach()
    G = torch.tensor([[0.5, 0.0], [0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([G], lr=0.03)
    losses, errors = [], []
    for _ in (progress := trange(options.steps, desc="constraint", ncols=90)):
        loss = ((layer(wishes, G)[0] - observed) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        errors.append(float((G.detach() - truth).abs().max()))
        progress.set_postfix(loss=f"{losses[-1]:.1e}")
    print(f"largest error of an entry of G: {errors[-1]:.4f}, at the start {errors[0]:.4f}")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.semilogy(losses, label="loss")
    left.semilogy(errors, label="error of G")
    left.set(xlabel="step")
    left.legend()
    span = np.linspace(-3, 3, 2)
    for rows, style, label in ((truth, "k-", "true"), (G.detach(), "C1--", "learned")):
        for i, (a, b) in enumerate(rows.tolist()):
            right.plot(span, (1 - a * span) / b, style, label=label if i == 0 else None)
    right.plot(*wishes.T, ".", color="0.7", label="wishes")
    right.plot(*observed.T, "C0.", label="decisions")
    right.set(xlim=(-3, 3), ylim=(-3, 3), title="Constraints")
    right.legend(fontsize=8)
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return {"error": errors[-1], "start": errors[0]}


if __name__ == "__main__":
    main()

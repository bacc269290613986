"""A semidefinite programme as a layer: correlation matrices from few patients.

Correlations of the ten features of scikit-learn's diabetes data, estimated from twelve patients, are noisy and
rank-deficient. The layer projects onto correlation matrices with smallest eigenvalue 0.05, in a norm with one weight
per pair of features, after shrinking the entries; weights and shrinkage are trained so that the result comes close
to the correlations of other patients.

Run: python examples/semidefinite.py [--steps 40] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from tqdm import trange

from conelayers import CvxpyLayer

SIZE = 10


def nearest_correlation() -> CvxpyLayer:
    """Parameters: weights W and weighted target W * C, both (SIZE, SIZE): minimise ||W * X - W * C||^2."""
    X = cp.Variable((SIZE, SIZE), symmetric=True)
    W, target = cp.Parameter((SIZE, SIZE), nonneg=True), cp.Parameter((SIZE, SIZE))
    constraints = [cp.diag(X) == 1, X - 0.05 * np.eye(SIZE) >> 0]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(W, X) - target)), constraints)
    return CvxpyLayer(problem, [W, target], [X])


def correlations(data: np.ndarray, count: int, patients: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    samples = [np.corrcoef(data[rng.choice(len(data), patients, replace=False)].T) for _ in range(count)]
    return torch.tensor(np.stack(samples))


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "semidefinite.png")
    options = parser.parse_args()

    data = load_diabetes().data
    rng = np.random.default_rng(0)
    order = rng.permutation(len(data))
    training, held_out = data[order[:221]], data[order[221:]]
    goal = torch.tensor(np.corrcoef(training.T))
    test_goal = torch.tensor(np.corrcoef(held_out.T))
    noisy = correlations(training, 24, 12, seed=1)
    layer = nearest_correlation()
    upper = torch.triu_indices(SIZE, SIZE, 1)
    log_weights = torch.zeros(upper.shape[1], dtype=torch.float64, requires_grad=True)
    shrink = torch.zeros(upper.shape[1], dtype=torch.float64, requires_grad=True)

    def symmetric(entries: torch.Tensor) -> torch.Tensor:
        matrix = torch.zeros(SIZE, SIZE, dtype=torch.float64).index_put(tuple(upper), entries)
        return matrix + matrix.T + torch.eye(SIZE, dtype=torch.float64)

    def denoise(C: torch.Tensor) -> torch.Tensor:
        weights, factors = symmetric(log_weights.exp()), symmetric(torch.sigmoid(shrink + 2))
        return layer(weights, weights * (C * factors))[0]

    optimizer = torch.optim.Adam([log_weights, shrink], lr=0.1)
    errors = []
    for _ in (progress := trange(options.steps, desc="weights", ncols=90)):
        loss = ((denoise(noisy) - goal) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
        progress.set_postfix(error=f"{errors[-1]:.4f}")

    test = correlations(held_out, 64, 12, seed=2)
    with torch.no_grad():
        plain = layer(torch.ones(SIZE, SIZE, dtype=torch.float64), test)[0]
        learned = denoise(test)
    result = {
        "raw": float(((test - test_goal) ** 2).mean()),
        "projection": float(((plain - test_goal) ** 2).mean()),
        "learned": float(((learned - test_goal) ** 2).mean()),
    }
    print("error on held-out patients: " + ", ".join(f"{k} {v:.4f}" for k, v in result.items()))

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    axes[0].plot(errors)
    axes[0].set(xlabel="step", ylabel="mean squared error", title="Training")
    for axis, matrix, title in zip(
        axes[1:], (test[0], learned[0], test_goal), ("12 patients", "layer", "all held out"), strict=True
    ):
        picture = axis.imshow(np.asarray(matrix), vmin=-1, vmax=1, cmap="RdBu")
        axis.set(title=title)
    figure.colorbar(picture, ax=axes[-1])
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return result


if __name__ == "__main__":
    main()

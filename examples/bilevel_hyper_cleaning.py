"""Data hyper-cleaning: learn which training labels are wrong, from a small clean validation set.

Each training sample has a weight sigmoid(theta_i); the inner problem fits a softmax classifier to the weighted samples,
the outer one lowers the validation loss in theta, by approximate implicit differentiation with warm starts and an
accelerated outer loop. The noise is drawn once.

Run: python examples/bilevel_hyper_cleaning.py [--steps 60] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits

from conelayers.bilevel import BilevelProblem, inner_descent
from conelayers.linalg import CG
from conelayers.model_selection import BilevelDescent


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "bilevel_hyper_cleaning.png")
    options = parser.parse_args(argv)

    generator = torch.Generator().manual_seed(0)
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=generator)
    X = (torch.tensor(digits.data, dtype=torch.float64) / 16)[order]
    y = torch.tensor(digits.target)[order]
    train, held, test = slice(0, 700), slice(700, 1000), slice(1000, None)
    wrong = torch.rand(700, generator=generator) < 0.4
    labels = torch.where(wrong, torch.randint(10, (700,), generator=generator), y[train])
    wrong = labels != y[train]

    def inner(w, theta):
        losses = torch.nn.functional.cross_entropy(X[train] @ w[0] + w[1], labels, reduction="none")
        return (torch.sigmoid(theta[0]) * losses).mean() + 1e-3 * w[0].square().sum()

    def outer(w, theta):
        return torch.nn.functional.cross_entropy(X[held] @ w[0] + w[1], y[held])

    def accuracy(w):
        return float(((X[test] @ w[0] + w[1]).argmax(1) == y[test]).double().mean())

    problem = BilevelProblem(inner, outer)
    zero = (torch.zeros(64, 10, dtype=torch.float64), torch.zeros(10, dtype=torch.float64))
    theta = (torch.zeros(700, dtype=torch.float64),)
    before = inner_descent(problem, zero, theta, 300, 0.5)
    solver = CG(tolerance=1e-4, max_iterations=10)
    search = BilevelDescent(options.steps, outer_step=300.0, inner_steps=20, inner_step=0.5, solver=solver)
    result = search.run(problem, before, theta)
    after = inner_descent(problem, result.w, result.theta, 300, 0.5)
    weights = torch.sigmoid(result.theta[0])
    print(f"test accuracy: {accuracy(before):.3f} with all samples, {accuracy(after):.3f} cleaned")
    means = float(weights[wrong].mean()), float(weights[~wrong].mean())
    print(f"mean weight: {means[0]:.3f} of wrong labels, {means[1]:.3f} of right ones")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.plot(result.values)
    left.set(xlabel="outer step", ylabel="validation loss", title="Descent")
    bins = torch.linspace(0, 1, 30).tolist()
    right.hist(weights[~wrong].numpy(), bins=bins, alpha=0.6, label="right labels")
    right.hist(weights[wrong].numpy(), bins=bins, alpha=0.6, label="wrong labels")
    right.set(xlabel="weight", ylabel="samples", title="Learned weights")
    right.legend()
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return {"before": accuracy(before), "after": accuracy(after), "wrong": means[0], "right": means[1]}


if __name__ == "__main__":
    main()

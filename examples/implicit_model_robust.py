"""Implicit models on handwritten digits: robust training with certified box bounds, then pruning in two ways.

    python examples/implicit_model_robust.py [--epochs 10] [--sigma 0.02] [--figure FILE]

Two models are trained on the digits that ship with scikit-learn: one on the cross entropy, one on the cross entropy
of the worst scores that the box |u - u0| <= sigma allows, bounded by the sensitivity matrix |C| (I - |A|)^-1 |B| +
|D|. An image counts as certified if no point of the box can change its class. The robust model is then pruned:
by setting small entries to zero, and by state-driven training, where each row of a new model is the solution of a
convex programme that fits the states and outputs of the old one with few entries; states that nobody hears are dropped.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from tqdm import tqdm

from conelayers import ImplicitModel, state_driven_training
from conelayers.layers import InfinityNorm

FIGURES = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))


def load() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images in [0, 1] with a constant pixel appended, and labels: train, then test."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, test_size=0.25, random_state=0)
    x_train, x_test = (torch.tensor(p, dtype=torch.float32) for p in parts[:2])
    y_train, y_test = (torch.tensor(p) for p in parts[2:])
    return (*(torch.cat([x, torch.ones(len(x), 1)], 1) for x in (x_train, x_test)), y_train, y_test)


def worst_scores(model: ImplicitModel, x: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """Scores with every wrong class raised and the right one lowered as far as the box allows at most."""
    bound = model.output_bound(sigma)
    return model(x) + bound * (1 - 2 * one_hot(y, 10))


def train(model: ImplicitModel, x: Tensor, y: Tensor, epochs: int, sigma: Tensor | None, name: str) -> None:
    """Adam, with A projected back into the well-posed set after every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in tqdm(range(epochs), desc=name):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            scores = model(x[rows]) if sigma is None else worst_scores(model, x[rows], y[rows], sigma)
            cross_entropy(scores, y[rows]).backward()
            optimizer.step()
            model.project_()


@torch.no_grad()
def report(model: ImplicitModel, x: Tensor, y: Tensor, sigma: Tensor) -> tuple[float, float]:
    """Accuracy, and the share of images whose class is right for every point of the box."""
    right = model(x).argmax(1) == y
    certified = worst_scores(model, x, y, sigma).argmax(1) == y
    return float(right.float().mean()), float(certified.float().mean())


def entries(model: ImplicitModel) -> int:
    """Nonzero entries of the four matrices."""
    return sum(int((M != 0).sum()) for M in (model.A, model.B, model.C, model.D))


def plot(curves: dict[str, list[tuple[int, float, float]]], path: Path) -> None:
    """Accuracy and certified share against the entries kept."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2))
    for color, (name, curve) in zip(("C0", "C1"), curves.items(), strict=True):
        kept, accuracy, certified = zip(*curve, strict=True)
        axes.plot(kept, accuracy, color=color, marker=".", label=f"{name}: accuracy")
        axes.plot(kept, certified, color=color, marker=".", linestyle="--", label=f"{name}: certified")
    axes.set(xlabel="nonzero entries after pruning", ylabel="share of test images", xscale="log")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    print(f"figure saved to {path}")


def main() -> dict[str, list[tuple[int, float, float]]]:
    """Train both, certify, prune; returns entries, accuracy and certified share of every pruned model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--sigma", type=float, default=0.02, help="half width of the box, in units of full intensity")
    parser.add_argument("--figure", type=Path, default=FIGURES / "implicit_model_robust.png")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    x, x_test, y, y_test = load()
    sigma = torch.full((x.shape[1],), arguments.sigma)
    sigma[-1] = 0  # the constant pixel does not move
    models = {name: ImplicitModel(x.shape[1], 40, 10, wellposed=InfinityNorm(0.8)) for name in ("plain", "robust")}
    for name, model in models.items():
        train(model, x, y, arguments.epochs, sigma if name == "robust" else None, name)
        accuracy, certified = report(model, x_test, y_test, sigma)
        print(f"{name:7s} test accuracy {100 * accuracy:.2f} %   certified for the box {100 * certified:.2f} %")
    robust = models["robust"]
    small = {
        "entries cut": [robust.sparsified(t).reduced() for t in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2)],
        "state-driven": [
            state_driven_training(robust, x, sparsity=s, kappa=0.8).reduced() for s in (1e-5, 1e-4, 3e-4, 1e-3, 3e-3)
        ],
    }
    curves: dict[str, list[tuple[int, float, float]]] = {}
    for name, students in small.items():
        curves[name] = [(entries(m), *report(m, x_test, y_test, sigma)) for m in students]
        for student, (kept, accuracy, certified) in zip(students, curves[name], strict=True):
            print(
                f"{name:12s} {student.A.shape[0]:3d} states {kept:5d} entries   "
                f"test accuracy {100 * accuracy:.2f} %   certified {100 * certified:.2f} %"
            )
    plot(curves, arguments.figure)
    return curves


if __name__ == "__main__":
    main()

"""Quick start: a network that reads handwritten digits, with an optimization layer that knows how digits come.

Ten images lie on a table and show each of the digits 0 to 9 once (scikit-learn's digits, 8 x 8 pixels). A small network
scores every image for every digit. The layer turns the 10 x 10 scores S into the doubly stochastic matrix X that
maximises <S, X> - (eps/2)||X||^2: each image is one digit, each digit is one image. Training differentiates through it.
The same network is trained without the layer, by a softmax over the ten digits of each image.

Run: python examples/quick_start.py [--steps 120] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from tqdm import trange

from conelayers import CvxpyLayer


def assignment_layer(size: int = 10, eps: float = 1.0) -> CvxpyLayer:
    """The layer: scores (size, size) to a doubly stochastic matrix."""
    X, S = cp.Variable((size, size), nonneg=True), cp.Parameter((size, size))
    objective = cp.Maximize(cp.sum(cp.multiply(S, X)) - eps / 2 * cp.sum_squares(X))
    problem = cp.Problem(objective, [cp.sum(X, axis=1) == 1, cp.sum(X, axis=0) == 1])
    return CvxpyLayer(problem, parameters=[S], variables=[X])


def tables(images: torch.Tensor, labels: torch.Tensor, count: int, generator: torch.Generator):
    """`count` sets of ten images, one per digit, shuffled: images (count, 10, 64), labels (count, 10)."""
    members = [torch.nonzero(labels == digit)[:, 0] for digit in range(10)]
    picks = torch.stack([m[torch.randint(len(m), (count,), generator=generator)] for m in members], dim=1)
    order = torch.argsort(torch.rand(count, 10, generator=generator), dim=1)
    return images[picks.gather(1, order)], order


def train(network: nn.Module, assign, data, steps: int, seed: int) -> list[float]:
    """Train on random tables; `assign` turns scores into the probabilities that the loss reads."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    progress = trange(steps, desc="with the layer" if assign is not torch.softmax else "without", ncols=90)
    for _ in progress:
        images, target = tables(*data, 16, generator)
        probability = assign(network(images), -1) if assign is torch.softmax else assign(network(images))[0]
        chosen = probability.gather(-1, target[..., None])
        loss = -torch.log(chosen.clamp(min=0) + 1e-2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        progress.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses


@torch.no_grad()
def accuracy(network: nn.Module, assign, data) -> tuple[float, torch.Tensor]:
    """Share of test images read rightly, and the layer's matrix for the first table."""
    images, target = tables(*data, 100, torch.Generator().manual_seed(7))
    scores = network(images)
    probability = torch.softmax(scores, -1) if assign is torch.softmax else assign(scores)[0]
    return float((probability.argmax(-1) == target).double().mean()), probability[0]


def make_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "quick_start.png")
    options = parser.parse_args()

    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    # Heavy noise and little data: what one image cannot tell, the other nine on the table can.
    images = images + 0.45 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor(digits.target)
    training, test = (images[:300], labels[:300]), (images[300:], labels[300:])

    layer = assignment_layer()
    with_layer, without = make_network(), make_network()
    losses = train(with_layer, layer, training, options.steps, seed=3)
    plain_losses = train(without, torch.softmax, training, options.steps, seed=3)
    score, matrix = accuracy(with_layer, layer, test)
    plain_score, _ = accuracy(without, torch.softmax, test)
    print(f"test accuracy with the layer: {score:.3f}, the same network without it: {plain_score:.3f}")

    draw(losses, plain_losses, score, plain_score, matrix, options.figure)
    print(f"figure: {options.figure}")
    return {"with_layer": score, "without": plain_score}


def draw(losses, plain_losses, score, plain_score, matrix, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    left.plot(losses, label="with the layer")
    left.plot(plain_losses, label="without")
    left.set(xlabel="step", ylabel="training loss", title="Training")
    left.legend()
    bars = middle.bar(["with the layer", "without"], [score, plain_score], color=["C0", "C1"])
    middle.bar_label(bars, fmt="%.3f")
    middle.set(ylim=(0, 1.05), title="Test accuracy")
    picture = right.imshow(np.asarray(matrix), vmin=0, vmax=1, cmap="Blues")
    right.set(xlabel="digit", ylabel="image on the table", title="The layer's assignment", xticks=range(10))
    figure.colorbar(picture, ax=right)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()

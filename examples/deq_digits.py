"""A monotone equilibrium network on handwritten digits, beside an explicit network with the same number of parameters.

    python examples/deq_digits.py [--epochs 12] [--data digits.npz] [--figure examples/figures/deq_digits.png]

`--data` reads larger sets: an .npz file with arrays x_train, y_train, x_test, y_test (the layout of Keras' mnist.npz).
Without it the 1797 digits that ship with scikit-learn are used.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from tqdm import tqdm

from conelayers.fixed_points.iterations import PeacemanRachford
from conelayers.layers.monotone_deq import MonotoneDEQ

FIGURES = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))


class Equilibrium(nn.Module):
    """A monotone equilibrium layer and a linear readout."""

    def __init__(self, inputs: int, features: int, classes: int) -> None:
        super().__init__()
        self.layer = MonotoneDEQ(inputs, features, m=0.5, solver=PeacemanRachford(atol=1e-4, rtol=1e-4))
        self.readout = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.readout(self.layer(x))


def explicit(inputs: int, classes: int, parameters: int) -> nn.Sequential:
    """Two hidden relu layers of one width, the widest that has at most as many parameters."""

    def count(width: int) -> int:
        return (inputs + 1) * width + (width + 1) * width + (width + 1) * classes

    width = max(w for w in range(1, 4096) if count(w) <= parameters)
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
    )


def load(path: Path | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images in [0, 1] as rows, and labels: train, then test."""
    if path is None:
        images, labels = load_digits(return_X_y=True)
        x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, random_state=0)
    else:
        data = np.load(path)
        x_train, y_train, x_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    top = float(x_train.max())

    def images_of(x: np.ndarray) -> Tensor:
        return torch.tensor(x.reshape(len(x), -1) / top, dtype=torch.float32)

    return images_of(x_train), torch.tensor(y_train).long(), images_of(x_test), torch.tensor(y_test).long()


def train(model: nn.Module, data: tuple[Tensor, Tensor, Tensor, Tensor], epochs: int, name: str) -> list[float]:
    """Test accuracy after each epoch."""
    x, y, x_test, y_test = data
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    accuracy = []
    progress = tqdm(range(epochs), desc=name)
    for _ in progress:
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            accuracy.append(float((model(x_test).argmax(1) == y_test).float().mean()))
        progress.set_postfix(accuracy=f"{accuracy[-1]:.3f}")
    return accuracy


def plot(curves: dict[str, list[float]], path: Path) -> None:
    """Test error by epoch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2))
    for name, accuracy in curves.items():
        axes.plot(range(1, len(accuracy) + 1), 100 * (1 - np.array(accuracy)), marker=".", label=name)
    axes.set(xlabel="epoch", ylabel="test error (%)", yscale="log")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    print(f"figure saved to {path}")


def main() -> None:
    """Train both networks and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--features", type=int, default=60)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--figure", type=Path, default=FIGURES / "deq_digits.png")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    data = load(arguments.data)
    inputs, classes = data[0].shape[1], int(data[1].max()) + 1
    equilibrium = Equilibrium(inputs, arguments.features, classes)
    equilibrium.layer.tune_step(data[0][:64])
    budget = sum(p.numel() for p in equilibrium.parameters())
    network = explicit(inputs, classes, budget)
    curves = {
        "equilibrium": train(equilibrium, data, arguments.epochs, "equilibrium"),
        "explicit": train(network, data, arguments.epochs, "explicit"),
    }
    for name, model in (("equilibrium", equilibrium), ("explicit", network)):
        count = sum(p.numel() for p in model.parameters())
        print(f"{name:12s} {count:6d} parameters   test accuracy {100 * curves[name][-1]:.2f} %")
    certificate = equilibrium.layer.certificate()
    print(f"certified: sigma_min(I - D W) >= {certificate.lower_bound:.3f} for all D, by {certificate.criterion}")
    plot(curves, arguments.figure)


if __name__ == "__main__":
    main()

"""A two-layer ReLU network trained to its global optimum, and gradient descent that tries to get there.

Left: a plain network on 10 rows; every pattern of active rows is listed, and one convex programme gives the least
training loss that any network of this kind can have. Right: with batch normalization on 6 rows in 9 dimensions, where
the optimum is known in closed form. Adam starts from 12 random networks of 30 neurons each.

Run: python examples/convex_networks.py [--steps 1500] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from conelayers.convex_networks import ConvexReLU, batch_norm_closed_form

STARTS, NEURONS = 12, 30


def adam(X: Tensor, y: Tensor, weight_decay: float, batch_norm: bool, steps: int) -> Tensor:
    """Regularised training losses of all starts at every step, shape (steps, STARTS)."""
    generator = torch.Generator().manual_seed(0)
    n, d = X.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first, second = normal(STARTS, d, NEURONS) / d**0.5, normal(STARTS, NEURONS, 1) / NEURONS**0.5
    gamma, alpha = normal(STARTS, 1, NEURONS), normal(STARTS, 1, NEURONS)
    weights = [first, second, gamma, alpha] if batch_norm else [first, second]
    for weight in weights:
        weight.requires_grad_()
    decayed = weights[1:] if batch_norm else weights  # the first layer's scale is free under batch normalization
    optimizer = torch.optim.Adam(weights, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        inner = X @ first
        if batch_norm:
            centred = inner - inner.mean(1, keepdim=True)
            inner = gamma * centred / centred.norm(dim=1, keepdim=True) + alpha / n**0.5
        outputs = (inner.relu() @ second)[..., 0]
        decay = sum(weight.square().sum((1, 2)) for weight in decayed)
        loss = (outputs - y).square().sum(-1) / 2 + weight_decay / 2 * decay
        losses.append(loss.detach())
        optimizer.zero_grad()
        loss.sum().backward()  # the starts do not share weights
        optimizer.step()
        schedule.step()
    return torch.stack(losses)


def closed_form_value(X: Tensor, y: Tensor, weight_decay: float) -> float:
    """The objective of the closed form's network."""
    network = batch_norm_closed_form(X, y, weight_decay)
    squares = len(X) * (network[1].weight.square().sum() + network[1].bias.square().sum())
    decay = squares + network[3].weight.square().sum()
    return float(((network(X)[:, 0] - y).square().sum() + weight_decay * decay).detach() / 2)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "convex_networks.png")
    options = parser.parse_args(argv)

    rng = np.random.default_rng(0)
    numbers = {}
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    cases = [("plain", 10, 3, 0.1, False), ("batch_norm", 6, 9, 0.3, True)]
    for panel, (name, n, d, decay, batch_norm) in zip(panels, cases, strict=True):
        X, y = torch.tensor(rng.standard_normal((n, d))), torch.tensor(rng.standard_normal(n))
        model, weight_decay = ConvexReLU(X, batch_norm=batch_norm), torch.tensor(decay, dtype=torch.float64)
        v, w = model(y, weight_decay)
        programme = float(model.objective(y, weight_decay, v, w))
        losses = adam(X, y, decay, batch_norm, options.steps)
        numbers[name], numbers[f"{name}_adam"] = programme, float(losses[-1].min())
        neurons = len(model.network(v, w)[0].weight)
        print(f"{name}: programme {programme:.8f} ({len(model.patterns)} patterns), {neurons} neurons")
        print(f"  Adam's best of {STARTS}: {losses[-1].min():.8f}, worst {losses[-1].max():.5f}")
        if batch_norm:
            numbers["closed_form"] = closed_form_value(X, y, decay)
            print(f"  closed form {numbers['closed_form']:.8f}")
        panel.loglog(1 + torch.arange(len(losses)), losses - programme, color="C0", alpha=0.5, linewidth=0.8)
        title = "batch normalization" if batch_norm else "plain"
        panel.set(xlabel="steps of Adam", ylabel="loss above the programme's", title=f"{title}: {STARTS} starts")
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return numbers


if __name__ == "__main__":
    main()

"""Few-shot regression: MAML and ANIL learn a start from which a few gradient steps fit a new sine wave.

Run: python examples/bilevel_few_shot.py [--steps 300] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from conelayers.bilevel import adapt


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(1, 40), torch.nn.ReLU(), torch.nn.Linear(40, 40), torch.nn.ReLU(), torch.nn.Linear(40, 1)
    )


def task(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    amplitude = 0.5 + 2 * torch.rand((), generator=generator)
    phase = 3.14 * torch.rand((), generator=generator)
    x = 10 * torch.rand(30, 1, generator=generator) - 5
    y = amplitude * torch.sin(x - phase)
    return x[:10], y[:10], x[10:], y[10:]


def train(steps: int, only: set[str] | None, generator: torch.Generator) -> tuple[torch.nn.Module, list[float]]:
    net, values = network(), []
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        total = torch.zeros(())
        for _ in range(4):
            x, y, x_query, y_query = task(generator)
            moved = adapt(lambda p, x=x, y=y: error(net, p, x, y), dict(net.named_parameters()), 1, 0.02, only)
            total = total + error(net, moved, x_query, y_query) / 4
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        values.append(float(total.detach()))
    return net, values


def error(net: torch.nn.Module, parameters, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (torch.func.functional_call(net, dict(parameters), (x,)) - y).square().mean()


def evaluate(net: torch.nn.Module, only: set[str] | None) -> float:
    generator, errors = torch.Generator().manual_seed(123), []
    for _ in range(100):
        x, y, x_query, y_query = task(generator)
        moved = adapt(lambda p, x=x, y=y: error(net, p, x, y), dict(net.named_parameters()), 10, 0.02, only, True)
        errors.append(float(error(net, moved, x_query, y_query).detach()))
    return sum(errors) / len(errors)


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "bilevel_few_shot.png")
    options = parser.parse_args(argv)

    head = {"4.weight", "4.bias"}
    outcome, curves = {"untrained": evaluate(network(), None)}, {}
    for name, only in (("MAML", None), ("ANIL", head)):
        net, curves[name] = train(options.steps, only, torch.Generator().manual_seed(1))
        outcome[name] = evaluate(net, only)
    print("error on new tasks after ten steps: " + ", ".join(f"{k} {v:.3f}" for k, v in outcome.items()))

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, values in curves.items():
        smooth = torch.tensor(values).unfold(0, min(20, len(values)), 1).mean(1)
        ax.semilogy(smooth, label=name)
    ax.set(xlabel="outer step", ylabel="query error", title="Few-shot sine regression")
    ax.legend()
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return outcome


if __name__ == "__main__":
    main()

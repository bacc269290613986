"""A quadratic programme as a layer: learn how strongly to smooth each part of a signal.

Total variation denoising  minimise 1/2||x - y||^2 + sum_i w_i |x_{i+1} - x_i|  with one weight per edge. The signals
are piecewise constant and may jump only at every tenth sample, which the layer does not know. Training on noisy and
clean pairs finds small weights where jumps happen and large ones elsewhere.

Run: python examples/quadratic_programme.py [--steps 60] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import torch
from tqdm import trange

from conelayers import CvxpyLayer

LENGTH, PIECE = 40, 10


def signals(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and noisy signals, shape (count, LENGTH)."""
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randn(count, LENGTH // PIECE, generator=generator, dtype=torch.float64)
    clean = levels.repeat_interleave(PIECE, dim=1)
    return clean, clean + 0.4 * torch.randn(clean.shape, generator=generator, dtype=torch.float64)


def denoiser() -> CvxpyLayer:
    """Parameters: signal (LENGTH,), weights (LENGTH - 1,)."""
    x, y, w = cp.Variable(LENGTH), cp.Parameter(LENGTH), cp.Parameter(LENGTH - 1, nonneg=True)
    objective = cp.sum_squares(x - y) / 2 + cp.sum(cp.multiply(w, cp.abs(cp.diff(x))))
    return CvxpyLayer(cp.Problem(cp.Minimize(objective)), [y, w], [x])


def main() -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    figures = Path(os.environ.get("CONELAYERS_FIGURES", "examples/figures"))
    parser.add_argument("--figure", type=Path, default=figures / "quadratic_programme.png")
    options = parser.parse_args()

    layer = denoiser()
    log_weights = torch.full((LENGTH - 1,), -0.5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_weights], lr=0.1)
    clean, noisy = signals(32, seed=0)
    errors = []
    for _ in (progress := trange(options.steps, desc="weights", ncols=90)):
        loss = ((layer(noisy, log_weights.exp())[0] - clean) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
        progress.set_postfix(error=f"{errors[-1]:.4f}")

    test_clean, test_noisy = signals(64, seed=1)
    with torch.no_grad():
        (learned,) = layer(test_noisy, log_weights.exp())
        # The best single weight, by a grid: what can be had without learning one weight per edge.
        grid = [
            layer(test_noisy, torch.full((LENGTH - 1,), w, dtype=torch.float64))[0] for w in (0.3, 0.6, 1.0, 1.5, 2.5)
        ]
    error = float(((learned - test_clean) ** 2).mean())
    best_single = min(float(((x - test_clean) ** 2).mean()) for x in grid)
    print(f"test error with learned weights: {error:.4f}, with the best single weight: {best_single:.4f}")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    left.plot(errors)
    left.set(xlabel="step", ylabel="mean squared error", title="Training")
    middle.bar(range(1, LENGTH), log_weights.detach().exp())
    middle.set(xlabel="edge", ylabel="weight", title="Learned weights")
    right.plot(test_noisy[0], ".", label="noisy")
    right.plot(test_clean[0], label="clean")
    right.plot(learned[0], label="layer")
    right.legend()
    right.set(title="A test signal")
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return {"error": error, "best_single": best_single}


if __name__ == "__main__":
    main()

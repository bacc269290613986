"""The Lasso's penalty in a dozen evaluations: a coarse ladder, then gradients, against a grid of a hundred points.

Run: python examples/lasso_one_penalty.py [--samples 300] [--figure FILE]
"""

import argparse
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
from sklearn.datasets import make_regression
from sklearn.linear_model import LassoCV

from conelayers.model_selection import LassoImplicitCV


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "lasso_one_penalty.png")
    options = parser.parse_args(argv)

    X, y = make_regression(options.samples, 1000, n_informative=20, noise=30.0, random_state=0)
    began = time.perf_counter()
    ours = LassoImplicitCV(cv=5).fit(X, y)
    middle = time.perf_counter()
    grid = LassoCV(cv=5).fit(X, y)
    seconds = (middle - began, time.perf_counter() - middle)
    best = float(grid.mse_path_.mean(1).min())
    ours_row = ("implicit", ours.alpha_, ours.best_criterion_, seconds[0], ours.n_iter_)
    for name, alpha, error, time_, count in (ours_row, ("grid", grid.alpha_, best, seconds[1], len(grid.alphas_))):
        print(f"{name:9s} alpha {alpha:.4g}  error {error:.6g}  {time_:.2f} s, {count} evaluations")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    ax.plot(grid.alphas_, grid.mse_path_.mean(1), color="tab:orange", linewidth=1, label="LassoCV")
    ours.history_.plot(ax, label="LassoImplicitCV, first evaluation dark")
    ax.set(ylabel="cross-validated error", yscale="log", title="Search for one penalty")
    ax.legend()
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return {"ours": ours.best_criterion_, "grid": best}


if __name__ == "__main__":
    main()

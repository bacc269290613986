"""Tune any model declared in CVXPY: the two penalties of a fused Lasso, by the gradient of a held-out error.

A piecewise constant, mostly zero signal is seen through noise. The model penalises jumps and nonzeros; `tune` finds
both penalties through the `CvxpyLayer`, which knows nothing of the Lasso.

Run: python examples/lasso_tune_cvxpy.py [--length 60] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch

from conelayers import CvxpyLayer
from conelayers.model_selection import LBFGS, tune


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=60)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "lasso_tune_cvxpy.png")
    options = parser.parse_args(argv)

    n, rng = options.length, np.random.default_rng(0)
    truth = np.zeros(n)
    truth[n // 6 : n // 3], truth[n // 2 : 2 * n // 3] = 2.0, -1.5
    seen, held = truth + 0.6 * rng.standard_normal((2, n))

    x = cp.Variable(n)
    sparsity, jumps = (cp.Parameter(nonneg=True, name=name) for name in ("sparsity", "jumps"))
    objective = cp.sum_squares(x - seen) / 2 + sparsity * cp.norm1(x) + jumps * cp.norm1(cp.diff(x))
    layer = CvxpyLayer(cp.Problem(cp.Minimize(objective)), [sparsity, jumps], [x])
    target = torch.tensor(held)
    result = tune(
        layer,
        lambda x: (x - target).square().mean(),
        {"sparsity": (1e-3, 2.0), "jumps": (1e-3, 10.0)},
        search=LBFGS(max_evaluations=30),
    )
    values = {name: torch.tensor(v, dtype=torch.float64) for name, v in result.hyperparameters.items()}
    estimate = layer(**values)[0].numpy()
    error, raw = float(np.mean((estimate - truth) ** 2)), float(np.mean((seen - truth) ** 2))
    print(f"penalties {result.hyperparameters}, {len(result.history)} evaluations")
    print(f"error to the truth: {error:.4f} (raw data {raw:.4f})")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.plot(seen, ".", color="0.7", label="data")
    left.step(np.arange(n), truth, "k", linewidth=0.8, where="mid", label="truth")
    left.step(np.arange(n), estimate, where="mid", label="tuned model")
    left.legend()
    left.set(title="Fused Lasso")
    result.history.plot(right)
    right.set(title="Path of the search")
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return {"error": error, "raw": raw}


if __name__ == "__main__":
    main()

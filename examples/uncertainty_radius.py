"""How robust should a regression be? The radius of its ambiguity set, by the gradient of a held-out error.

Least absolute deviations on few rows of the diabetes data, against the worst distribution within a Wasserstein radius
that may move features, not the target. The worst-case mean is a CVXPY expression, the radius a parameter of the
set of moves, and `tune` follows the derivative of the held-out error in it.

Run: python examples/uncertainty_radius.py [--seeds 0 1] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor

from conelayers import CvxpyLayer
from conelayers.model_selection import SearchResult, tune
from conelayers.uncertainty import Ellipsoid, worst_case_mean

TRAINING, HELD_OUT = 60, 150
BOUNDS = (1e-4, 3.0)


def split(seed: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Features and targets to train, to tune and to test, in units of the training rows' standard deviations."""
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    X, y = X[order], y[order]
    X = (X - X[:TRAINING].mean(0)) / X[:TRAINING].std(0)
    y = (y - y[:TRAINING].mean()) / y[:TRAINING].std()
    cuts = (slice(0, TRAINING), slice(TRAINING, TRAINING + HELD_OUT), slice(TRAINING + HELD_OUT, None))
    return tuple((torch.tensor(X[rows]), torch.tensor(y[rows])) for rows in cuts)


def robust_regression(X: Tensor, y: Tensor) -> CvxpyLayer:
    """Radius -> coefficients and intercept."""
    n = X.shape[1]
    coef, intercept, radius = cp.Variable(n), cp.Variable(), cp.Parameter(nonneg=True)
    only_features = np.eye(n + 1, n)
    moves = Ellipsoid(np.zeros(n + 1), radius * only_features)
    slope = cp.hstack([coef, np.array([-1.0])])
    error = worst_case_mean([(slope, intercept), (-slope, -intercept)], torch.column_stack([X, y]), moves)
    return CvxpyLayer(cp.Problem(cp.Minimize(error)), [radius], [coef, intercept])


def mean_error(data: tuple[Tensor, Tensor], coef: Tensor, intercept: Tensor) -> Tensor:
    return (data[0] @ coef + intercept - data[1]).abs().mean()


def experiment(seed: int) -> tuple[dict[str, float], CvxpyLayer, SearchResult, tuple[tuple[Tensor, Tensor], ...]]:
    """Test errors with and without the radius, and what they come from."""
    training, held_out, test = data = split(seed)
    layer = robust_regression(*training)
    result = tune(layer, lambda coef, intercept: mean_error(held_out, coef, intercept), {"radius": BOUNDS})
    radius = float(result.hyperparameters["radius"])
    plain, tuned = (float(mean_error(test, *layer(torch.tensor(r, dtype=torch.float64)))) for r in (BOUNDS[0], radius))
    numbers = {"radius": radius, "plain": plain, "tuned": tuned, "below": 1 - tuned / plain, "held_out": result.value}
    return numbers, layer, result, data


def plot(path: Path, layer: CvxpyLayer, result: SearchResult, data: tuple[tuple[Tensor, Tensor], ...]) -> None:
    """Both errors along the radius, and the search's evaluations."""
    radii = torch.logspace(*np.log10(BOUNDS), 80, dtype=torch.float64)
    coefs, intercepts = layer(radii)
    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for (X, y), color, name in ((data[1], "C0", "held out"), (data[2], "C1", "test")):
        errors = (coefs @ X.T + intercepts[:, None] - y).abs().mean(1)
        axes.plot(radii, errors, color, label=name)
    trials = [(float(np.exp(trial.point[0])), trial.value) for trial in result.history.trials]
    axes.plot(*zip(*trials, strict=True), "ko", markersize=4, label="evaluations of the search")
    axes.set(xscale="log", xlabel="Wasserstein radius", ylabel="mean absolute error, standard deviations")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"figure: {path}")


def main(argv: list[str] | None = None) -> dict[int, dict[str, float]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "uncertainty_radius.png")
    options = parser.parse_args(argv)
    found = {}
    for seed in options.seeds:
        found[seed], layer, result, data = experiment(seed)
        numbers = found[seed]
        print(
            f"seed {seed}: radius {numbers['radius']:.3g} in {len(result.history)} evaluations; test error "
            f"{numbers['tuned']:.4f}, without it {numbers['plain']:.4f} ({-100 * numbers['below']:+.1f} %)"
        )
        if seed == options.seeds[0]:
            plot(options.figure, layer, result, data)
    return found


if __name__ == "__main__":
    main()

"""A penalty for each block of features, or for each feature: hyperparameters by the dozen, where no grid can go.

Features come in twenty blocks, of which two matter. The penalties are shrunk towards the best
single one, as strongly as folds that take no part in the search say; what counts is the error on samples that were
never seen.

Run: python examples/lasso_many_penalties.py [--features 200] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from conelayers.model_selection import LassoImplicitCV, WeightedLassoImplicitCV


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=200)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "lasso_many_penalties.png")
    options = parser.parse_args(argv)

    rng, p = np.random.default_rng(0), options.features
    block = np.arange(p) * 20 // p
    X = rng.standard_normal((2200, p))
    beta = np.where(block < 2, rng.standard_normal(p), 0)
    y = X @ beta + 2 * rng.standard_normal(2200)
    train, unseen = slice(0, 200), slice(200, None)
    models = {
        "single": LassoImplicitCV(cv=5),
        "blocks": WeightedLassoImplicitCV(cv=5, groups=block),
        "features": WeightedLassoImplicitCV(cv=5),
    }
    errors = {}
    for name, model in models.items():
        model.fit(X[train], y[train])
        errors[name] = float(np.mean((model.predict(X[unseen]) - y[unseen]) ** 2))
        strength = f", strength {model.strength_:g}" if name != "single" else ""
        print(f"{name:9s} error on unseen data {errors[name]:.3f} (noise alone: 4){strength}")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.semilogy(models["features"].alpha_, ".", markersize=3, label="one per feature")
    left.semilogy(models["blocks"].alpha_, drawstyle="steps-mid", label="one per block")
    left.axhline(models["single"].alpha_, color="k", linewidth=0.8, label="single")
    left.set(xlabel="feature", ylabel="penalty", title="Penalties (the first two blocks matter)")
    left.legend()
    right.bar(list(errors), list(errors.values()), color=["0.6", "tab:orange", "tab:blue"])
    right.axhline(4, color="k", linewidth=0.8)
    right.set(ylabel="error on unseen data", title="What it is worth")
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return errors


if __name__ == "__main__":
    main()

"""One penalty per feature: thousands of hyperparameters by gradients, where no grid can go.

The penalties start from the best single one and follow the gradient of the cross-validated error until a fold that
takes no part says stop; what counts is the error on samples that were never seen. Features that matter get small
penalties and lose the Lasso's bias.

The data here have little noise, which is where this pays. With more noise (standard deviation 4 instead of 1) the
many penalties fit the validation folds and are no better, or slightly worse, than the single one.

Run: python examples/lasso_many_penalties.py [--features 1000] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from conelayers.model_selection import LassoImplicitCV, WeightedLassoImplicitCV


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=1000)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "lasso_many_penalties.png")
    options = parser.parse_args(argv)

    rng = np.random.default_rng(0)
    X = rng.standard_normal((1300, options.features))
    beta = np.zeros(options.features)
    beta[:15] = np.linspace(1, 4, 15)
    y = X @ beta + rng.standard_normal(1300)
    train, unseen = slice(0, 300), slice(300, None)
    single = LassoImplicitCV(cv=5).fit(X[train], y[train])
    each = WeightedLassoImplicitCV(cv=5).fit(X[train], y[train])
    errors = {
        name: float(np.mean((model.predict(X[unseen]) - y[unseen]) ** 2))
        for name, model in (("single", single), ("each", each))
    }
    print(f"cross-validated error: single {single.best_criterion_:.3f}, each {each.best_criterion_:.3f}")
    print(f"error on unseen data:  single {errors['single']:.3f}, each {errors['each']:.3f} (noise alone: 1)")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.semilogy(each.alpha_, ".", markersize=2)
    left.semilogy(np.arange(15), each.alpha_[:15], "o", markersize=4, label="features that matter")
    left.axhline(single.alpha_, color="k", linewidth=0.8, label="single penalty")
    left.set(xlabel="feature", ylabel="penalty", title="Penalties")
    left.legend()
    right.plot(beta[:25], "k_", markersize=10, label="truth")
    right.plot(single.coef_[:25], "x", label="single penalty")
    right.plot(each.coef_[:25], ".", label="one per feature")
    right.set(xlabel="feature", ylabel="coefficient", title="Coefficients")
    right.legend()
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return errors


if __name__ == "__main__":
    main()

"""One penalty for each of 5,000 features: hyperparameters by the thousand, where no grid can go.

Eight groups of five features matter among a thousand groups; nothing says which. Four samples keep the comparison fair:
coefficients are fitted to the first; the loss on the second is minimised over all penalties by gradients, behind priors
that hold their logarithms near the best single penalty; the third chooses the strength of the prior; what counts is
the loss on the fourth, which nobody has seen. The single penalty is chosen on the second and third together.

Run: python examples/lasso_many_penalties.py [--features 5000] [--figure FILE]
"""

import argparse
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from conelayers.lasso import ProximalModel, Quadratic, WeightedL1, WorkingSet
from conelayers.model_selection import LBFGS, HeldOut, LogSpace, Safeguarded, Shared, Shrunk

FIT, SEARCH, JUDGE, TEST = slice(0, 600), slice(600, 1200), slice(1200, 1500), slice(1500, 6500)
STRENGTHS = (0.1, 0.01, 0.001)


def data(p: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X, y and the group of each feature; noise of variance one."""
    rng, group = np.random.default_rng(seed), np.arange(p) // 5
    chosen = np.isin(group, rng.choice(p // 5, 8, replace=False))
    beta = np.where(chosen, rng.choice([-1, 1], p) * rng.uniform(0.2, 0.8, p), 0.0)
    X = rng.standard_normal((6500, p))
    return X, X @ beta + rng.standard_normal(6500), group


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=5000)
    default = Path(os.environ.get("CONELAYERS_FIGURES", Path(__file__).parent / "figures"))
    parser.add_argument("--figure", type=Path, default=default / "lasso_many_penalties.png")
    options = parser.parse_args(argv)

    p = options.features
    X, y, group = data(p)
    model = ProximalModel(Quadratic(), WeightedL1(), solver=WorkingSet(tol=1e-6))
    largest = np.abs(X[FIT].T @ (y[FIT] - y[FIT].mean())).max() / 600
    space = LogSpace.between({"alpha": (np.full(p, 1e-4 * largest), np.full(p, 10 * largest))})

    def loss_on(*samples: slice) -> HeldOut:
        rows = np.r_[samples]
        return HeldOut(model, space, X[FIT], y[FIT], X[rows], y[rows])

    ladder = np.log(largest) + np.linspace(0, np.log(1e-2), 8)[:, None]
    single = Safeguarded(points=ladder).run(Shared(loss_on(SEARCH, JUDGE), np.zeros(p, dtype=int)))
    chosen = {"single": np.full(p, single.point[0])}
    for name, index in (("groups", group), ("features", np.arange(p))):
        center = np.full(index.max() + 1, single.point[0])
        path = [center]
        for strength in STRENGTHS:
            prior = Shrunk(Shared(loss_on(SEARCH), index), center, strength * single.value)
            path.append(LBFGS(max_evaluations=20).run(prior, path[-1]).point)
        judged = [loss_on(JUDGE).evaluate(point[index], gradient=False).value for point in path]
        chosen[name] = path[int(np.argmin(judged))][index]
    errors, found = {}, {}
    for name, point in chosen.items():
        outcome = loss_on(TEST).evaluate(point, gradient=False)
        errors[name], found[name] = outcome.value, int((outcome.state[0] != 0).sum())
        count = {"single": 1, "groups": p // 5, "features": p}[name]
        print(f"{count:5d} penalties: loss {errors[name]:.3f} on unseen data (noise: 1), {found[name]} features used")

    options.figure.parent.mkdir(parents=True, exist_ok=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    left.semilogy(np.exp(chosen["features"]), ".", markersize=3, label="one per feature")
    left.semilogy(np.exp(chosen["groups"]), ".", markersize=3, label="one per group of five")
    left.axhline(np.exp(single.point[0]), color="k", linewidth=0.8, label="single")
    left.set(xlabel="feature", ylabel="penalty", title="Penalties found by gradients")
    left.legend(fontsize="small")
    bars = right.bar([f"{n}\n{k} used" for n, k in found.items()], list(errors.values()))
    for bar, color in zip(bars, ("0.6", "tab:orange", "tab:blue"), strict=True):
        bar.set_color(color)
    right.axhline(1, color="k", linewidth=0.8)
    right.set(ylabel="loss on unseen data", title="What they are worth (line: noise alone)")
    figure.savefig(options.figure, dpi=130)
    plt.close(figure)
    print(f"figure: {options.figure}")
    return errors


if __name__ == "__main__":
    main()

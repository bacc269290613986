"""Hyperparameter selection against grids and random search, all in one process, alternating, medians of the runs.

    python benchmarks/lasso.py solvers one two many large million [--repeat 3] [--small]

solvers   one fit near the optimum: scikit-learn, skglm, celer (where installed) and the solvers of this package
one       one hyperparameter: LassoImplicitCV, scikit-learn's LassoCV, a warm-started 100-point grid with our solver
two       two hyperparameters: ElasticNetImplicitCV, ElasticNetCV, a 2-D grid with our solver, random search, optuna
many      one penalty per feature: loss on data that took no part in the search
large     20,000 x 50,000, density 1e-3
million   one million features: solving, and the cost of a hypergradient beside it
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from conelayers.lasso import L1, ElasticNet, ProximalModel, Quadratic, WorkingSet, as_design
from conelayers.model_selection import (
    CrossValidation,
    ElasticNetImplicitCV,
    GridSearch,
    HeldOut,
    LassoImplicitCV,
    LogSpace,
    Safeguarded,
    WeightedLassoImplicitCV,
)


def text_like(n: int, p: int, density: float, active: int, seed: int = 0):
    """Sparse Gaussian design and targets with a signal-to-noise ratio of about ten."""
    rng = np.random.default_rng(seed)
    X = sp.random(n, p, density=density, format="csc", random_state=rng, data_rvs=rng.standard_normal)
    beta = np.zeros(p)
    beta[rng.choice(p, active, replace=False)] = rng.standard_normal(active)
    signal = X @ beta
    return X, signal + 0.3 * np.std(signal) * rng.standard_normal(n)


def alternate(runs: dict[str, Callable[[], object]], repeat: int) -> dict[str, tuple[float, object]]:
    """Median seconds and last result of each run, taken in turns so that a busy machine treats all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, object] = {}
    for _ in range(repeat):
        for name, run in runs.items():
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results[name] = run()
            times[name].append(time.perf_counter() - began)
    return {name: (float(np.median(t)), results[name]) for name, t in times.items()}


def report(title: str, timed: dict[str, tuple[float, object]], quality: dict[str, object], ours: str) -> None:
    print(f"\n{title}")
    for name, (seconds, _) in timed.items():
        ratio = seconds / timed[ours][0]
        print(f"  {name:36s} {seconds:9.3f} s   {ratio:7.2f} x   {json.dumps(quality.get(name))}")


def solvers(args: argparse.Namespace) -> None:
    from sklearn.linear_model import Lasso

    X, y = text_like(3000, 12000, 1e-2, 100)
    alpha = 0.027 * np.abs(X.T @ (y - y.mean())).max() / 3000
    runs: dict[str, Callable] = {
        "scikit-learn, tol 1e-4": lambda: Lasso(alpha=alpha).fit(X, y).coef_,
        "scikit-learn, tol 1e-8": lambda: Lasso(alpha=alpha, tol=1e-8, max_iter=10**5).fit(X, y).coef_,
    }
    model = ProximalModel(Quadratic(), L1())
    for tol in (1e-4, 1e-8, 1e-12):
        runs[f"WorkingSet, tol {tol:g}"] = lambda tol=tol: model.with_tolerance(tol).fit(X, y, alpha).coef.numpy()
    try:
        import skglm

        runs["skglm, tol 1e-8"] = lambda: skglm.Lasso(alpha=alpha, tol=1e-8).fit(X, y).coef_
    except ImportError:
        pass
    try:
        import celer

        runs["celer, tol 1e-8"] = lambda: celer.Lasso(alpha=alpha, tol=1e-8).fit(X, y).coef_
    except ImportError:
        pass
    first = {name: alternate({name: run}, 1)[name][0] for name, run in runs.items()}
    timed = alternate(runs, args.repeat)
    design, target = as_design(X), torch.as_tensor(y)
    problem = model.problem(design, target, alpha)
    quality = {}
    for name, (_, coef) in timed.items():
        b = torch.as_tensor(np.asarray(coef))
        eta = design.matmul(b)
        intercept = (target - eta).mean()
        result = problem.result(b, intercept, 0)
        quality[name] = {"gap": result.gap, "violation": result.violation, "first call s": round(first[name], 3)}
    report("one fit, 3000 x 12000", timed, quality, "WorkingSet, tol 1e-08")


def _grid(X, y, size: int, penalty=None, bounds=None) -> object:
    largest = np.abs(X.T @ (y - y.mean())).max() / X.shape[0]
    space = LogSpace.between(bounds or {"alpha": (1e-3 * largest, largest)})
    model = ProximalModel(Quadratic(), penalty or L1(), solver=WorkingSet(tol=1e-6))
    return GridSearch(size=size, max_evaluations=10**6).run(CrossValidation(model, space, X, y, cv=5))


def one(args: argparse.Namespace) -> None:
    from sklearn.linear_model import LassoCV

    X, y = text_like(*((600, 2400) if args.small else (3000, 12000)), 1e-2, 100)
    runs = {
        "LassoImplicitCV": lambda: LassoImplicitCV(cv=5).fit(X, y),
        "LassoCV, 100 points": lambda: LassoCV(cv=5).fit(X, y),
        "warm-started grid, 100 points": lambda: _grid(X, y, 100),
    }
    runs["LassoImplicitCV"]()
    timed = alternate(runs, args.repeat)
    quality = {
        "LassoImplicitCV": [timed["LassoImplicitCV"][1].best_criterion_, timed["LassoImplicitCV"][1].alpha_],
        "LassoCV, 100 points": [
            timed["LassoCV, 100 points"][1].mse_path_.mean(1).min(),
            timed["LassoCV, 100 points"][1].alpha_,
        ],
        "warm-started grid, 100 points": timed["warm-started grid, 100 points"][1].value,
    }
    report("one hyperparameter, 5 folds", timed, quality, "LassoImplicitCV")


def two(args: argparse.Namespace) -> None:
    from sklearn.linear_model import ElasticNetCV

    X, y = text_like(*((300, 600) if args.small else (1000, 4000)), 1e-2, 40)
    ratios = np.linspace(0.1, 1, 10)
    largest = np.abs(X.T @ (y - y.mean())).max() / X.shape[0]
    bounds = {"l1": (1e-3 * largest, largest), "l2": (1e-6 * largest, 10 * largest)}
    model = ProximalModel(Quadratic(), ElasticNet(), solver=WorkingSet(tol=1e-6))
    criterion = CrossValidation(model, LogSpace.between(bounds), X, y, cv=5)

    def random_search() -> float:
        rng = np.random.default_rng(0)
        points = rng.uniform(criterion.space.lower, criterion.space.upper, (60, 2))
        return GridSearch(points=points, max_evaluations=10**6).run(criterion).value

    def with_optuna() -> float:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        low, high = criterion.space.lower, criterion.space.upper

        def objective(trial) -> float:
            point = [trial.suggest_float(name, low[i], high[i]) for i, name in enumerate(("l1", "l2"))]
            return criterion.evaluate(np.array(point), gradient=False).value

        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        study.optimize(objective, n_trials=60)
        return study.best_value

    runs: dict[str, Callable] = {
        "ElasticNetImplicitCV": lambda: ElasticNetImplicitCV(cv=5).fit(X, y).best_criterion_,
        "ElasticNetCV, 10 x 100": lambda: ElasticNetCV(cv=5, l1_ratio=ratios).fit(X, y).mse_path_.mean(-1).min(),
        "warm-started grid, 30 x 30": lambda: _grid(X, y, 30, ElasticNet(), bounds).value,
        "random search, 60": random_search,
    }
    try:
        import optuna  # noqa: F401

        runs["optuna TPE, 60"] = with_optuna
    except ImportError:
        pass
    runs["ElasticNetImplicitCV"]()
    timed = alternate(runs, args.repeat)
    report("two hyperparameters", timed, {k: v for k, (_, v) in timed.items()}, "ElasticNetImplicitCV")


def many(args: argparse.Namespace) -> None:
    X, y = text_like(*((600, 1000) if args.small else (2000, 4000)), 1e-2, 60)
    half = X.shape[0] // 2
    rows = X.tocsr()
    single = LassoImplicitCV().fit(rows[:half], y[:half])
    began = time.perf_counter()
    each = WeightedLassoImplicitCV().fit(rows[:half], y[:half])
    seconds = time.perf_counter() - began
    errors = [float(np.mean((m.predict(rows[half:]) - y[half:]) ** 2)) for m in (single, each)]
    print(f"\none penalty per feature ({X.shape[1]}): {seconds:.2f} s, {each.n_iter_} evaluations")
    print(f"  cross-validated  single {single.best_criterion_:.4f}   each {each.best_criterion_:.4f}")
    print(f"  unseen data      single {errors[0]:.4f}   each {errors[1]:.4f}")


def large(args: argparse.Namespace) -> None:
    X, y = text_like(*((4000, 10000) if args.small else (20000, 50000)), 1e-3, 200)
    runs = {
        "LassoImplicitCV": lambda: LassoImplicitCV(cv=5, eps=1e-2).fit(X, y).best_criterion_,
        "warm-started grid, 30 points": lambda: _grid(X, y, 30).value,
    }
    timed = alternate(runs, 1)
    report(
        f"{X.shape[0]} x {X.shape[1]}, density 1e-3", timed, {k: v for k, (_, v) in timed.items()}, "LassoImplicitCV"
    )


def million(args: argparse.Namespace) -> None:
    p = 10**5 if args.small else 10**6
    X, y = text_like(10_000, p, 1e-4 if not args.small else 1e-3, 100)
    rows = X.tocsr()
    largest = np.abs(X.T @ (y - y.mean())).max() / X.shape[0]
    space = LogSpace.between({"alpha": (1e-2 * largest, largest)})
    parts = (rows[:8000], y[:8000], rows[8000:], y[8000:])
    held = HeldOut(ProximalModel(Quadratic(), L1(), solver=WorkingSet(tol=1e-6)), space, *parts)
    point = np.log([0.2 * largest])
    state = held.evaluate(point).state
    moved = point + 0.05
    timed = alternate(
        {
            "fit, cold": lambda: held.evaluate(moved, gradient=False),
            "fit, warm": lambda: held.evaluate(moved, gradient=False, state=state),
            "fit, warm, and hypergradient": lambda: held.evaluate(moved, state=state),
        },
        args.repeat,
    )
    support = int((held.evaluate(moved, state=state).state[0] != 0).sum())
    report(f"{p} features, support {support}", timed, {}, "fit, warm")
    began = time.perf_counter()
    found = Safeguarded(size=5).run(held)
    print(f"  whole search: {time.perf_counter() - began:.2f} s, {len(found.history)} evaluations")


def main() -> None:
    sections = {f.__name__: f for f in (solvers, one, two, many, large, million)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="+", choices=list(sections))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="sizes for a quick look")
    args = parser.parse_args()
    for name in args.sections:
        sections[name](args)


if __name__ == "__main__":
    main()

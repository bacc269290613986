"""Hyperparameter selection against grids, random search and optuna, all in one process, alternating.

    python benchmarks/lasso.py --part one [--repeat 3] [--small] [--long] [--figure FILE]

solvers         one fit near the optimum: scikit-learn, skglm, celer (where installed) and the solvers of this package
one             one penalty, 3,000 x 12,000 sparse: LassoImplicitCV, LassoCV, a warm-started grid with our solver
two             two penalties, 1,000 x 4,000: ElasticNetImplicitCV, ElasticNetCV, a 2-D grid with our solver, random
                search and optuna with our solver, GridSearchCV (with --long)
real            diabetes with all products of features: one and two penalties
classification  breast cancer and digits: LogisticImplicitCV, LogisticRegressionCV, GridSearchCV
text            20,000 x 50,000, density 1e-3: LassoImplicitCV, a grid with our solver, LassoCV (with --long)
million         one million features: solving, the cost of a hypergradient beside it, a whole search
many            dozens to thousands of penalties: loss on data that took no part in the search, over seeds

Every contestant minimises the same cross-validated criterion over the same folds. "to 0.1 %" is the time after which
its best value so far is within 0.1 % of the best value that any contestant found; scikit-learn's grids, which report
values only at their end, have got there at their end.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from lasso_many import many

from conelayers.lasso import L1, ElasticNet, ProximalModel, Quadratic, WorkingSet, as_design
from conelayers.model_selection import (
    CrossValidation,
    ElasticNetImplicitCV,
    GridSearch,
    HeldOut,
    History,
    LassoImplicitCV,
    LogisticImplicitCV,
    LogSpace,
    Safeguarded,
)

PATIENCE = 3.0  # seconds after which a contestant is not run again


@dataclass
class Run:
    """Outcome of one contestant: best value, and when its best value so far became what (None: at the end)."""

    value: float
    curve: list[tuple[float, float]] | None = None
    seconds: float = 0.0

    def time_to(self, goal: float) -> float | None:
        """When the value was at most `goal` for the first time."""
        for seconds, value in self.curve or [(self.seconds, self.value)]:
            if value <= goal:
                return seconds
        return None


def searched(history: History) -> Run:
    """A run with a history; evaluations at a looser tolerance do not count."""
    trials = [t for t in history.trials if np.isnan(t.tol)]
    return Run(min(t.value for t in trials), [(t.seconds, t.value) for t in trials])


def contest(title: str, runs: dict[str, Callable[[], Run]], repeat: int) -> dict[str, Run]:
    """Run all in turns, so that a busy machine treats all alike; print a table of medians. The first one is ours.

    Whoever takes longer than `PATIENCE` seconds runs once.
    """
    taken: dict[str, list[Run]] = {name: [] for name in runs}
    next(iter(runs.values()))()  # compiles kernels
    for turn in range(repeat):
        for name, run in runs.items():
            if turn and taken[name][0].seconds > PATIENCE:
                continue
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = run()
            result.seconds = time.perf_counter() - began
            taken[name].append(result)
    best = min(r.value for results in taken.values() for r in results)
    rows = {}
    for name, results in taken.items():
        reached = [r.time_to(1.001 * best) for r in results]
        to = None if None in reached else float(np.median([t for t in reached if t is not None]))
        rows[name] = (float(np.median([r.seconds for r in results])), to, results[-1].value / best - 1)
    ours = next(iter(rows.values()))
    print(f"\n{title}\n\n| | seconds | to 0.1 % | times slower | value above the best |\n|---|---|---|---|---|")
    for name, (seconds, to, above) in rows.items():
        slower = "never" if to is None or ours[1] is None else f"{to / ours[1]:.1f}"
        print(f"| {name} | {seconds:.3g} | {'–' if to is None else f'{to:.3g}'} | {slower} | {100 * above:.3f} % |")
    return {name: results[-1] for name, results in taken.items()}


def draw(runs: dict[str, Run], path: Path) -> None:
    import matplotlib.pyplot as plt

    best = min(r.value for r in runs.values())
    figure, ax = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    for name, run in runs.items():
        times, values = np.array(run.curve or [(run.seconds, run.value)]).T
        gap = 100 * (np.minimum.accumulate(values) / best - 1)
        ax.step(times, np.maximum(gap, 1e-3), where="post", marker="o" if len(times) == 1 else None, label=name)
    ax.axhline(0.1, color="0.7", linewidth=0.8)
    ax.set(xscale="log", yscale="log", xlabel="seconds", ylabel="% above the best value")
    ax.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def text_like(n: int, p: int, density: float, active: int, seed: int = 0):
    """Sparse Gaussian design and targets with a signal-to-noise ratio of about ten."""
    rng = np.random.default_rng(seed)
    X = sp.random(n, p, density=density, format="csc", random_state=rng, data_rvs=rng.standard_normal)
    beta = np.zeros(p)
    beta[rng.choice(p, active, replace=False)] = rng.standard_normal(active)
    signal = X @ beta
    return X, signal + 0.3 * np.std(signal) * rng.standard_normal(n)


def largest(X, y) -> float:
    """The penalty above which the Lasso is zero."""
    return float(np.abs(X.T @ (y - y.mean())).max() / X.shape[0])


def criterion(X, y, penalty, bounds, cv=5) -> CrossValidation:
    model = ProximalModel(Quadratic(), penalty, solver=WorkingSet(tol=1e-6))
    return CrossValidation(model, LogSpace.between(bounds), X, y, cv=cv)


def grid(criterion: CrossValidation, points: np.ndarray) -> Run:
    return searched(GridSearch(points=points, max_evaluations=10**6).run(criterion).history)


def ladder(criterion: CrossValidation, size: int) -> np.ndarray:
    return np.linspace(criterion.space.upper, criterion.space.lower, size)


def with_optuna(criterion: CrossValidation, trials: int) -> Run:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    low, high, names = criterion.space.lower, criterion.space.upper, criterion.space.names
    began, curve = time.perf_counter(), []

    def objective(trial) -> float:
        point = np.array([trial.suggest_float(name, low[i], high[i]) for i, name in enumerate(names)])
        value = criterion.evaluate(point, gradient=False).value
        curve.append((time.perf_counter() - began, value))
        return value

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=trials)
    return Run(study.best_value, curve)


def with_sparho(X, y) -> Run:
    """The search of sparho with celer inside, on the same folds; without an intercept, so targets are centred."""
    from sklearn.model_selection import KFold
    from sparho import L1 as SparhoL1
    from sparho import CrossVal, Problem, SquaredLoss, hoag_search
    from sparho.adapters import CelerLasso

    problem = Problem(SquaredLoss(), SparhoL1(), X, y - y.mean())
    folds = CrossVal(tuple(KFold(5).split(y[:, None])), warm_start=True)
    found = hoag_search(problem, largest(X, y) / 10, solver=CelerLasso(), criterion=folds, n_iter=30)
    return Run(min(record.value for record in found.history))


def sparho_rows(X, y) -> dict[str, Callable[[], Run]]:
    """A row for sparho where it is installed, with celer."""
    try:
        import celer  # noqa: F401
        import sparho  # noqa: F401
    except ImportError:
        return {}
    return {"sparho with celer": lambda: with_sparho(X, y)}


def random_points(criterion: CrossValidation, size: int) -> np.ndarray:
    low, high = criterion.space.lower, criterion.space.upper
    return np.random.default_rng(0).uniform(low, high, (size, low.size))


def solvers(args: argparse.Namespace) -> None:
    from sklearn.linear_model import Lasso

    X, y = text_like(3000, 12000, 1e-2, 100)
    alpha, model = 0.027 * largest(X, y), ProximalModel(Quadratic(), L1())
    runs: dict[str, Callable] = {
        "scikit-learn, tol 1e-4": lambda: Lasso(alpha=alpha).fit(X, y).coef_,
        "scikit-learn, tol 1e-8": lambda: Lasso(alpha=alpha, tol=1e-8, max_iter=10**5).fit(X, y).coef_,
    }
    for tol in (1e-4, 1e-8, 1e-12):
        runs[f"WorkingSet, tol {tol:g}"] = lambda tol=tol: model.with_tolerance(tol).fit(X, y, alpha).coef.numpy()
    for name in ("skglm", "celer"):
        try:
            library = __import__(name)
        except ImportError:
            continue
        runs[f"{name}, tol 1e-8"] = lambda library=library: library.Lasso(alpha=alpha, tol=1e-8).fit(X, y).coef_
    design, target = as_design(X), torch.as_tensor(y)
    problem = model.problem(design, target, alpha)
    print("\none fit, 3000 x 12000\n\n| | first call, s | seconds | duality gap |\n|---|---|---|---|")
    for name, run in runs.items():
        times = []
        for _ in range(args.repeat + 1):
            began = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                coef = torch.as_tensor(np.asarray(run()))
            times.append(time.perf_counter() - began)
        gap = problem.result(coef, (target - design.matmul(coef)).mean(), 0).gap
        print(f"| {name} | {times[0]:.3g} | {np.median(times[1:]):.3g} | {gap:.1e} |")


def one(args: argparse.Namespace) -> None:
    from sklearn.linear_model import LassoCV

    X, y = text_like(*((600, 2400) if args.small else (3000, 12000)), 1e-2, 100)
    top = largest(X, y)
    shared = criterion(X, y, L1(), {"alpha": (1e-3 * top, top)})
    runs = {
        "LassoImplicitCV": lambda: searched(LassoImplicitCV(cv=5).fit(X, y).history_),
        "grid of 100, warm, our solver": lambda: grid(shared, ladder(shared, 100)),
        "LassoCV, 100 points": lambda: Run(LassoCV(cv=5).fit(X, y).mse_path_.mean(1).min()),
    }
    runs |= sparho_rows(X, y)
    contest(f"one penalty, {X.shape[0]} x {X.shape[1]}, five folds", runs, args.repeat)


def net_points(criterion: CrossValidation, top: float) -> np.ndarray:
    """100 values of alpha for each of 10 of l1_ratio, as ElasticNetCV has them, in (log l1, log l2)."""
    ratios = np.minimum(np.linspace(0.1, 1, 10), 0.999)
    alphas = np.concatenate([np.geomspace(top / r, 1e-3 * top / r, 100) for r in ratios])
    each = np.repeat(ratios, 100)
    return criterion.space.clip(np.log(np.column_stack([alphas * each, alphas * (1 - each)])))


def net_contest(title: str, X, y, args: argparse.Namespace) -> dict[str, Run]:
    from sklearn.linear_model import ElasticNet as SkElasticNet
    from sklearn.linear_model import ElasticNetCV
    from sklearn.model_selection import GridSearchCV

    top = largest(X, y)
    shared = criterion(X, y, ElasticNet(), {"l1": (1e-3 * top, top), "l2": (1e-6 * top, 10 * top)})

    def grid_search_cv() -> Run:
        grids = {"alpha": np.geomspace(top, 1e-3 * top, 100), "l1_ratio": np.linspace(0.1, 1, 10)}
        scored = GridSearchCV(SkElasticNet(), grids, scoring="neg_mean_squared_error", cv=5).fit(X, y)
        return Run(-scored.best_score_)

    runs = {
        "ElasticNetImplicitCV": lambda: searched(ElasticNetImplicitCV(cv=5).fit(X, y).history_),
        "grid of 100 x 10, warm, our solver": lambda: grid(shared, net_points(shared, top)),
        "ElasticNetCV, 100 x 10": lambda: Run(
            ElasticNetCV(cv=5, l1_ratio=np.linspace(0.1, 1, 10)).fit(X, y).mse_path_.mean(-1).min()
        ),
        "random search, 60, our solver": lambda: grid(shared, random_points(shared, 60)),
        "optuna TPE, 60, our solver": lambda: with_optuna(shared, 60),
    }
    if args.long:
        runs["GridSearchCV, 100 x 10"] = grid_search_cv
    return contest(title, runs, args.repeat)


def two(args: argparse.Namespace) -> None:
    X, y = text_like(*((300, 600) if args.small else (1000, 4000)), 1e-2, 40)
    results = net_contest(f"two penalties, {X.shape[0]} x {X.shape[1]}, five folds", X, y, args)
    if args.figure:
        draw(results, args.figure)


def real(args: argparse.Namespace) -> None:
    from sklearn.datasets import load_diabetes
    from sklearn.linear_model import Lasso, LassoCV
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    raw, y = load_diabetes(return_X_y=True)
    for name, degree in (("diabetes", 1), ("diabetes with products", 3)):
        X = StandardScaler().fit_transform(PolynomialFeatures(degree, include_bias=False).fit_transform(raw))
        top = largest(X, y)
        shared = criterion(X, y, L1(), {"alpha": (1e-3 * top, top)})
        scored = {"scoring": "neg_mean_squared_error", "cv": 5}
        grids = {"alpha": np.geomspace(top, 1e-3 * top, 100)}
        runs = {
            "LassoImplicitCV": lambda X=X: searched(LassoImplicitCV(cv=5).fit(X, y).history_),
            "grid of 100, warm, our solver": lambda shared=shared: grid(shared, ladder(shared, 100)),
            "LassoCV, 100 points": lambda X=X: Run(LassoCV(cv=5).fit(X, y).mse_path_.mean(1).min()),
            "GridSearchCV, 100 points": lambda X=X, grids=grids, scored=scored: Run(
                -GridSearchCV(Lasso(), grids, **scored).fit(X, y).best_score_
            ),
            "random search, 30, our solver": lambda shared=shared: grid(shared, random_points(shared, 30)),
            "optuna TPE, 30, our solver": lambda shared=shared: with_optuna(shared, 30),
        }
        contest(f"{name}, {X.shape[0]} x {X.shape[1]}, one penalty", runs, args.repeat)
        net_contest(f"{name}, {X.shape[0]} x {X.shape[1]}, two penalties", X, y, args)


def classification(args: argparse.Namespace) -> None:
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    for name, load, scale in (("breast cancer", load_breast_cancer, True), ("digits", load_digits, False)):
        X, y = load(return_X_y=True)
        X = StandardScaler().fit_transform(X) if scale else X / 16
        # saga stops short of the minimum; liblinear penalises the intercept, scaled here by next to nothing
        binary, cv = len(np.unique(y)) == 2, StratifiedKFold(5)
        first = LogisticImplicitCV(cv=cv).fit(X, y)
        top = float(np.exp(first.history_.space.upper[0]))
        Cs = 1 / (np.geomspace(top, 1e-3 * top, 30) * 0.8 * len(y))
        settings = {"solver": "saga", "tol": 1e-4, "max_iter": 3000}
        if binary:
            settings = {"solver": "liblinear", "intercept_scaling": 100.0, "tol": 1e-5, "max_iter": 3000}

        def exact(X=X, y=y, cv=cv) -> Run:
            return searched(LogisticImplicitCV(cv=cv, search=GridSearch(size=30)).fit(X, y).history_)

        def path(X=X, y=y, cv=cv, Cs=Cs, settings=settings) -> Run:
            fit = LogisticRegressionCV(
                Cs=Cs, cv=cv, l1_ratios=(1.0,), scoring="neg_log_loss", use_legacy_attributes=False, **settings
            )
            scores = np.asarray(fit.fit(X, y).scores_)
            return Run(-scores.reshape(5, -1).mean(0).max())

        def searching(X=X, y=y, cv=cv, Cs=Cs, settings=settings) -> Run:
            grids = GridSearchCV(LogisticRegression(l1_ratio=1.0, **settings), {"C": Cs}, scoring="neg_log_loss", cv=cv)
            return Run(-grids.fit(X, y).best_score_)

        runs = {"LogisticImplicitCV": lambda X=X, y=y, cv=cv: searched(LogisticImplicitCV(cv=cv).fit(X, y).history_)}
        runs["grid of 30, warm, our solver"] = exact
        if binary or args.long:
            runs |= {"LogisticRegressionCV, 30 points": path, "GridSearchCV, 30 points": searching}
        contest(f"{name}, {X.shape[0]} x {X.shape[1]}, {len(np.unique(y))} classes", runs, 1)


def text(args: argparse.Namespace) -> None:
    from sklearn.linear_model import LassoCV

    X, y = text_like(*((4000, 10000) if args.small else (20000, 50000)), 1e-3, 200)
    top = largest(X, y)
    shared = criterion(X, y, L1(), {"alpha": (1e-2 * top, top)})
    runs = {
        "LassoImplicitCV": lambda: searched(LassoImplicitCV(cv=5, eps=1e-2).fit(X, y).history_),
        "grid of 100, warm, our solver": lambda: grid(shared, ladder(shared, 100)),
    }
    runs |= sparho_rows(X, y)
    if args.long:
        runs["LassoCV, 100 points"] = lambda: Run(LassoCV(cv=5, eps=1e-2).fit(X, y).mse_path_.mean(1).min())
    contest(f"{X.shape[0]} x {X.shape[1]}, density 1e-3, one penalty", runs, 1)


def seconds(function: Callable[[], object], repeat: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def million(args: argparse.Namespace) -> None:
    print(
        "\n8000 samples, 10 per feature\n\n| features | entries | support | fit, cold | fit, warm | all columns once |",
        end="",
    )
    print(" hypergradient | fit on the support alone | search |\n|---|---|---|---|---|---|---|---|---|")
    for p in (10**4, 10**5) if args.small else (10**4, 10**5, 10**6):
        X, y = text_like(10_000, p, 1e-3, 100)
        rows, top = X.tocsr(), largest(X, y)
        model = ProximalModel(Quadratic(), L1(), solver=WorkingSet(tol=1e-6))
        space = LogSpace.between({"alpha": (1e-2 * top, top)})
        held = HeldOut(model, space, rows[:8000], y[:8000], rows[8000:], y[8000:])
        began = time.perf_counter()
        found = Safeguarded(size=5).run(held)
        searched = f"{time.perf_counter() - began:.3g}, {len(found.history)} evaluations"
        point = found.point
        state = held.evaluate(point + 0.05, gradient=False).state
        used = torch.nonzero(state[0]).flatten()
        small = HeldOut(model, space, held.X.columns(used), held.y, held.X_held.columns(used), held.y_held)

        def evaluate(criterion: HeldOut, start=None, point=point) -> None:
            criterion.evaluate(point, gradient=False, state=start)

        x = torch.tensor(point, requires_grad=True)
        value = held.value(x, None, state)[0]
        slope = seconds(lambda x=x, value=value: torch.autograd.grad(value, x, retain_graph=True), args.repeat)
        residual = torch.randn(8000, dtype=torch.float64)
        times = [
            seconds(lambda held=held: evaluate(held), args.repeat),
            seconds(lambda held=held, state=state: evaluate(held, state), args.repeat),
            seconds(lambda held=held, residual=residual: held.X.rmatmul(residual), args.repeat),
            slope,
            seconds(lambda small=small: evaluate(small), args.repeat),
        ]
        cells = " | ".join(f"{1e3 * t:.3g} ms" for t in times)
        print(f"| {p:,} | {X.nnz:,} | {used.numel()} | {cells} | {searched} |", flush=True)


def main() -> None:
    parts = {f.__name__: f for f in (solvers, one, two, real, classification, text, million, many)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", required=True, choices=list(parts))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="sizes for a quick look")
    parser.add_argument("--long", action="store_true", help="also the peers that take minutes")
    parser.add_argument("--figure", type=Path, help="where part two draws the curves")
    args = parser.parse_args()
    for name in args.part:
        parts[name](args)


if __name__ == "__main__":
    main()

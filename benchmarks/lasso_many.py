"""Dozens to thousands of penalties against the best single one, on data that took no part in the search.

Part `many` of benchmarks/lasso.py. Two protocols:

- cross-validation: `WeightedLassoImplicitCV` against `LassoImplicitCV`, 200 features, loss on 2,000 unseen samples;
- four samples: fit on one; minimise the loss on a second over thousands of penalties, with priors of several
  strengths; choose the strength (infinite: a single penalty) on a third; report the loss on a fourth. The single
  penalty is chosen on the second and third together.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np

from conelayers.lasso import (
    Logistic,
    MultitaskQuadratic,
    ProximalModel,
    Quadratic,
    WeightedL1,
    WorkingSet,
)
from conelayers.model_selection import (
    LBFGS,
    HeldOut,
    LassoImplicitCV,
    LogSpace,
    Safeguarded,
    Shared,
    Shrunk,
    WeightedLassoImplicitCV,
)

STRENGTHS = (0.1, 0.01, 0.001)


def blocks(kind: str, seed: int, n: int = 200, p: int = 200, unseen: int = 2000):
    """Regressions whose blocks or scales differ, or do not: X, y, and group numbers."""
    rng = np.random.default_rng(seed)
    X, group = rng.standard_normal((n + unseen, p)), np.arange(p) // (p // 20)
    beta, noise, active = np.zeros(p), 1.0, rng.choice(p, 12, replace=False)
    if kind == "blocks differ":
        beta[:20], noise = 0.5 * rng.standard_normal(20), 1.5
        beta[20:60] = (rng.random(40) < 0.1) * rng.standard_normal(40)
    elif kind == "scales of features differ":
        X = X * 10 ** rng.uniform(-1, 1, p)
        beta[active] = rng.choice([-1, 1], 12) * rng.uniform(0.5, 1.5, 12) / X.std(0)[active]
    elif kind == "alike, weak":
        beta[active], noise = np.linspace(0.25, 1, 12), 2.0
    elif kind == "alike, dense":
        beta = 0.1 * rng.standard_normal(p)
    return X, X @ beta + noise * rng.standard_normal(n + unseen), group


def by_cross_validation(seeds: int) -> None:
    print("\nloss on unseen data over that of the best single penalty: mean, worst of the seeds, times better\n")
    print("| problem | one penalty per group (20) | one per feature (200) |\n|---|---|---|")
    for kind in ("blocks differ", "scales of features differ", "alike, weak", "alike, dense", "no signal"):
        ratios = []
        for seed in range(seeds):
            X, y, group = blocks(kind, seed)
            seen, unseen = slice(0, 200), slice(200, None)
            models = (LassoImplicitCV(), WeightedLassoImplicitCV(groups=group), WeightedLassoImplicitCV())
            errors = [np.mean((m.fit(X[seen], y[seen]).predict(X[unseen]) - y[unseen]) ** 2) for m in models]
            ratios.append([errors[1] / errors[0], errors[2] / errors[0]])
        table = np.array(ratios)
        cells = [f"{c.mean():.3f}, {c.max():.3f}, {(c < 0.9999).sum()} of {c.size}" for c in table.T]
        print(f"| {kind} | {cells[0]} | {cells[1]} |", flush=True)


@dataclass(frozen=True)
class Problem:
    """Data, a model with a penalty for every entry of `shape`, and which penalties are held equal."""

    X: np.ndarray
    y: np.ndarray
    model: ProximalModel
    shape: tuple[int, ...]
    index: np.ndarray
    n: int

    @property
    def samples(self) -> list[slice]:
        """For fitting, searching, judging and testing."""
        n = self.n
        return [slice(0, n), slice(n, 2 * n), slice(2 * n, 2 * n + n // 2), slice(2 * n + n // 2, len(self.y))]

    def held(self, *parts: slice) -> HeldOut:
        """Loss on the given samples of a model fitted to the first."""
        rows, first = np.r_[parts], self.samples[0]
        top = np.abs(self.X[first].T @ (self.y[first] - self.y[first].mean(0))).max() / self.n
        space = LogSpace.between({"alpha": (np.full(self.shape, 1e-4 * top), np.full(self.shape, 10 * top))})
        return HeldOut(self.model, space, self.X[first], self.y[first], self.X[rows], self.y[rows])


def thousands(kind: str, seed: int, n: int = 600, p: int = 5000, unseen: int = 5000) -> Problem:
    """Regressions and a classification in which 40 of 5,000 features matter, chosen at random or by groups of five."""
    rng = np.random.default_rng(seed)
    total, solver = 2 * n + n // 2 + unseen, WorkingSet(tol=1e-6)
    X, index, outputs = rng.standard_normal((total, p)), np.arange(p), 4 if kind == "four outputs" else 1
    chosen = rng.choice(p, 40, replace=False)
    if kind == "groups of five":
        index = index // 5
        chosen = np.flatnonzero(np.isin(index, rng.choice(p // 5, 8, replace=False)))
    beta = np.zeros((p, outputs))
    beta[chosen] = rng.choice([-1, 1], (40, outputs)) * rng.uniform(0.2, 0.8, (40, outputs))
    signal = X @ beta
    if kind == "two classes":
        y = np.where(rng.random(total) < 1 / (1 + np.exp(-2 * signal[:, 0])), 1, -1)
        return Problem(X, y, ProximalModel(Logistic(), WeightedL1(), solver=solver), (p,), index, n)
    y = signal + rng.standard_normal((total, outputs))
    if outputs > 1:
        model = ProximalModel(MultitaskQuadratic(), WeightedL1(axes=2), solver=solver)
        return Problem(X, y, model, (p, 1), index, n)
    return Problem(X, y[:, 0], ProximalModel(Quadratic(), WeightedL1(), solver=solver), (p,), index, n)


def compare(problem: Problem) -> dict[str, float]:
    """Losses of the best single penalty and of many."""
    _, search, judge, test = problem.samples
    searched, both = problem.held(search), problem.held(search, judge)
    size, ladder = searched.space.size, np.linspace(searched.space.upper[0] - np.log(10), searched.space.lower[0], 8)
    began = time.perf_counter()
    single = Safeguarded(points=ladder[:, None]).run(Shared(both, np.zeros(size, dtype=int)))
    halfway = time.perf_counter()
    center = np.full(problem.index.max() + 1, single.point[0])
    path, shared, unit = [center], Shared(searched, problem.index), abs(single.value)
    for strength in STRENGTHS:
        prior = Shrunk(shared, center, strength * unit)
        path.append(LBFGS(max_evaluations=20).run(prior, path[-1]).point)
    losses = [problem.held(judge).evaluate(point[problem.index], gradient=False).value for point in path]
    best = path[int(np.argmin(losses))]
    ended = time.perf_counter()
    tested = [problem.held(test).evaluate(point[problem.index], gradient=False).value for point in (center, best)]
    chosen = (np.inf, *STRENGTHS)[int(np.argmin(losses))]
    values = [searched.evaluate(point[problem.index], gradient=False).value for point in (center, best)]
    return {
        "penalties": center.size,
        "searched, single": values[0],
        "searched, many": values[1],
        "test, single": tested[0],
        "test, many": tested[1],
        "strength": chosen,
        "seconds, single": halfway - began,
        "seconds, many": ended - halfway,
    }


def by_four_samples(seeds: int, p: int) -> None:
    print(f"\n{p} features, 40 of which matter; fitted to 600 samples; means over {seeds} seeds\n")
    print("| problem | penalties | held-out loss, single | many | test loss, single | many | better | seconds | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in ("one per feature", "groups of five", "four outputs", "two classes"):
        rows = [compare(thousands(kind, seed, p=p)) for seed in range(seeds)]
        mean = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        better = sum(row["test, many"] < row["test, single"] for row in rows)
        losses = [f"{mean[f'{where}, {who}']:.3f}" for where in ("searched", "test") for who in ("single", "many")]
        times = f"{mean['seconds, single']:.2g} | {mean['seconds, many']:.2g}"
        print(
            f"| {kind} | {mean['penalties']:.0f} | {' | '.join(losses)} | {better} of {seeds} | {times} |", flush=True
        )


def many(args: argparse.Namespace) -> None:
    by_four_samples(2 if args.small else 3, 1000 if args.small else 5000)
    by_cross_validation(2 if args.small else 5)

"""One penalty per feature or per group of features: as many hyperparameters as the data can tell apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conelayers.errors import InvalidArgument
from conelayers.lasso import Design, ProximalModel, Quadratic, WeightedL1
from conelayers.lasso.penalties import group_numbers
from conelayers.model_selection.criteria import CrossValidation, HeldOut, Shared, Shrunk
from conelayers.model_selection.estimators.regression import LassoImplicitCV
from conelayers.model_selection.history import History, Trial
from conelayers.model_selection.parallel import run_parallel
from conelayers.model_selection.searches import LBFGS, Safeguarded, Search, SearchResult
from conelayers.model_selection.space import LogSpace

__all__ = ["WeightedLassoImplicitCV"]


@dataclass(kw_only=True, eq=False, repr=False)
class WeightedLassoImplicitCV(LassoImplicitCV):
    """Lasso with one penalty per feature, or per group of features, found by gradients: beyond any grid.

    Many penalties can fit the validation folds themselves. So their logarithms x are shrunk towards the best single
    penalty x_0: the criterion is CV(x) / CV(x_0) + strength ||x - x_0||^2 / 2. How strongly is decided on data that
    take no part in the search: each fold in turn is set aside, searches with every strength run by
    cross-validation within the other folds, and their models are judged on the fold set aside. The answer is the
    strongest prior whose loss there is within one standard error of the best (Breiman, Friedman, Olshen & Stone 1984);
    the infinitely strong one, a single penalty, takes part. Last, the search with that prior runs on all folds.

    Args:
        groups: Group number of each feature, 0, 1, ... without gaps; each feature its own group by default. The fewer
            the groups, the more the data can say about each: use what is known (blocks of sources, units, lags).
        strengths: Strengths of the prior, in decreasing order.

    The other arguments are those of `LassoImplicitCV`; `search` is the method for the many penalties.

    Attributes:
        alpha_: The penalties, shape (n_features,).
        strength_: The chosen strength, infinite for a single penalty.
        judged_: Losses on the folds set aside, shape (n_folds, 1 + len(strengths)); first those of a single penalty.
    """

    groups: Sequence[int] | None = None
    strengths: Sequence[float] = (0.3, 0.1, 0.03, 0.01)

    def _model(self) -> ProximalModel:
        return ProximalModel(Quadratic(), WeightedL1(nonnegative=self.positive), self.fit_intercept, self._solver())

    def _bounds(self, largest: float, design: Design, weight: Any) -> Mapping[str, tuple[object, object]]:
        high = np.full(design.shape[1], 10 * largest)
        return {"alpha": (1e-2 * self.eps * high, high)}

    def _default_search(self, space: LogSpace) -> Search:
        return LBFGS(max_evaluations=6, verbose=self.verbose)

    def _run(self, search: Search, criterion: CrossValidation) -> SearchResult:
        strengths = [float(s) for s in self.strengths]
        if not strengths or min(strengths) <= 0 or sorted(strengths, reverse=True) != strengths:
            raise InvalidArgument(f"strengths must be positive and decreasing; got {tuple(self.strengths)}")
        size = criterion.space.size
        index = np.arange(size) if self.groups is None else group_numbers(self.groups, size)
        first = _single_penalty(criterion, self.verbose)
        single = float(first.point[0])
        quiet = dataclasses.replace(search, verbose=0)
        calls = [(fold, splits, index, single, quiet, strengths) for fold, splits in _nested(criterion)]
        self.judged_ = np.array(run_parallel(_judge, calls, self.n_jobs)).reshape(-1, 1 + len(strengths))
        kept = _strongest(self.judged_)
        self.strength_ = float("inf") if kept == 0 else strengths[kept - 1]
        points, history, unsolved = _path(criterion, index, single, search, strengths[:kept])
        history.trials[:0] = [_spread(trial, np.zeros(size, dtype=int)) for trial in first.history.trials]
        best = points[-1]
        value = criterion.evaluate(best, gradient=False).value
        values = criterion.space.values(best)
        unsolved = [*first.unsolved, *unsolved]
        return SearchResult(values, best, value, history, None, f"strength {self.strength_:g}", unsolved)


def _single_penalty(criterion: CrossValidation, verbose: int = 0) -> SearchResult:
    """The best single penalty."""
    shared = Shared(criterion, np.zeros(criterion.space.size, dtype=int))
    # the outer decade on either side is for single features
    ladder = np.linspace(shared.space.upper - np.log(10), shared.space.lower + np.log(10), 20)
    return Safeguarded(points=ladder, verbose=verbose).run_quietly(shared)


def _path(
    criterion: CrossValidation, index: np.ndarray, single: float, search: Search, strengths: Sequence[float]
) -> tuple[list[np.ndarray], History, list[float]]:
    """Penalties of all features from the strongest prior to the weakest, each from the last; first the single one."""
    shared = Shared(criterion, index)
    center = np.full(shared.space.size, single)
    unit = criterion.evaluate(center[index], gradient=False).value
    points, history, point = [center], History(criterion.space), center
    unsolved: list[float] = []
    for strength in strengths:
        result = search.run_quietly(Shrunk(shared, center, strength * unit), point)
        point = result.point
        points.append(point)
        unsolved.extend(result.unsolved)
        history.trials.extend(_spread(trial, index) for trial in result.history.trials)
    return [point[index] for point in points], history, unsolved


def _spread(trial: Trial, index: np.ndarray) -> Trial:
    return dataclasses.replace(trial, point=trial.point[index])


def _judge(
    fold: HeldOut, splits: list, index: np.ndarray, single: float, search: Search, strengths: Sequence[float]
) -> list[float]:
    """Losses on a fold's held-out samples of searches within its training samples."""
    inner = CrossValidation(fold.model, fold.space, fold.X, fold.y, cv=splits, sample_weight=fold.sample_weight)
    points, _, _ = _path(inner, index, single, search, strengths)
    return [fold.evaluate(point, gradient=False).value for point in points]


def _strongest(losses: np.ndarray) -> int:
    """The first column within one standard error of the best, by paired differences over the rows."""
    if len(losses) < 2:
        return 0
    best = int(np.argmin(losses.mean(0)))
    behind = losses - losses[:, [best]]
    error = behind.std(0, ddof=1) / np.sqrt(len(losses))
    return int(np.argmax(behind.mean(0) <= error))


def _nested(criterion: CrossValidation) -> list[tuple[HeldOut, list[tuple[np.ndarray, np.ndarray]]]]:
    """Each fold with the other splits restricted to its training samples and numbered within them."""
    pairs = []
    for k, fold in enumerate(criterion.folds):
        kept = criterion.splits[k][0]
        place = {int(sample): i for i, sample in enumerate(kept)}
        inner = []
        for j, split in enumerate(criterion.splits):
            train, test = (np.array([place[i] for i in part.tolist() if i in place], dtype=int) for part in split)
            if j != k and train.size and test.size:
                inner.append((train, test))
        if inner and criterion.shares[k] > 0:
            pairs.append((fold, inner))
    return pairs

"""A coarse grid followed by a gradient search: never worse than the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from conelayers.model_selection.searches.base import Objective, Search
from conelayers.model_selection.searches.lbfgs import LBFGS
from conelayers.settings import require_counts, require_kinds, require_numbers

__all__ = ["GridSearch", "Safeguarded"]

_SHARE = 10.0  # a violation of at most one per cent of the penalty
_SPENT, _WORSE = 0.8, 0.05  # degrees of freedom and loss of models that do nothing but overfit


def coarse_points(objective: Objective, size: int) -> np.ndarray:
    """Points from the upper bounds down, on a grid for one or two hyperparameters, else on the diagonal."""
    low, high = objective.space.lower, objective.space.upper
    ladder = np.linspace(1.0, 0.0, size)[:, None]
    if objective.space.size == 2:
        first, second = np.meshgrid(ladder[:, 0], ladder[:, 0], indexing="ij")
        ladder = np.column_stack([first.ravel(), second.ravel()])
    return low + ladder * (high - low)


@dataclass(frozen=True)
class GridSearch(Search):
    """A warm-started grid, for comparison: no gradients.

    Args:
        size: Points per axis (on the diagonal for more than two hyperparameters).
        points: Explicit points in log space, shape (evaluations, d), in place of the grid.
    """

    size: int = 100
    points: np.ndarray | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, size=1)

    def minimize(self, objective: Objective, start: np.ndarray) -> str:
        """See `Search.minimize`."""
        points = coarse_points(objective, self.size) if self.points is None else self.points
        for point in points:
            objective(point, gradient=False)
        return "the grid is done"


@dataclass(frozen=True)
class Safeguarded(Search):
    """Evaluate a coarse grid, then improve on its best points by gradients; the best point of all is returned.

    The answer cannot be worse than the best point of the coarse grid, whatever the gradients do. With one
    hyperparameter every dip of the grid that may go down below the lowest is refined by cubic interpolation of values
    and slopes within a shrinking bracket; with more, `local` runs from the best grid point.

    The grid is walked to its end, or until the models have all but interpolated their samples. Rising values alone do
    not say that a criterion has turned: where features have different units it rises while those of large units enter,
    and falls again when those that matter do. Once the samples are used up there is nothing to enter for.

    Args:
        size: Points of the coarse grid, see `GridSearch`; by default 20 for one hyperparameter, else 8.
        points: Explicit coarse points, largest hyperparameters first.
        patience: With one hyperparameter, leave out the rest of the grid once this many points in a row were clearly
            worse than the best, of models whose degrees of freedom are four fifths of the training samples. None
            visits all points.
        coarse_tol: Inner tolerance at the top of the grid. It falls where hyperparameters do, for a violation of the
            size of a penalty leaves nothing of its solution; what is kept is evaluated again at the solver's own.
        local: Search used for two or more hyperparameters.
        xtol: Smallest bracket, in the logarithm of the hyperparameter.
    """

    size: int | None = None
    points: np.ndarray | None = None
    patience: int | None = 2
    coarse_tol: float | None = 1e-3
    local: Search = field(default_factory=LBFGS)
    xtol: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, xtol="[0, inf)")
        require_kinds(self, local=Search)
        for name in ("size", "patience"):
            if getattr(self, name) is not None:
                require_counts(self, **{name: 1})
        if self.coarse_tol is not None:
            require_numbers(self, coarse_tol="(0, inf)")

    def minimize(self, objective: Objective, start: np.ndarray) -> str:
        """See `Search.minimize`."""
        one = objective.space.size == 1
        points = self._grid(objective)
        values: list[float] = []
        waited = 0
        for point in points:
            values.append(objective(point, self._tolerance(objective, point), gradient=False)[0])
            best = min(values)
            turned = objective.freedom >= _SPENT and values[-1] > best + _WORSE * abs(best)
            waited = waited + 1 if turned else 0
            if one and self.patience is not None and waited >= self.patience:
                break
        best = int(np.argmin(values))
        if not math.isfinite(values[best]):
            return "no coarse point could be evaluated"
        objective.restart()
        if not one:
            return self.local.minimize(objective, points[best])
        return self._refine_dips(objective, points[: len(values), 0], np.array(values))

    def _grid(self, objective: Objective) -> np.ndarray:
        if self.points is not None:
            return np.atleast_2d(self.points)
        return coarse_points(objective, self.size or (20 if objective.space.size == 1 else 8))

    def _tolerance(self, objective: Objective, point: np.ndarray) -> float | None:
        """Of a coarse evaluation: a small share of the largest hyperparameter, in units of its upper bound."""
        if self.coarse_tol is None:
            return None
        return self.coarse_tol * min(1.0, _SHARE * float(np.exp((point - objective.space.upper).max())))

    def _refine_dips(self, objective: Objective, x: np.ndarray, values: np.ndarray) -> str:
        """The dips of the grid from the lowest up, as long as they promise to beat what was found."""
        padded = np.concatenate([[math.inf], values, [math.inf]])
        dips = [i for i in np.argsort(values, kind="stable") if padded[i] >= values[i] <= padded[i + 2]]
        message = ""
        for rank, i in enumerate(dips):
            around = slice(max(i - 1, 0), i + 2)
            # between the points it may go down as far again as it went from point to point
            promise = 2 * values[i] - np.delete(values[around], min(i, 1)).mean() if len(values) > 1 else values[i]
            if rank and promise >= objective.best_value - self.rtol * abs(objective.best_value):
                continue
            said = self._refine(objective, float(x[i]), [float(b) for b in x[around] if b != x[i]])
            message = message or said
        return message

    def _refine(self, objective: Objective, best: float, neighbours: list[float]) -> str:
        value, slope = objective(np.array([best]))
        a = (best, value, float(slope[0]))
        # the minimiser lies on the side to which the criterion falls
        beyond = [x for x in neighbours if (x - best) * a[2] < 0]
        if not beyond:
            return "the best point is at a bound"
        b = (beyond[0], math.nan, math.nan)
        for _ in range(50):
            width = abs(b[0] - a[0])
            if abs(a[2]) * width <= self.rtol * abs(a[1]) or width <= self.xtol:
                return "the bracket promises no more"
            x = _cubic(a, b)
            if math.isfinite(b[1]) and abs(a[2] * (x - a[0])) <= self.rtol * abs(a[1]):
                return "the interpolation promises no more"
            value, slope = objective(np.array([x]))
            c = (x, value, float(slope[0]))
            if c[1] < a[1]:
                # the better point leads; keep the end towards which it still falls
                a, b = (c, b) if c[2] * (b[0] - c[0]) < 0 else (c, a)
            else:
                b = c
        return "the bracket is exhausted"


def _cubic(a: tuple[float, float, float], b: tuple[float, float, float]) -> float:
    """Minimiser of the cubic through two values and slopes, kept inside the bracket (Nocedal & Wright 2006, 3.59)."""
    width = b[0] - a[0]
    middle = a[0] + 0.5 * width
    if not all(map(math.isfinite, (*a, *b))):
        return middle
    d1 = a[2] + b[2] - 3 * (a[1] - b[1]) / (a[0] - b[0])
    square = d1 * d1 - a[2] * b[2]
    if square < 0:
        return middle
    d2 = math.copysign(math.sqrt(square), width)
    denominator = b[2] - a[2] + 2 * d2
    if denominator == 0:
        return middle
    x = b[0] - width * (b[2] + d2 - d1) / denominator
    inner = 0.05 * abs(width)
    low, high = sorted((a[0], b[0]))
    return min(max(x, low + inner), high - inner) if math.isfinite(x) else middle

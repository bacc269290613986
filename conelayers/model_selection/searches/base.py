"""The interface of outer methods, and the objective that they see."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conelayers.errors import InvalidArgument
from conelayers.lasso.problem import warn_unsolved
from conelayers.model_selection.criteria import Criterion
from conelayers.model_selection.history import History, Trial
from conelayers.model_selection.progress import Progress
from conelayers.settings import check_kind, require_counts, require_numbers

__all__ = ["Objective", "Search", "SearchResult", "start_point"]


class _Spent(Exception):
    """The budget of evaluations is spent; caught by `Search.run`."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        hyperparameters: The best values, by name.
        point: Their logarithms, shape (d,).
        value: The criterion there.
        history: All evaluations.
        state: Warm-start state of the best evaluation.
        message: Why the search ended.
        unsolved: Violations of the inner problems that were left short of their tolerance, in all evaluations.
    """

    hyperparameters: dict[str, float | np.ndarray]
    point: np.ndarray
    value: float
    history: History
    state: Any
    message: str
    unsolved: Sequence[float] = ()


class Objective:
    """A criterion with a budget, a memory of its best point, warm starts and a record.

    Args:
        criterion: What is minimised.
        max_evaluations: Budget.
        callback: Called with every `Trial`.
        verbose: See `Progress`.
    """

    def __init__(
        self,
        criterion: Criterion,
        max_evaluations: int,
        callback: Callable[[Trial], None] | None = None,
        verbose: int = 0,
    ) -> None:
        self.criterion, self.space = criterion, criterion.space
        self.history = History(criterion.space)
        self.best_value, self.best_point, self.best_state = math.inf, criterion.space.center(), None
        self._state: Any = None
        self.freedom = 0.0  # of the last evaluation
        self.unsolved: list[float] = []
        self._left, self._callback, self.progress = max_evaluations, callback, Progress(max_evaluations, verbose)
        self._began = time.perf_counter()

    def __call__(self, point: np.ndarray, tol: float | None = None, gradient: bool = True) -> tuple[float, np.ndarray]:
        """Value and gradient at a point clipped to the bounds; an evaluation that fails counts as infinite."""
        if self._left <= 0:
            raise _Spent
        self._left -= 1
        point = self.space.clip(np.asarray(point, dtype=float))
        result = self.criterion.evaluate(point, tol=tol, state=self._state, gradient=gradient)
        self.unsolved.extend(result.unsolved)
        self.freedom = result.freedom
        value = result.value if math.isfinite(result.value) else math.inf
        slope = result.gradient if result.gradient is not None else np.full(point.shape, np.nan)
        if value < math.inf:
            self._state = result.state
        if value < self.best_value:
            self.best_value, self.best_point, self.best_state = value, point, result.state
        trial = Trial(point, value, float(np.linalg.norm(slope)), math.nan if tol is None else tol, self.seconds)
        self.history.trials.append(trial)
        if self._callback is not None:
            self._callback(trial)
        self.progress.show(trial)
        return value, slope

    def restart(self) -> None:
        """Forget the best value, found at a coarse accuracy, but warm-start from its solution."""
        self.best_value, self._state = math.inf, self.best_state

    @property
    def seconds(self) -> float:
        """Time since the search began."""
        return time.perf_counter() - self._began

    def projected(self, point: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """The gradient without components that push against an active bound."""
        blocked = ((point <= self.space.lower) & (slope > 0)) | ((point >= self.space.upper) & (slope < 0))
        return np.where(blocked, 0.0, slope)


def start_point(criterion: Criterion, start: object) -> np.ndarray:
    """Where a search begins, in log space: the start, or the middle of the bounds for None.

    Raises:
        InvalidArgument: The start has the wrong size or is not finite, or the criterion is none.
    """
    check_kind("criterion", criterion, Criterion)
    space = criterion.space
    if start is None:
        return space.center()
    try:
        begin = np.asarray(start, dtype=float).ravel()
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"start must hold {space.size} numbers, got {start!r}.") from error
    if begin.shape != space.lower.shape or not np.isfinite(begin).all():
        raise InvalidArgument(f"start must have {space.size} entries, finite logarithms; got {start!r}.")
    return begin


@dataclass(frozen=True)
class Search(abc.ABC):
    """Settings of an outer method.

    Args:
        max_evaluations: Most evaluations of the criterion.
        rtol: Stop when an iteration promises a relative improvement below this.
        verbose: 1 shows a progress bar (lines without tqdm), 2 a line per evaluation.
    """

    max_evaluations: int = 100
    rtol: float = 1e-4
    verbose: int = 0

    def __post_init__(self) -> None:
        require_counts(self, max_evaluations=1)
        require_numbers(self, rtol="[0, inf)")

    @abc.abstractmethod
    def minimize(self, objective: Objective, start: np.ndarray) -> str:
        """Call the objective; its memory is the result. Returns why the search ended."""

    def run(
        self,
        criterion: Criterion,
        start: np.ndarray | None = None,
        callback: Callable[[Trial], None] | None = None,
    ) -> SearchResult:
        """Search from a point in log space (by default the middle of the bounds).

        Raises:
            InvalidArgument: The start has the wrong size or is not finite, or the criterion is none.

        Warns:
            InaccurateWarning: Inner problems were not solved to their tolerance; one warning for the whole search.
        """
        result = self.run_quietly(criterion, start, callback)
        warn_unsolved(result.unsolved, f"{type(self).__name__}.run", 2)
        return result

    def run_quietly(
        self,
        criterion: Criterion,
        start: np.ndarray | None = None,
        callback: Callable[[Trial], None] | None = None,
    ) -> SearchResult:
        """`run` as a part of another search, which gives the warning."""
        begin = start_point(criterion, start)
        objective = Objective(criterion, self.max_evaluations, callback, self.verbose)
        try:
            message = self.minimize(objective, criterion.space.clip(begin))
        except _Spent:
            message = "the budget of evaluations is spent"
        finally:
            objective.progress.close()
        values = criterion.space.values(objective.best_point)
        return SearchResult(
            values,
            objective.best_point,
            objective.best_value,
            objective.history,
            objective.best_state,
            message,
            objective.unsolved,
        )

"""Several searches from different points, in parallel; the best answer is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from conelayers.model_selection.criteria import Criterion
from conelayers.model_selection.history import History, Trial
from conelayers.model_selection.parallel import run_parallel
from conelayers.model_selection.searches.base import Objective, Search, SearchResult, start_point
from conelayers.model_selection.searches.lbfgs import LBFGS
from conelayers.settings import require_counts, require_kinds

__all__ = ["MultiStart"]


@dataclass(frozen=True)
class MultiStart(Search):
    """Restarts of a local search, for criteria with several minima; the answer does not depend on `n_jobs`.

    The first start is the one given (by default the middle of the bounds), the others are drawn uniformly within
    the bounds. Each run has a budget and a history of its own; histories are joined in the order of the starts.

    Args:
        local: The search that is restarted.
        starts: Number of starts.
        seed: Of the starts.
        n_jobs: Runs in parallel through joblib, under the caller's backend (`joblib.parallel_config`).
        max_evaluations: Of each run, in place of that of `local`.
        rtol: In place of that of `local`.
        verbose: In place of that of `local`.
    """

    max_evaluations: int | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    rtol: float | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    verbose: int | None = field(default=None, kw_only=True)  # type: ignore[assignment]
    local: Search = field(default_factory=LBFGS)
    starts: int = 4
    seed: int = 0
    n_jobs: int | None = None

    def __post_init__(self) -> None:
        require_counts(self, starts=1, seed=0)
        require_kinds(self, local=Search)
        names = ("max_evaluations", "rtol", "verbose")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        object.__setattr__(self, "local", replace(self.local, **given))

    def points(self, criterion: Criterion, start: np.ndarray | None) -> np.ndarray:
        """The starts in log space, shape (starts, d)."""
        first, space = start_point(criterion, start), criterion.space
        cube = np.random.default_rng(self.seed).random((self.starts - 1, space.size))
        return np.vstack([first[None], space.lower + cube * (space.upper - space.lower)])

    def minimize(self, objective: Objective, start: np.ndarray) -> str:
        """All starts one after the other on one objective and budget."""
        for point in self.points(objective.criterion, start):
            self.local.minimize(objective, objective.space.clip(point))
        return f"the best of {self.starts} starts"

    def run_quietly(
        self,
        criterion: Criterion,
        start: np.ndarray | None = None,
        callback: Callable[[Trial], None] | None = None,
    ) -> SearchResult:
        """See `Search.run_quietly`; the callback is called when all runs are done."""
        calls = [(self.local, criterion, point) for point in self.points(criterion, start)]
        results: list[SearchResult] = run_parallel(_search, calls, self.n_jobs)
        history = History(criterion.space, [trial for result in results for trial in result.history.trials])
        for trial in history.trials if callback is not None else ():
            callback(trial)  # type: ignore[misc]
        best = results[int(np.argmin([result.value for result in results]))]
        unsolved = [violation for result in results for violation in result.unsolved]
        message = f"the best of {self.starts} starts: {best.message}"
        return SearchResult(best.hyperparameters, best.point, best.value, history, best.state, message, unsolved)


def _search(local: Search, criterion: Criterion, point: np.ndarray) -> SearchResult:
    return local.run_quietly(criterion, point)

"""Progress of a search on standard error: a bar where tqdm is installed, else lines."""

from __future__ import annotations

import sys
from typing import Any

from conelayers.model_selection.history import Trial

__all__ = ["Progress"]


class Progress:
    """Shows every evaluation of a search.

    Args:
        total: Most evaluations.
        verbose: 0 shows nothing; 1 a progress bar if tqdm is installed, else lines; 2 a line per evaluation.
    """

    def __init__(self, total: int, verbose: int) -> None:
        self._verbose, self._count, self._best = int(verbose), 0, float("inf")
        self._bar: Any = _bar(total) if self._verbose == 1 else None

    def show(self, trial: Trial) -> None:
        """One more evaluation."""
        if not self._verbose:
            return
        self._count, self._best = self._count + 1, min(self._best, trial.value)
        if self._bar is not None:
            self._bar.set_postfix(value=f"{trial.value:.6g}", best=f"{self._best:.6g}", slope=f"{trial.slope:.1e}")
            self._bar.update()
        else:
            line = f"{self._count:4d}  {trial.value:.6e}  |g| {trial.slope:.1e}  {trial.seconds:7.2f} s"
            print(line, file=sys.stderr)

    def close(self) -> None:
        """End: a search that stopped early is complete, too."""
        if self._bar is not None:
            self._bar.total = self._count
            self._bar.refresh()
            self._bar.close()


def _bar(total: int) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc="hyperparameters", unit="evaluation", file=sys.stderr, leave=True)

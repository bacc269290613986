"""Calls in parallel through joblib, under whatever backend the caller has chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["run_parallel"]


def run_parallel(function: Callable[..., Any], calls: Sequence[tuple], n_jobs: int | None) -> list[Any]:
    """function(*call) for every call, in order; in this process where one job is asked for."""
    from joblib import Parallel, delayed, effective_n_jobs

    if len(calls) == 1 or effective_n_jobs(n_jobs) == 1:  # type: ignore[arg-type]
        return [function(*call) for call in calls]
    return list(Parallel(n_jobs=n_jobs)(delayed(function)(*call) for call in calls))

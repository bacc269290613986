"""Calls in parallel through joblib, under whatever backend the caller has chosen."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from conelayers.model_selection.extras import optional

__all__ = ["run_parallel"]


def run_parallel(function: Callable[..., Any], calls: Sequence[tuple], n_jobs: int | None) -> list[Any]:
    """function(*call) for every call, in order; in this process where one job is asked for."""
    if len(calls) == 1 or (n_jobs in (None, 1) and "joblib" not in sys.modules):  # nobody has chosen a backend
        return [function(*call) for call in calls]
    joblib: Any = optional("joblib", "lasso", f"n_jobs={n_jobs}")
    if joblib.effective_n_jobs(n_jobs) == 1:
        return [function(*call) for call in calls]
    return list(joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(function)(*call) for call in calls))

"""Solver options under the names that users of CVXPY, diffcp and Moreau write, mapped to a backend's own settings."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any

from conelayers.backends import Backend, get_backend
from conelayers.errors import ArgumentIgnoredWarning, InvalidArgument

__all__ = ["configure"]

_ALIASES = {
    "eps": "tol",
    "eps_abs": "tol",
    "eps_rel": "tol",
    "tol_feas": "tol",
    "tol_gap_abs": "tol",
    "tol_gap_rel": "tol",
    "abstol": "tol",
    "reltol": "tol",
    "feastol": "tol",
    "max_iters": "max_iter",
    "n_jobs_forward": "threads",
    "max_threads": "threads",
    "num_threads": "threads",
}
# What other packages accept and this one has no use for: their derivative's method and threads, and SCS internals.
_WITHOUT_EFFECT = {"mode", "n_jobs_backward", "acceleration_lookback", "warm_start", "raise_on_error", "derivative"}
_reported: set[str] = set()


def configure(backend: Backend, solver_args: Mapping[str, Any]) -> Backend:
    """The backend with the given options.

    Args:
        backend: Settings to start from.
        solver_args: Options by their own name or by an alias: eps, eps_abs, eps_rel (tol; the smallest counts),
            max_iters (max_iter), n_jobs_forward (threads), verbose, and solve_method, which names another backend.
            Options with no meaning here are ignored, with one warning each per process.

    Raises:
        InvalidArgument: If solve_method names no backend, or an option has a value of the wrong type.
    """
    options = dict(solver_args)
    method = options.pop("solve_method", None)
    if method is not None:
        backend = get_backend(method)
    if not dataclasses.is_dataclass(backend):
        for name in options:
            _report_ignored(name, backend)
        return backend
    fields = {field.name for field in dataclasses.fields(backend)}
    settings: dict[str, Any] = {}
    for name, value in options.items():
        target = name if name in fields else _ALIASES.get(name, name)
        if target not in fields or name in _WITHOUT_EFFECT:
            _report_ignored(name, backend)
        elif target == "tol":
            settings["tol"] = min(settings.get("tol", float("inf")), _number(name, value))
        elif target == "threads" and value is not None and value <= 0:
            settings["threads"] = None
        elif value is not None:
            settings[target] = value
    return dataclasses.replace(backend, **settings) if settings else backend


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise InvalidArgument(f"solver_args[{name!r}] must be a positive number, got {value!r}.")
    return float(value)


def _report_ignored(name: str, backend: Backend) -> None:
    if name not in _reported:
        _reported.add(name)
        solver = getattr(backend, "name", type(backend).__name__)
        warnings.warn(
            f"solver_args[{name!r}] has no effect with the {solver} backend and is ignored.",
            ArgumentIgnoredWarning,
            stacklevel=4,
        )

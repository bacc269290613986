"""Solver options under the names that users of CVXPY, diffcp and Moreau write, mapped to a backend's own settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from numbers import Real
from typing import Any

from conelayers.backends import Backend, get_backend
from conelayers.errors import ArgumentIgnoredWarning, InvalidArgument
from conelayers.warned import warn_user

__all__ = ["configure", "named_backend"]

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
# What diffcp takes for solve_method beside SCS and Clarabel.
_FOREIGN_METHODS = {"ECOS"}
_reported: set[str] = set()


def named_backend(solver: str | Backend | None, solver_args: Mapping[str, Any]) -> Backend | None:
    """The backend that solve_method, or else `solver`, names, with the given options; None if neither does."""
    method = _method(solver_args)
    solver = solver if method is None else method
    return None if solver is None else configure(get_backend(solver), solver_args)


def configure(backend: Backend, solver_args: Mapping[str, Any]) -> Backend:
    """The backend with the given options.

    Args:
        backend: Settings to start from.
        solver_args: Options by their own name or by an alias: eps, eps_abs, eps_rel (tol; the smallest counts),
            max_iters (max_iter), n_jobs_forward (threads), verbose, and solve_method, which names another backend.
            Options with no meaning here are ignored, with one warning each per backend and process.

    Raises:
        InvalidArgument: If solver_args is no dictionary, solve_method names no backend, or an option has a value of the
            wrong type.
    """
    method = _method(solver_args)
    if method is not None:
        backend = get_backend(method)
    options = {name: value for name, value in solver_args.items() if name != "solve_method"}
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
        elif target == "threads" and value is not None:
            threads = _whole(name, value)
            settings["threads"] = threads if threads > 0 else None
        elif value is not None:
            settings[target] = _whole(name, value) if target == "max_iter" else value
    return dataclasses.replace(backend, **settings) if settings else backend


def _method(solver_args: Mapping[str, Any]) -> Any:
    """What solve_method names, if it is something for this package."""
    if not isinstance(solver_args, Mapping):
        raise InvalidArgument(f"solver_args must be a dictionary of options, got {solver_args!r}.")
    method = solver_args.get("solve_method")
    if not isinstance(method, str) or method.upper() not in _FOREIGN_METHODS:
        return method
    _report_once("solve_method", f"solver_args['solve_method'] is {method!r}, which is not available and is ignored.")
    return None


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise InvalidArgument(f"solver_args[{name!r}] must be a positive number, got {value!r}.")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value).is_integer():
        raise InvalidArgument(f"solver_args[{name!r}] must be a whole number, got {value!r}.")
    return int(float(value))


def _report_ignored(name: str, backend: Backend) -> None:
    solver = getattr(backend, "name", type(backend).__name__)
    known = [field.name for field in dataclasses.fields(backend)] if dataclasses.is_dataclass(backend) else []
    options = f" This layer is solved by {solver}, whose options are {', '.join(known)}." if known else ""
    _report_once(
        f"{solver}: {name}",
        f"solver_args[{name!r}] has no effect here and is ignored: leave it out.{options}",
    )


def _report_once(key: str, message: str) -> None:
    if key not in _reported:
        _reported.add(key)
        warn_user(message, ArgumentIgnoredWarning)

"""Backends by name, and the one taken by default."""

from __future__ import annotations

from collections.abc import Callable

from conelayers.backends.base import Backend
from conelayers.backends.clarabel import Clarabel
from conelayers.backends.diffcp import Diffcp
from conelayers.backends.scs import SCS
from conelayers.errors import InvalidArgument
from conelayers.program import ConeStructure

__all__ = ["BACKENDS", "default_backend", "get_backend"]

BACKENDS: dict[str, Callable[[], Backend]] = {backend.name: backend for backend in (Clarabel, SCS, Diffcp)}
"""What makes a backend with default settings, by its name in upper case. Add to it to give one's own a name."""


def get_backend(solver: str | Backend) -> Backend:
    """The backend of this name (in any case), or the given one.

    Raises:
        InvalidArgument: If no backend has this name, or the object has no method `solve`.
    """
    if isinstance(solver, str):
        make = BACKENDS.get(solver.upper())
        if make is None:
            raise InvalidArgument(f"solver {solver!r} is unknown; choose one of {', '.join(BACKENDS)}, or an instance.")
        return make()
    if isinstance(solver, type) or not callable(getattr(solver, "solve", None)):
        raise InvalidArgument(
            f"solver must be a name or an object with a method solve(program, warm_start); got {solver!r}."
        )
    return solver


def default_backend(structure: ConeStructure) -> Backend:
    """The backend for programmes of this structure when the user names none."""
    return Clarabel()

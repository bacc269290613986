"""Backends by name, and the one taken by default."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from conelayers.backends.base import Backend
from conelayers.backends.batched import Batched
from conelayers.backends.clarabel import Clarabel
from conelayers.backends.cuda import Cuda
from conelayers.backends.diffcp import Diffcp
from conelayers.backends.rescued import Rescued
from conelayers.backends.scs import SCS
from conelayers.backends.semidefinite import Semidefinite
from conelayers.cones import Cone, PositiveSemidefinite
from conelayers.errors import InvalidArgument
from conelayers.program import ConeStructure
from conelayers.program.compiled import engine

__all__ = ["BACKENDS", "default_backend", "get_backend"]

BACKENDS: dict[str, Callable[[], Backend]] = {
    **{backend.name: backend for backend in (Batched, Cuda, Clarabel, SCS, Diffcp, Semidefinite)},
    # Code written for cvxpylayers names its compiled batched solver; ours takes its place.
    "MOREAU": Batched,
}
"""What makes a backend with default settings, by its name in upper case. Add to it to give one's own a name."""

# Where the compiled engine hands over to Clarabel. Its semidefinite blocks are dense; programmes of up to so many
# unknowns and rows are always its own, larger ones while a factorization takes so many operations at most.
_LARGEST_ORDER, _SMALL, _MOST_OPERATIONS = 24, 2_000, 2e9


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
    """The backend for programmes of this structure when the user names none.

    The compiled engine for small and medium programmes, `Semidefinite` for large semidefinite blocks of its forms, and
    Clarabel for what the engine gives up on, for large programmes, and where the engine is not compiled.
    """
    suits = find_spec("conelayers.native._engine") is not None and all(map(_suits_engine, structure.cone.cones))
    if suits and structure.n + structure.m > _SMALL:
        suits = engine(structure).flops <= _MOST_OPERATIONS
    if suits:
        return Rescued()
    return Semidefinite() if Semidefinite.suits(structure) else Clarabel()


def _suits_engine(cone: Cone) -> bool:
    return not isinstance(cone, PositiveSemidefinite) or cone.order <= _LARGEST_ORDER

"""Solvers of cone programmes behind one method: `solve(program, warm_start) -> ConeSolution`."""

from conelayers.backends.base import Backend
from conelayers.backends.batched import Batched, engine_solution
from conelayers.backends.clarabel import Clarabel
from conelayers.backends.cuda import Cuda
from conelayers.backends.diffcp import Diffcp
from conelayers.backends.registry import BACKENDS, default_backend, get_backend
from conelayers.backends.scs import SCS
from conelayers.backends.semidefinite import Semidefinite

__all__ = [
    "BACKENDS",
    "SCS",
    "Backend",
    "Batched",
    "Clarabel",
    "Cuda",
    "Diffcp",
    "Semidefinite",
    "default_backend",
    "engine_solution",
    "get_backend",
]

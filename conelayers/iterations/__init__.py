"""Fixed-point iterations: solvers as values, without derivatives."""

from conelayers.iterations.anderson import Anderson
from conelayers.iterations.base import FixedPointResult, FixedPointSolver, FixedPointStatus
from conelayers.iterations.broyden import Broyden
from conelayers.iterations.newton_krylov import NewtonKrylov
from conelayers.iterations.picard import Picard
from conelayers.iterations.splitting import (
    BoundSplitting,
    ForwardBackward,
    MonotoneSplitting,
    PeacemanRachford,
    search_step,
)

__all__ = [
    "Anderson",
    "BoundSplitting",
    "Broyden",
    "FixedPointResult",
    "FixedPointSolver",
    "FixedPointStatus",
    "ForwardBackward",
    "MonotoneSplitting",
    "NewtonKrylov",
    "PeacemanRachford",
    "Picard",
    "search_step",
]

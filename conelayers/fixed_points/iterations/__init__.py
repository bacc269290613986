"""Fixed-point iterations: solvers as values, without derivatives."""

from conelayers.fixed_points.iterations.anderson import Anderson
from conelayers.fixed_points.iterations.base import FixedPointResult, FixedPointSolver, FixedPointStatus
from conelayers.fixed_points.iterations.broyden import Broyden
from conelayers.fixed_points.iterations.map import BoundSplitting, Map
from conelayers.fixed_points.iterations.newton_krylov import NewtonKrylov
from conelayers.fixed_points.iterations.picard import Picard
from conelayers.fixed_points.iterations.splitting import (
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
    "Map",
    "MonotoneSplitting",
    "NewtonKrylov",
    "PeacemanRachford",
    "Picard",
    "search_step",
]

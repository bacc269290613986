"""Fixed-point iterations: solvers as values, without derivatives."""

from conelayers.iterations.anderson import Anderson
from conelayers.iterations.base import FixedPointResult, FixedPointSolver, FixedPointStatus
from conelayers.iterations.broyden import Broyden
from conelayers.iterations.picard import Picard

__all__ = ["Anderson", "Broyden", "FixedPointResult", "FixedPointSolver", "FixedPointStatus", "Picard"]

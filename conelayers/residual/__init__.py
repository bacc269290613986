"""Residuals of optimality conditions: cone programmes as an equation, its linearization, and its Newton polish."""

from conelayers.residual.compiled import ACCEPTED
from conelayers.residual.conic import ConicConditions, OnFailure
from conelayers.residual.direction import OUTSIDE, Direction, Watch
from conelayers.residual.linearized import LinearizedConditions
from conelayers.residual.optimality import differentiable_solve, optimality
from conelayers.residual.solve import FINISHED, polished
from conelayers.residual.units import ordinary_units

__all__ = [
    "ACCEPTED",
    "FINISHED",
    "OUTSIDE",
    "ConicConditions",
    "Direction",
    "LinearizedConditions",
    "OnFailure",
    "Watch",
    "differentiable_solve",
    "optimality",
    "ordinary_units",
    "polished",
]

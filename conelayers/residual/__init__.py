"""Residuals of optimality conditions: cone programmes as an equation, its linearization, and its Newton polish."""

from conelayers.residual.compiled import ACCEPTED
from conelayers.residual.conic import ConicConditions, OnFailure
from conelayers.residual.linearized import LinearizedConditions
from conelayers.residual.optimality import differentiable_solve, optimality
from conelayers.residual.solve import FINISHED, polished
from conelayers.residual.units import ordinary_units

__all__ = [
    "ACCEPTED",
    "FINISHED",
    "ConicConditions",
    "LinearizedConditions",
    "OnFailure",
    "differentiable_solve",
    "optimality",
    "ordinary_units",
    "polished",
]

"""Residuals of optimality conditions: cone programmes as an equation, its linearization, and its Newton polish."""

from conelayers.residual.conic import ConicConditions, OnFailure
from conelayers.residual.linearized import LinearizedConditions
from conelayers.residual.optimality import differentiable_solve, optimality

__all__ = ["ConicConditions", "LinearizedConditions", "OnFailure", "differentiable_solve", "optimality"]

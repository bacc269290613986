"""Residuals of optimality conditions: cone programmes as an equation, its linearization, and its Newton polish."""

from conelayers.residual.conic import ConicConditions, OnFailure, differentiable_solve
from conelayers.residual.linearized import LinearizedConditions

__all__ = ["ConicConditions", "LinearizedConditions", "OnFailure", "differentiable_solve"]

"""Convex optimization problems as differentiable functions of JAX arrays. Needs the extra `conelayers[jax]`."""

from conelayers.jax.cone import solve_cone_program
from conelayers.jax.layer import CvxpyLayer, LayerSolution
from conelayers.jax.solution import ConeSolution

__all__ = ["ConeSolution", "CvxpyLayer", "LayerSolution", "solve_cone_program"]

"""PyTorch modules and functions: the place where problems, solutions and derivatives meet."""

from conelayers.layers.cone_layer import ConeLayer, solve_cone_program
from conelayers.layers.cvxpy_layer import CvxpyLayer
from conelayers.layers.solution import LayerSolution

__all__ = ["ConeLayer", "CvxpyLayer", "LayerSolution", "solve_cone_program"]

"""Convex optimization problems as PyTorch layers, differentiated by the nonsmooth implicit function theorem.

    CVXPY problem -canonicalize-> ParametricProgram -(theta)-> ConeProgram -backends-> ConeSolution -residual-> derivative
                                                          |_______________ layers join these _______________|

Packages, in the order in which they build on each other:

    errors, native      exceptions; the compiled engine
    linalg              linear operators and solvers
    implicit, cones     equations and their one autograd function; the geometry of cones
    program             cone programmes, solutions, residuals
    canonicalize, backends, residual, iterations
    layers              what users call
    lasso, model_selection
"""

from conelayers.errors import ConelayersError, SolveError
from conelayers.implicit import Exact, LeastSquares, Smoothed
from conelayers.layers import ConeLayer, CvxpyLayer, LayerSolution, solve_cone_program
from conelayers.program import Status

__version__ = "0.1.0"

__all__ = [
    "ConeLayer",
    "ConelayersError",
    "CvxpyLayer",
    "Exact",
    "LayerSolution",
    "LeastSquares",
    "Smoothed",
    "SolveError",
    "Status",
    "__version__",
    "solve_cone_program",
]

"""Convex optimization problems as PyTorch layers, differentiated by the nonsmooth implicit function theorem.

    CVXPY problem -canonicalize-> ParametricProgram -(theta)-> ConeProgram -backends-> ConeSolution -> derivative
                                                          |_____________ layers join these _____________|

Packages, in the order in which they build on each other:

    errors, native      exceptions; the compiled engine
    linalg              linear operators and solvers
    implicit, cones     equations and their one autograd function; the geometry of cones
    program             cone programmes, solutions, residuals
    canonicalize, backends, residual; fixed_points; bilevel
    layers              what users call
    lasso, model_selection
    uncertainty, convex_networks
"""

from conelayers import bilevel, deprecated
from conelayers.errors import ConelayersError, RegularityWarning, SolveError
from conelayers.fixed_points import (
    Anderson,
    Broyden,
    ForwardBackward,
    ImplicitAdjoint,
    NewtonKrylov,
    OneStep,
    PeacemanRachford,
    PhantomGradient,
    Picard,
    Piggyback,
    Unrolled,
)
from conelayers.implicit import Exact, LagrangianProximal, LeastSquares, Smoothed
from conelayers.layers import (
    DEQ,
    ConeLayer,
    CvxpyLayer,
    FixedPointLayer,
    ImplicitModel,
    LayerSolution,
    MarginHistory,
    MonotoneConvDEQ,
    MonotoneDEQ,
    MonotoneMultiTierDEQ,
    RegularityReport,
    extreme_jacobians,
    fixed_point,
    one_sided_derivative,
    solve_cone_program,
    state_driven_training,
)
from conelayers.linalg import GMRES, BiCGSTAB, Neumann
from conelayers.program import Status

__version__ = "0.1.0"

deprecated.install()

__all__ = [
    "GMRES",
    "Anderson",
    "BiCGSTAB",
    "Broyden",
    "ConeLayer",
    "ConelayersError",
    "CvxpyLayer",
    "DEQ",
    "Exact",
    "FixedPointLayer",
    "ForwardBackward",
    "ImplicitAdjoint",
    "ImplicitModel",
    "LagrangianProximal",
    "LayerSolution",
    "LeastSquares",
    "MarginHistory",
    "MonotoneConvDEQ",
    "MonotoneDEQ",
    "MonotoneMultiTierDEQ",
    "Neumann",
    "NewtonKrylov",
    "OneStep",
    "PeacemanRachford",
    "PhantomGradient",
    "Picard",
    "Piggyback",
    "RegularityReport",
    "RegularityWarning",
    "Smoothed",
    "SolveError",
    "Status",
    "Unrolled",
    "__version__",
    "bilevel",
    "extreme_jacobians",
    "fixed_point",
    "one_sided_derivative",
    "solve_cone_program",
    "state_driven_training",
]

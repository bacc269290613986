"""Implicit differentiation: equations F(z, theta) = 0, and the one autograd function for their solutions."""

from conelayers.implicit.affine import Affine, AffineOperator, Linear
from conelayers.implicit.equation import Equation
from conelayers.implicit.exact import Exact
from conelayers.implicit.function import implicit
from conelayers.implicit.least_squares import LeastSquares
from conelayers.implicit.mode import Derivative, Linearization
from conelayers.implicit.perturbed import LagrangianProximal
from conelayers.implicit.residual_equation import ResidualEquation
from conelayers.implicit.smoothed import Smoothed

__all__ = [
    "Affine",
    "AffineOperator",
    "Derivative",
    "Equation",
    "Exact",
    "LagrangianProximal",
    "LeastSquares",
    "Linear",
    "Linearization",
    "ResidualEquation",
    "Smoothed",
    "implicit",
]

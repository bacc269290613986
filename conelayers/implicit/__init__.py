"""Implicit differentiation: equations F(z, theta) = 0, and the one autograd function for their solutions."""

from conelayers.implicit.affine import Affine, AffineOperator, Linear, LinearOperator
from conelayers.implicit.chain import Chain, Step
from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.exact import Exact
from conelayers.implicit.function import implicit, nothing_records
from conelayers.implicit.itemwise import Itemwise, item_by_item
from conelayers.implicit.least_squares import LeastSquares
from conelayers.implicit.mode import Derivative
from conelayers.implicit.perturbed import LagrangianProximal
from conelayers.implicit.residual_equation import ResidualEquation
from conelayers.implicit.smoothed import Smoothed

__all__ = [
    "Affine",
    "AffineOperator",
    "Chain",
    "Derivative",
    "Equation",
    "Exact",
    "Itemwise",
    "LagrangianProximal",
    "LeastSquares",
    "Linear",
    "LinearOperator",
    "ResidualEquation",
    "Smoothed",
    "Step",
    "implicit",
    "item_by_item",
    "nothing_records",
    "zeros_for_none",
]

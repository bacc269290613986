"""Implicit differentiation: equations F(z, theta) = 0, and the one autograd function for their solutions."""

from conelayers.implicit.affine import Affine, AffineOperator, Linear, LinearOperator
from conelayers.implicit.bilevel import (
    BilevelProblem,
    ConjugateGradient,
    FixedPointAdjoint,
    Hypergradient,
    implicit_hypergradient,
)
from conelayers.implicit.bilevel_iterative import adapt, inner_descent, iterative_hypergradient
from conelayers.implicit.bilevel_stochastic import StochasticNeumann
from conelayers.implicit.chain import Chain, Step
from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.exact import Exact
from conelayers.implicit.fixed_point import FixedPointEquation
from conelayers.implicit.function import implicit, nothing_records
from conelayers.implicit.implicit_adjoint import ImplicitAdjoint
from conelayers.implicit.itemwise import Itemwise, against, along, item_by_item
from conelayers.implicit.least_squares import LeastSquares
from conelayers.implicit.mode import Derivative, Linearization, ReverseMode
from conelayers.implicit.neumann import Neumann, NeumannGMRES
from conelayers.implicit.one_step import OneStep
from conelayers.implicit.perturbed import LagrangianProximal
from conelayers.implicit.phantom_gradient import PhantomGradient
from conelayers.implicit.piggyback import Piggyback
from conelayers.implicit.residual_equation import ResidualEquation
from conelayers.implicit.resolvent import AdjointInfo
from conelayers.implicit.smoothed import Smoothed
from conelayers.implicit.unrolled import Unrolled

__all__ = [
    "AdjointInfo",
    "Affine",
    "AffineOperator",
    "BilevelProblem",
    "Chain",
    "ConjugateGradient",
    "Derivative",
    "Equation",
    "Exact",
    "FixedPointAdjoint",
    "FixedPointEquation",
    "Hypergradient",
    "ImplicitAdjoint",
    "Itemwise",
    "LagrangianProximal",
    "LeastSquares",
    "Linear",
    "LinearOperator",
    "Linearization",
    "Neumann",
    "NeumannGMRES",
    "OneStep",
    "PhantomGradient",
    "Piggyback",
    "ResidualEquation",
    "ReverseMode",
    "Smoothed",
    "Step",
    "StochasticNeumann",
    "Unrolled",
    "adapt",
    "against",
    "along",
    "implicit",
    "implicit_hypergradient",
    "item_by_item",
    "inner_descent",
    "iterative_hypergradient",
    "nothing_records",
    "zeros_for_none",
]

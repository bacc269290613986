"""PyTorch modules and functions: the place where problems, solutions and derivatives meet."""

from conelayers.layers.cone_layer import ConeLayer, solve_cone_program
from conelayers.layers.cvxpy_layer import CvxpyLayer
from conelayers.layers.deq import DEQ, fixed_point_correction
from conelayers.layers.fixed_point import FixedPointLayer, fixed_point
from conelayers.layers.implicit_model import ImplicitModel, InfinityNorm, PerronFrobenius
from conelayers.layers.kinks import ExtremeJacobians, extreme_jacobians, one_sided_derivative
from conelayers.layers.margin_history import MarginHistory
from conelayers.layers.monotone_conv import MonotoneConvDEQ, MonotoneMultiTierDEQ
from conelayers.layers.monotone_deq import MonotoneDEQ
from conelayers.layers.solution import LayerSolution
from conelayers.layers.state_driven import fit_states, state_driven_training
from conelayers.regularity.report import RegularityReport

__all__ = [
    "DEQ",
    "ConeLayer",
    "CvxpyLayer",
    "ExtremeJacobians",
    "FixedPointLayer",
    "ImplicitModel",
    "InfinityNorm",
    "LayerSolution",
    "MarginHistory",
    "MonotoneConvDEQ",
    "MonotoneDEQ",
    "MonotoneMultiTierDEQ",
    "PerronFrobenius",
    "RegularityReport",
    "extreme_jacobians",
    "fit_states",
    "fixed_point",
    "fixed_point_correction",
    "one_sided_derivative",
    "solve_cone_program",
    "state_driven_training",
]

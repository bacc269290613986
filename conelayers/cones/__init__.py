"""Convex cones: projections, elements of their Clarke Jacobians, distances to the nearest kink, duals.

One file per cone; `product` alone owns row offsets; `svec` alone owns triangle order and sqrt(2).
"""

from conelayers.cones.base import BlockDerivative, Cone, Kink, SpectralBlocks
from conelayers.cones.exponential import DualExponential, Exponential
from conelayers.cones.nonnegative import Nonnegative
from conelayers.cones.power import DualPower, Power
from conelayers.cones.product import ConeDerivative, ProductCone
from conelayers.cones.second_order import SecondOrder
from conelayers.cones.semidefinite import PositiveSemidefinite
from conelayers.cones.zero import Free, Zero

__all__ = [
    "BlockDerivative",
    "Cone",
    "ConeDerivative",
    "DualExponential",
    "DualPower",
    "Exponential",
    "Free",
    "Kink",
    "Nonnegative",
    "PositiveSemidefinite",
    "Power",
    "ProductCone",
    "SecondOrder",
    "SpectralBlocks",
    "Zero",
]

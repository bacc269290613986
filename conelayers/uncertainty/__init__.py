"""Uncertainty sets as support functions in CVXPY problems, so that layers can train them.

    Ellipsoid(center, shape).support(g) -> cp.Expression;  worst_case_mean(pieces, samples, moves) -> cp.Expression

`sets` holds what all sets can do and their algebra, `balls` and `polyhedron` the sets, `wasserstein` the worst-case
mean over distributions near a sample, `training` what a loop that trains a set needs.
"""

from conelayers.uncertainty.balls import Box, CrossPolytope, Ellipsoid
from conelayers.uncertainty.polyhedron import Polyhedron
from conelayers.uncertainty.sets import Intersection, MinkowskiSum, UncertaintySet
from conelayers.uncertainty.training import AugmentedLagrangian, cvar
from conelayers.uncertainty.wasserstein import worst_case_mean

__all__ = [
    "AugmentedLagrangian",
    "Box",
    "CrossPolytope",
    "Ellipsoid",
    "Intersection",
    "MinkowskiSum",
    "Polyhedron",
    "UncertaintySet",
    "cvar",
    "worst_case_mean",
]

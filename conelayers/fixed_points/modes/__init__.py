"""How fixed points are differentiated: one mode per file."""

from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.fixed_points.modes.one_step import OneStep
from conelayers.fixed_points.modes.phantom_gradient import PhantomGradient
from conelayers.fixed_points.modes.piggyback import Piggyback
from conelayers.fixed_points.modes.unrolled import Unrolled

__all__ = ["ImplicitAdjoint", "OneStep", "PhantomGradient", "Piggyback", "Unrolled"]

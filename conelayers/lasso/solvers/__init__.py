"""Inner solvers."""

from conelayers.lasso.solvers.base import Solver
from conelayers.lasso.solvers.proximal_gradient import ProximalGradient
from conelayers.lasso.solvers.working_set import WorkingSet

__all__ = ["ProximalGradient", "Solver", "WorkingSet"]

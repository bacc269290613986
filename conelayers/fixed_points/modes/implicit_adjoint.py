"""The derivative of a fixed point by a linear solve with I - J."""

from __future__ import annotations

import dataclasses
from typing import Any

from conelayers.errors import UnsupportedError
from conelayers.fixed_points.resolvent import AdjointInfo
from conelayers.implicit.mode import Derivative

__all__ = ["ImplicitAdjoint"]


@dataclasses.dataclass(frozen=True)
class ImplicitAdjoint(Derivative):
    """Solve (I - J') u = g (reverse mode) or (I - J) t = r (forward mode) to the solver's tolerance.

    Exact up to that tolerance, with memory that does not depend on the number of iterations of either solve.

    Attributes:
        solver: How: a solver of `conelayers.linalg` (`GMRES`, `BiCGSTAB`, ...), `Neumann()`, or one of
            `conelayers.fixed_points.iterations` (`Broyden()`, `Anderson()`, ...). None is `NeumannGMRES()`, to a
            relative residual of 1e-10 in double and 1e-5 in single precision.
        warm_start: The `adjoint` record of an earlier call with the same shapes: its solution is the first guess.
        certify: Also compute ||(I - J)^-1||, and with it an error bound of every solve, into the record; takes n
            products and a dense decomposition per item.
    """

    solver: Any = None
    warm_start: AdjointInfo | None = dataclasses.field(default=None, compare=False)
    certify: bool = False

    def solve(self, linearization: Any, rhs: Any) -> Any:
        """Solve by the chosen method."""
        if not hasattr(linearization, "solve_with"):
            raise UnsupportedError("ImplicitAdjoint is for fixed points; use Exact() for cone programmes.")
        initial = None if self.warm_start is None else self.warm_start.solution
        return linearization.solve_with(self.solver, rhs, initial, self.certify)

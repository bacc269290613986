"""The derivative itself."""

import dataclasses

from conelayers.implicit.mode import Derivative, Linearization, Tangent

__all__ = ["Exact"]


@dataclasses.dataclass(frozen=True)
class Exact(Derivative):
    """The derivative at smooth points; at kinks, the formula with the documented element of the Clarke Jacobian.

    An element of a conservative Jacobian wherever every element of the residual's Clarke Jacobian is invertible
    (Bolte, Le, Pauwels & Silveti-Falls 2021, Corollary 1). A solution that lies on a kink is known up to rounding:
    where v comes out a hair to one side, the element is that side's derivative, which is in the Clarke Jacobian too.

    Where the documented element is singular, another one that is not, or other multipliers, are taken if the solution
    is unique, and the shortest solution of the linearised conditions if it is not.
    """

    def solve(self, linearization: Linearization[Tangent], rhs: Tangent) -> Tangent:
        """Solve with the Clarke element, to working accuracy."""
        return linearization.solve(rhs)

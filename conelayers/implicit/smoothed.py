"""The derivative of a smoothed solution map."""

import dataclasses

from conelayers.errors import InvalidArgument
from conelayers.implicit.mode import Derivative, Linearization, Tangent

__all__ = ["Smoothed"]


@dataclasses.dataclass(frozen=True)
class Smoothed(Derivative):
    """The formula with the smoothed projection Jacobian D_mu = (I + mu H)^-1, H the Hessian of the dual cone's barrier.

    Weakly active constraints count as partly active instead of one or the other, so derivatives vary continuously
    across a kink; for mu -> 0 it tends to the exact derivative at smooth points. The solution itself is not smoothed.

    Attributes:
        mu: Barrier parameter, positive; in the units of y times s.
    """

    mu: float

    def __post_init__(self) -> None:
        if not self.mu > 0:
            raise InvalidArgument(f"mu must be positive, got {self.mu}; use Exact() for no smoothing.")

    @property
    def smoothing(self) -> float:
        """The barrier parameter."""
        return self.mu

    def solve(self, linearization: Linearization[Tangent], rhs: Tangent) -> Tangent:
        """Solve with the smoothed element."""
        return linearization.smooth(self.mu).solve(rhs)

"""The derivative of a few damped steps at the fixed point."""

import dataclasses
from typing import Any

from conelayers.fixed_points.modes.one_step import contraction
from conelayers.implicit.mode import Derivative
from conelayers.settings import require_counts, require_numbers

__all__ = ["PhantomGradient"]


@dataclasses.dataclass(frozen=True)
class PhantomGradient(Derivative):
    """Replace (I - J)^-1 by its damped Neumann polynomial tau sum_{j < k} ((1 - tau) I + tau J)^j.

    This is the derivative of k steps z <- (1 - tau) z + tau f(z) from a fixed point held constant (Geng et al. 2021, On
    Training Implicit Models). k = 1, tau = 1 is `OneStep`; for a contraction k -> infinity is exact.

    Attributes:
        k: Number of steps, at least 1.
        tau: Damping, in (0, 1].
    """

    k: int = 5
    tau: float = 1.0

    def __post_init__(self) -> None:
        require_counts(self, k=1)
        require_numbers(self, tau="(0, 1]")

    def solve(self, linearization: Any, rhs: Any) -> Any:
        """Horner's scheme: k - 1 products."""
        lin = contraction(linearization, "PhantomGradient")
        total = rhs
        for _ in range(self.k - 1):
            total = rhs + (1 - self.tau) * total + self.tau * lin.product(total)
        return self.tau * total

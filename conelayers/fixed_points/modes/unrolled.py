"""The derivative of the iteration itself."""

from __future__ import annotations

import dataclasses
from typing import Any

from conelayers.errors import UnsupportedError
from conelayers.fixed_points.iterations import Picard
from conelayers.implicit.mode import Derivative
from conelayers.settings import require_counts, require_numbers

__all__ = ["Unrolled"]


@dataclasses.dataclass(frozen=True)
class Unrolled(Derivative):
    """Run exactly k damped Picard steps from z0 and let autograd record them.

    The value is the last iterate and its derivative is exact for that iterate, also with respect to z0. Memory grows
    with k: this is the reference the other modes are compared with, not one to train with.

    Attributes:
        k: Number of steps, at least 1.
        damping: Weight of f(z) in each step, in (0, 1].
    """

    k: int
    damping: float = 1.0

    def __post_init__(self) -> None:
        require_counts(self, k=1)
        require_numbers(self, damping="(0, 1]")

    def solve(self, linearization: Any, rhs: Any) -> Any:
        """Not available: an unrolled derivative belongs to the iteration, not to a linearised equation.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError("Unrolled() differentiates an iteration z <- f(z); use Exact() for an equation.")

    def iterate(self, f: Any, z: Any) -> Any:
        """The k-th iterate of `f` from `z`, recorded."""
        step = Picard(damping=self.damping)
        for _ in range(self.k):
            z = step.average(z, f(z))
        return z

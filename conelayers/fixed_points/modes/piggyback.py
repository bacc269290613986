"""Derivatives iterated together with the iterates."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

from conelayers.fixed_points.iterations import Picard
from conelayers.fixed_points.modes.one_step import contraction
from conelayers.fixed_points.resolvent import Paired
from conelayers.implicit.mode import Derivative
from conelayers.settings import require_counts, require_numbers

__all__ = ["Piggyback"]


@dataclasses.dataclass(frozen=True)
class Piggyback(Derivative):
    """Iterate (z, t) <- (f(z), r + J(z) t) from (z*, 0), with J(z)' in reverse mode.

    Each step takes a Clarke element at the current iterate, so the limit is an element of the conservative Jacobian
    that the nonsmooth iteration itself converges to (Bolte, Pauwels & Vaiter 2022, Automatic differentiation of
    nonsmooth iterative algorithms), for contractions f; z is refined on the way. Derivatives of the derivative are
    taken at z*, by the same iteration. f is called again, and must be what it was in the forward pass.

    Attributes:
        atol: Absolute tolerance on one step of the pair, 2-norm per item.
        rtol: Tolerance relative to the pair.
        max_steps: Largest number of steps.
        check_every: Steps between two questions to the device; None means 1 on the CPU and 8 elsewhere.
    """

    atol: float = 1e-12
    rtol: float = 1e-10
    max_steps: int = 10_000
    check_every: int | None = None

    def __post_init__(self) -> None:
        require_numbers(self, atol="[0, inf]", rtol="[0, inf]")
        require_counts(self, max_steps=1)

    def solve(self, linearization: Any, rhs: Tensor) -> Tensor:
        """The second half of the pair's fixed point."""
        iteration = Picard(self.atol, self.rtol, self.max_steps, self.check_every)
        return contraction(linearization, "Piggyback").solve_with(Paired(iteration), rhs)

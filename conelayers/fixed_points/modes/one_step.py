"""The derivative of one application of f at the fixed point."""

import dataclasses
from typing import Any

from conelayers.errors import UnsupportedError
from conelayers.implicit.mode import Derivative

__all__ = ["OneStep"]


@dataclasses.dataclass(frozen=True)
class OneStep(Derivative):
    """Differentiate f(z*, theta) with z* held fixed: (I - J)^-1 is replaced by I.

    Its relative error is at most ||J|| (Bolte, Pauwels & Vaiter 2023, one-step differentiation), so it suits iterations
    that converge superlinearly, such as Newton's; for others it is a biased, cheap training signal (Fung et al. 2022).
    """

    def solve(self, linearization: Any, rhs: Any) -> Any:
        """The right-hand side itself."""
        contraction(linearization, "OneStep")
        return rhs


def contraction(linearization: Any, mode: str) -> Any:
    """The linearization, if it is that of a fixed point.

    Raises:
        UnsupportedError: If it is not.
    """
    if not hasattr(linearization, "product"):
        raise UnsupportedError(f"{mode} is for fixed points z = f(z); use Exact() for cone programmes.")
    return linearization

"""How a linearised equation is solved: derivative modes are values, one small file each."""

from __future__ import annotations

import abc
from typing import Protocol, TypeVar

__all__ = ["Derivative", "Linearization"]

Tangent = TypeVar("Tangent")


class Linearization(Protocol[Tangent]):
    """The Jacobian of a residual at a solution, as a derivative mode sees it.

    A tangent is whatever the equation uses for its unknowns: a tensor or a tuple of tensors.
    """

    def solve(self, rhs: Tangent) -> Tangent:
        """Solve J t = rhs with the documented Clarke element; consistent singular systems are solved too."""
        ...

    def solve_least_squares(self, rhs: Tangent, rtol: float) -> Tangent:
        """The minimum-norm least-squares solution, singular values below rtol times the largest taken as zero."""
        ...

    def smooth(self, mu: float) -> Linearization[Tangent]:
        """The linearization of the residual smoothed with barrier parameter mu."""
        ...


class Derivative(abc.ABC):
    """A derivative mode: how to get a derivative out of a linearised equation."""

    @abc.abstractmethod
    def solve(self, linearization: Linearization[Tangent], rhs: Tangent) -> Tangent:
        """Solve the linearised equation for one right-hand side."""

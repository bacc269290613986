"""How derivatives come out of an equation: derivative modes are values, one small file each."""

from __future__ import annotations

import abc
from typing import Protocol, TypeVar

from torch import Tensor

__all__ = ["Derivative", "Linearization", "ReverseMode", "TransposableLinearization"]

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


class TransposableLinearization(Linearization[Tangent], Protocol[Tangent]):
    """A linearization whose transposed systems can be solved, too."""

    def solve_least_squares(self, rhs: Tangent, rtol: float, transposed: bool = False) -> Tangent:
        """As `Linearization`; with `transposed` the solution of J' t = rhs."""
        ...


class ReverseMode(Protocol):
    """The ways from the cotangents of an optimization problem's solution to those of its data.

    Each returns one cotangent per part of the data.
    """

    def linearized(self) -> tuple[Tensor, ...]:
        """By the adjoint of the linearised optimality conditions, solved as the mode says."""
        ...

    def perturbed(self, tau: float, rho: float) -> tuple[Tensor, ...]:
        """By the solution of a perturbed problem, see `LagrangianProximal`: one difference quotient of step tau."""
        ...


class Derivative(abc.ABC):
    """A derivative mode: how to get a derivative out of an equation."""

    @property
    def smoothing(self) -> float | None:
        """Barrier parameter of the smoothed residual whose derivative is taken; None for the residual itself."""
        return None

    @property
    def reduces_adjoint(self) -> bool:
        """Whether systems with J' may be reduced to systems with J, as they can where J is invertible."""
        return True

    @abc.abstractmethod
    def solve(self, linearization: Linearization[Tangent], rhs: Tangent) -> Tangent:
        """Solve the linearised equation for one right-hand side."""

    def solve_transposed(self, linearization: TransposableLinearization[Tangent], rhs: Tangent) -> Tangent:
        """Solve the transposed equation; asked for only where `reduces_adjoint` is false."""
        raise NotImplementedError

    def pull(self, ways: ReverseMode) -> tuple[Tensor, ...]:
        """Cotangents of an optimization problem's data; by default those of the linearised conditions."""
        return ways.linearized()

"""What every convex cone of the package can do, and what a derivative of its projection can do.

A cone K is a value: frozen, hashable, picklable. Its functions act on the *last* axis of a tensor and are
vectorised over all the others, so that a stack of equal cones is one tensor with one more axis. For a closed
convex cone the projection Pi is nonexpansive, positively homogeneous and the gradient of a convex function;
hence every element D of its Clarke Jacobian is symmetric with spectrum in [0, 1], and D(v) v = Pi(v).

At a kink the Clarke Jacobian is a convex set with a smallest and a largest element in the Loewner order.
Every cone here returns the **smallest** one unless asked for the largest.
"""

import abc
from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument

__all__ = ["BlockDerivative", "Cone", "Kink", "SpectralBlocks"]

#: Which element of the Clarke Jacobian to return where there are several.
Weak = Literal["min", "max"]


class Kink(NamedTuple):
    """How points near the nondifferentiable set are treated.

    Attributes:
        weak: "min" returns the smallest element of the Clarke Jacobian at a kink, "max" the largest.
        radius: weakly active parts within this Euclidean distance of a kink are moved onto it; a float, or a
            tensor that broadcasts against the leading axes of v.
    """

    weak: Weak = "min"
    radius: float | Tensor = 0.0

    @property
    def value(self) -> float:
        """Eigenvalue given to a weakly active direction."""
        return 1.0 if self.weak == "max" else 0.0

    def opposite(self) -> "Kink":
        """The same with smallest and largest exchanged."""
        return Kink("max" if self.weak == "min" else "min", self.radius)


#: The smallest element, and nothing moved.
EXACT = Kink()


class SpectralBlocks(NamedTuple):
    """Eigenvalues and eigenvectors of the diagonal blocks of one group of a `ConeDerivative`.

    Attributes:
        rows: int64, shape (count, d): the rows of v that each block acts on.
        vectors: shape (*batch, count, d, d): orthonormal columns U.
        values: shape (*batch, count, d): eigenvalues in [0, 1]; block = U diag(values) U^T.
    """

    rows: Tensor
    vectors: Tensor
    values: Tensor


class BlockDerivative(abc.ABC):
    """Element D of the Clarke Jacobian of a projection, for a stack of cones: symmetric, 0 <= D <= I.

    `u` and `w` below have the shape of the point v at which D was taken, (*batch, d); extra leading axes
    broadcast.
    """

    @abc.abstractmethod
    def apply(self, u: Tensor) -> Tensor:
        """D u, the shape of u."""

    @abc.abstractmethod
    def curvature(self, u: Tensor, w: Tensor) -> Tensor:
        """Gradient with respect to v of <w, D(v) u>. Symmetric in u and w, because D is a Hessian."""

    @abc.abstractmethod
    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Orthonormal eigenvectors (*batch, d, d) as columns and eigenvalues (*batch, d)."""

    def matrix(self) -> Tensor:
        """D as a dense tensor, shape (*batch, d, d)."""
        vectors, values = self.spectrum()
        return (vectors * values.unsqueeze(-2)) @ vectors.mT


class Cone(abc.ABC):
    """A closed convex cone of R^dim, with its projection and the derivatives of it.

    Subclasses are frozen dataclasses. `mu`, where it appears, replaces the projection by the proximal map of
    mu F with F the barrier of the cone: y + mu grad F(y) = v; it is a positive float, or a tensor that
    broadcasts against the leading axes of v.
    """

    #: True where the projection acts on each row alone, piecewise linearly: its derivative is locally constant.
    #: (A second-order cone of two rows is an orthant turned by 45 degrees, but its rows are coupled: False.)
    polyhedral: bool = False

    #: False where the projection is linear.
    has_kinks: bool = True

    #: True where moving the weakly active eigenvalues within a radius onto their kink moves v by no more than that
    #: radius, so that the elements of `derivative(..., kink=Kink(weak, radius))` occur in the neighbourhood of v.
    kinks_attained: bool = True

    #: Number of rows.
    dim: int

    @abc.abstractmethod
    def dual(self) -> "Cone":
        """The dual cone {y : <y, s> >= 0 for every s in K}."""

    @abc.abstractmethod
    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Nearest point of the cone (or the proximal point for mu), shape (*batch, dim) like v."""

    @abc.abstractmethod
    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> BlockDerivative:
        """Element of the Clarke Jacobian of the projection at v (or the Jacobian of the proximal map for mu)."""

    @abc.abstractmethod
    def margin(self, v: Tensor) -> Tensor:
        """Distance of v to the set where the projection is not differentiable, shape (*batch,)."""

    def turning(self, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Bound how far the extreme elements' eigenspaces turn within `radius` of v.

        Each unit vector of the eigenvalue-1 space of the largest element at a point within the radius lies within the
        first bound of that space at v, once weakly active parts of v are moved onto their kink; of the eigenvalue-0
        spaces of the smallest elements the same holds with the second bound. Polyhedral cones do not turn.

        Args:
            v: shape (*batch, dim).
            radius: broadcasts against (*batch,).

        Returns:
            Two tensors (*batch,) between 0 and 1; infinity where nothing is known.
        """
        zero = torch.zeros_like(v.sum(-1))
        return zero, zero

    def near_kink(self, y: Tensor, s: Tensor, v: Tensor, reach: Tensor) -> Tensor:
        """Whether the margin at v = y - s is at most `reach`, given y = Pi(v) and s, where that is cheaper; (*batch,).

        Args:
            y: shape (*batch, dim).
            s: shape (*batch, dim).
            v: shape (*batch, dim).
            reach: broadcasts against (*batch,).
        """
        return self.margin(v) <= reach

    def critical_parts(self, weak: Tensor) -> "list[tuple[Tensor, Cone | None]] | None":
        """Split the weakly active directions of a point into parts whose slacks move in a cone each.

        The slack's derivative lies in the dual of the cone on which Pi'(v; .) projects them.

        Args:
            weak: The directions, orthonormal columns, shape (dim, k).

        Returns:
            Pairs of columns and the cone that holds the slack's derivative, None for a half-line; None in all where the
            directional derivative has no such form. All directions are weak at an apex, one on a smooth boundary.
        """
        if weak.shape[1] == self.dim:
            return [(torch.eye(self.dim, dtype=weak.dtype), self)]
        return [(weak, None)] if weak.shape[1] == 1 else None

    def atoms(self) -> "tuple[Cone, int]":
        """A cone and a count whose product this cone is: rows of a polyhedral cone stand alone."""
        return self, 1

    def family(self) -> Hashable:
        """Cones with equal families are computed together, see `stack`."""
        return self

    @classmethod
    def stack(cls, cones: "Sequence[Cone]") -> "Cone":
        """One object that acts on tensors (*batch, len(cones), dim), given cones of one family."""
        return cones[0]


def check_count(name: str, value: int, least: int = 0) -> None:
    """Raise InvalidArgument unless value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(f"{name} must be an integer of at least {least}, got {value!r}.")


def expand_like(parameter: float | Tensor, v: Tensor) -> Tensor:
    """A parameter per block as a tensor that broadcasts against v. shape: (*batch, 1)."""
    if isinstance(parameter, Tensor) and parameter.dim() > 0:
        return parameter.to(v).unsqueeze(-1)
    return torch.as_tensor(parameter, dtype=v.dtype, device=v.device).reshape(1)

"""Affine images of unit balls: ellipsoids, boxes and cross-polytopes.

The set {center + shape z : |z|_p <= 1} has the support function sigma(g) = center'g + |shape'g|_q with 1/p + 1/q = 1.
"""

from __future__ import annotations

from typing import Any, ClassVar

import cvxpy as cp
import numpy as np

from conelayers.errors import InvalidArgument
from conelayers.uncertainty._expressions import as_parameters_only
from conelayers.uncertainty.sets import UncertaintySet

__all__ = ["Box", "CrossPolytope", "Ellipsoid"]


class _Ball(UncertaintySet):
    """{center + shape z : |z|_p <= 1}; see `Ellipsoid` for the arguments."""

    p: ClassVar[Any]
    q: ClassVar[Any]

    def __init__(self, center: Any, shape: Any, *, name: str | None = None) -> None:
        label = name or type(self).__name__
        self.center = as_parameters_only(f"{label}: center", center)
        self.shape = as_parameters_only(f"{label}: shape", shape)
        if self.center.ndim == 0 and self.shape.ndim > 0:
            self.center = self.center * np.ones(self.shape.shape[0])
        n = self.center.shape[0] if self.center.ndim == 1 else None
        if not n or self.shape.ndim > 2 or self.shape.size == 0 or (self.shape.ndim and self.shape.shape[0] != n):
            raise InvalidArgument(
                f"{label}: center must be a vector (n,), and shape a matrix (n, k), k >= 1, a vector (n,) or a number; "
                f"got center {self.center.shape} and shape {self.shape.shape}."
            )
        super().__init__(n, [self.center, self.shape], name)
        constant = self.shape.value if self.shape.is_constant() and not self.shape.parameters() else None
        if self.shape.ndim < 2 and constant is not None and np.min(constant) < 0:
            raise InvalidArgument(f"{self.name}: radii must be nonnegative, got a shape of {constant}.")

    def rows_support(self, g: cp.Expression) -> cp.Expression:
        """See `UncertaintySet.rows_support`."""
        return g @ self.center + cp.norm(self._turned(g), self.q, axis=1)

    def constraints(self, u: cp.Expression) -> list[cp.Constraint]:
        """See `UncertaintySet.constraints`."""
        rows, count = u.shape[0], self.shape.shape[1] if self.shape.ndim == 2 else self.dim
        z = cp.Variable((rows, count))
        image = z @ self.shape.T if self.shape.ndim == 2 else self._turned(z)
        center = cp.reshape(self.center, (1, self.dim), order="C")
        return [u == np.ones((rows, 1)) @ center + image, cp.norm(z, self.p, axis=1) <= 1]

    def _turned(self, rows: cp.Expression) -> cp.Expression:
        """Rows r -> shape' r; a vector or number scales the entries."""
        match self.shape.ndim:
            case 0:
                return self.shape * rows
            case 1:
                scales = cp.reshape(self.shape, (1, self.dim), order="C")
                return cp.multiply(np.ones((rows.shape[0], 1)) @ scales, rows)
        return rows @ self.shape


class Ellipsoid(_Ball):
    """The ellipsoid {center + shape z : |z|_2 <= 1}.

    A radius is part of the shape: `Ellipsoid(c, radius * S)` with one of both constant, or one parameter that holds the
    product, computed in torch. A product of two parameters is not affine in them. The radius 0 is a kink,
    where one gradient of several is returned; start training from a positive one.

    Args:
        center: Shape (n,), or a number if shape tells n.
        shape: A matrix (n, k), a vector (n,) for a diagonal, or a number (nonnegative radii). The set is the same for
            shape and -shape, so a parameter that training makes negative acts as its absolute value.
        name: What messages call the set.

    Raises:
        InvalidArgument: If the sizes do not fit, the data are not affine in parameters, or a constant radius is
            negative.
    """

    p, q = 2, 2


class Box(_Ball):
    """The box {center + shape z : |z|_inf <= 1}, a parallelepiped if shape is a matrix.

    Args:
        center: As for `Ellipsoid`.
        shape: As for `Ellipsoid`; a vector holds half the widths.
        name: What messages call the set.

    Raises:
        InvalidArgument: As `Ellipsoid`.
    """

    p, q = "inf", 1


class CrossPolytope(_Ball):
    """The cross-polytope {center + shape z : |z|_1 <= 1}, a ball of the sum norm.

    Args:
        center: As for `Ellipsoid`.
        shape: As for `Ellipsoid`.
        name: What messages call the set.

    Raises:
        InvalidArgument: As `Ellipsoid`.
    """

    p, q = 1, "inf"

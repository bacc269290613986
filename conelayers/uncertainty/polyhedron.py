"""Polyhedra by linear inequalities."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.transforms.indicator import indicator

from conelayers.errors import InvalidArgument
from conelayers.uncertainty._expressions import as_parameters_only
from conelayers.uncertainty.sets import UncertaintySet

__all__ = ["Polyhedron"]


class Polyhedron(UncertaintySet):
    """The points u with lhs u <= rhs.

    By linear programming duality sigma(g) = min {rhs'l : lhs'l = g, l >= 0} where the set is not empty.

    Args:
        lhs: Shape (m, n).
        rhs: Shape (m,).
        name: What messages call the set.

    Raises:
        InvalidArgument: If the sizes do not fit, the data are not affine in parameters, or the set is empty and holds
            no parameters.
    """

    def __init__(self, lhs: Any, rhs: Any, *, name: str | None = None) -> None:
        label = name or "Polyhedron"
        self.lhs = as_parameters_only(f"{label}: lhs", lhs)
        self.rhs = as_parameters_only(f"{label}: rhs", rhs)
        if self.lhs.ndim != 2 or self.rhs.shape != self.lhs.shape[:1]:
            raise InvalidArgument(
                f"{label}: lhs must be a matrix (m, n) and rhs a vector (m,), "
                f"got {self.lhs.shape} and {self.rhs.shape}."
            )
        super().__init__(self.lhs.shape[1], [self.lhs, self.rhs], name)
        self._check_if_constant()

    def rows_support(self, g: cp.Expression) -> cp.Expression:
        """See `UncertaintySet.rows_support`."""
        shape = g.shape[0], self.lhs.shape[0]
        multipliers = cp.Variable(shape, nonneg=True, name=f"multipliers of {self.name}")
        return multipliers @ self.rhs + indicator([multipliers @ self.lhs == g])

    def _lifted_support(self, rows: cp.Expression) -> cp.Expression:
        return self.rows_support(rows)  # no product of g with the set's parameters here

    def constraints(self, u: cp.Expression) -> list[cp.Constraint]:
        """See `UncertaintySet.constraints`."""
        rhs = cp.reshape(self.rhs, (1, self.lhs.shape[0]), order="C")
        return [u @ self.lhs.T <= np.ones((u.shape[0], 1)) @ rhs]

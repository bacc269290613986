"""What every uncertainty set can do, and the two ways of joining sets: intersection and Minkowski sum.

The support function of a set U is sigma(g) = sup {g'u : u in U}; "for all u in U: g'u <= b" is sigma(g) <= b. Each set
writes its own as one convex expression. Auxiliary variables over which a minimum is taken stay free inside of it: the
rules of CVXPY only ever push a convex expression down.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import cvxpy as cp
import numpy as np

from conelayers.errors import InvalidArgument, SolveError
from conelayers.uncertainty._expressions import as_expression, evaluated, has_parameters, lifted

__all__ = ["Intersection", "MinkowskiSum", "UncertaintySet"]


class UncertaintySet(ABC):
    """A closed convex set of vectors u of `dim` entries, whose data are arrays, parameters or affine in parameters.

    A subclass gives `rows_support` and `constraints`; `&` intersects, `+` is the Minkowski sum.

    Args:
        dim: Number of entries of u.
        data: The expressions that describe the set.
        name: What messages call the set; by default its class and `dim`.
    """

    def __init__(self, dim: int, data: list[cp.Expression], name: str | None = None) -> None:
        self.dim = dim
        self.parametric = any(has_parameters(expression) for expression in data)
        self.name = name or f"{type(self).__name__}(dim={dim})"

    @abstractmethod
    def rows_support(self, g: cp.Expression) -> cp.Expression:
        """Return the supports of the rows of g, shape (rows, dim) -> (rows,).

        If the set has parameters, g holds none: `support` lifts it.
        """

    @abstractmethod
    def constraints(self, u: cp.Expression) -> list[cp.Constraint]:
        """Return constraints that say: each row of u, shape (rows, dim), lies in the set."""

    def support(self, g: Any) -> cp.Expression:
        """Return sup {g'u : u in the set} as one convex expression, DPP also where g holds parameters.

        Write `set.support(A.T @ x) <= b`, or use it in objectives, `cp.maximum` and sums. After a solve its value is
        exact where it is minimised or an active constraint, else an upper bound.

        Args:
            g: Affine, shape (dim,) for one value or (rows, dim) for one per row.

        Returns:
            Shape () or (rows,).

        Raises:
            InvalidArgument: If g does not fit, is not affine in variables, or the set is known to be empty.
        """
        g = as_expression("g", g)
        if g.ndim not in (1, 2) or g.shape[-1] != self.dim:
            raise InvalidArgument(
                f"{self.name}.support: g must have shape ({self.dim},) or (rows, {self.dim}), got {g.shape}."
            )
        if not g.is_affine():
            raise InvalidArgument(f"{self.name}.support: g must be affine, got a {g.curvature} expression.")
        rows = cp.reshape(g, (1, self.dim), order="C") if g.ndim == 1 else g
        value = self._lifted_support(rows)
        return value[0] if g.ndim == 1 else value

    def _lifted_support(self, rows: cp.Expression) -> cp.Expression:
        # A product of parameters of g with those of the set is not DPP: a variable equal to g takes its place.
        if not (self.parametric and has_parameters(rows)):
            return self.rows_support(rows)
        free, equal = lifted(rows, f"coefficient of {self.name}")
        return self.rows_support(free) + equal

    def worst_case(self, g: Any) -> np.ndarray:
        """Return the u in the set that maximises g'u, at the present values of parameters and variables.

        It is what a solution is hedged against: solve, then `set.worst_case(g)` with the same g. Where several u are
        equally bad, one of them.

        Args:
            g: As in `support`; every parameter and variable in it has a value, and so has each parameter of the set.

        Returns:
            Shape (dim,) or (rows, dim).

        Raises:
            InvalidArgument: If g does not fit or has no value, the set is empty, or unbounded in the direction g.
        """
        value = evaluated(f"{self.name}.worst_case: g", g)
        if value.ndim not in (1, 2) or value.shape[-1] != self.dim:
            raise InvalidArgument(
                f"{self.name}.worst_case: g must have shape ({self.dim},) or (rows, {self.dim}), got {value.shape}."
            )
        rows = np.atleast_2d(value)
        u = cp.Variable(rows.shape)
        problem = cp.Problem(cp.Maximize(cp.sum(cp.multiply(rows, u))), self.constraints(u))
        self._solve(problem)
        return np.asarray(u.value).reshape(value.shape)

    def holds(self, points: np.ndarray) -> bool:
        """Return whether every row of points, shape (rows, dim), lies in the set, to 1e-8 of its largest entry."""
        u = cp.Variable(points.shape)
        distance = cp.Problem(cp.Minimize(cp.max(cp.abs(u - points))), self.constraints(u))
        self._solve(distance)
        return bool(float(np.asarray(distance.value)) <= 1e-8 * max(1.0, float(np.abs(points).max())))

    def check(self) -> None:
        """Raise unless the set holds a point at the present values of its parameters.

        An empty set makes the problem around it unbounded, of status DUAL_INFEASIBLE: sup over nothing is minus
        infinity. Call this with the failed item's values to learn whether that is why, and which set it is.

        Raises:
            InvalidArgument: If the set is empty; the message names it.
        """
        self._solve(cp.Problem(cp.Minimize(0), self.constraints(cp.Variable((1, self.dim)))))

    def _solve(self, problem: cp.Problem) -> None:
        for parameter in problem.parameters():
            if parameter.value is None:
                raise InvalidArgument(f"{self.name}: parameter {parameter.name()} has no value; set it first.")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        match problem.status:
            case cp.INFEASIBLE | cp.INFEASIBLE_INACCURATE:
                raise InvalidArgument(f"{self.name} is empty: no point satisfies {self.describe()}.")
            case cp.UNBOUNDED | cp.UNBOUNDED_INACCURATE:
                raise InvalidArgument(f"{self.name} is unbounded in the direction g: there is no worst case.")
            case cp.OPTIMAL | cp.OPTIMAL_INACCURATE:
                return
        raise SolveError(f"{self.name}: the worst case could not be computed ({problem.status}).")

    def describe(self) -> str:
        """What the set's points satisfy, in words for messages."""
        return f"the constraints of {self.name}"

    def _check_if_constant(self) -> None:
        if not self.parametric:
            self.check()

    def __and__(self, other: UncertaintySet) -> UncertaintySet:
        if not isinstance(other, UncertaintySet):
            return NotImplemented
        return Intersection(self, other)

    def __add__(self, other: UncertaintySet) -> UncertaintySet:
        if not isinstance(other, UncertaintySet):
            return NotImplemented
        return MinkowskiSum(self, other)

    def __repr__(self) -> str:
        return self.name


class _Pair(UncertaintySet):
    """Two sets of one dimension."""

    sign = ""

    def __init__(self, first: UncertaintySet, second: UncertaintySet) -> None:
        name = f"({first.name} {self.sign} {second.name})"
        if first.dim != second.dim:
            raise InvalidArgument(f"{name}: both sets must have the same dimension, got {first.dim} and {second.dim}.")
        super().__init__(first.dim, [], name)
        self.first, self.second = first, second
        self.parametric = first.parametric or second.parametric


class Intersection(_Pair):
    """The points that lie in both sets, `first & second`.

    sigma(g) = min over w of sigma_1(g - w) + sigma_2(w) (Rockafellar, Convex Analysis, theorem 16.4), exact if the
    relative interiors meet; the minimum need not be attained if the sets only touch.

    Raises:
        InvalidArgument: If the dimensions differ, or no point lies in both sets and neither has parameters.
    """

    sign = "&"

    def __init__(self, first: UncertaintySet, second: UncertaintySet) -> None:
        super().__init__(first, second)
        self._check_if_constant()

    def rows_support(self, g: cp.Expression) -> cp.Expression:
        """See `UncertaintySet.rows_support`."""
        w = cp.Variable(g.shape, name=f"split of {self.name}")
        return self.first._lifted_support(g - w) + self.second._lifted_support(w)

    def constraints(self, u: cp.Expression) -> list[cp.Constraint]:
        """See `UncertaintySet.constraints`."""
        return self.first.constraints(u) + self.second.constraints(u)

    def describe(self) -> str:
        """See `UncertaintySet.describe`."""
        return f"both {self.first.name} and {self.second.name}"


class MinkowskiSum(_Pair):
    """The sums of a point of each set, `first + second`: sigma = sigma_1 + sigma_2.

    Raises:
        InvalidArgument: If the dimensions differ.
    """

    sign = "+"

    def rows_support(self, g: cp.Expression) -> cp.Expression:
        """See `UncertaintySet.rows_support`."""
        return self.first._lifted_support(g) + self.second._lifted_support(g)

    def constraints(self, u: cp.Expression) -> list[cp.Constraint]:
        """See `UncertaintySet.constraints`."""
        part = cp.Variable(u.shape)
        return self.first.constraints(u - part) + self.second.constraints(part)

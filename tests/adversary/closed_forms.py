"""Families of CVXPY layers whose solutions and derivatives are known in closed form, with numbers far apart.

Each family draws one problem and a batch of parameters, and says for each item what the layer must return and the
gradient of <g, x> in the parameter. Arithmetic in extended precision where it matters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cvxpy as cp
import numpy as np
from scipy.optimize import linear_sum_assignment

__all__ = ["FAMILIES", "Drawn"]

Real = np.longdouble


@dataclasses.dataclass
class Drawn:
    """One problem and a batch of items.

    Attributes:
        problem, parameter, variable: What the layer is made of.
        values: The parameter, shape (items, *shape).
        solutions: What must be returned, shape (items, size); NaN where there is no solution.
        unit: By what errors of the solution are measured, broadcasts against `solutions`.
        derivative: From an item's number and a cotangent (size,) to the parameter's gradient; None where zero or
            not unique.
        gradient_unit: By what errors of the gradient are measured, broadcasts against `values`.
    """

    problem: cp.Problem
    parameter: cp.Parameter
    variable: cp.Variable
    values: np.ndarray
    solutions: np.ndarray
    unit: np.ndarray | float
    derivative: Callable[[int, np.ndarray], np.ndarray] | None = None
    gradient_unit: np.ndarray | float = 1.0


def project_simplex(scores: np.ndarray) -> np.ndarray:
    """Nearest point of the simplex, by sorting; extended precision."""
    ordered = np.sort(scores.astype(Real))[::-1]
    # Differences to the largest score: sums of masks of 1e38 would lose the others.
    ordered, shifted = ordered - ordered[0], scores.astype(Real) - scores.max()
    counts = np.arange(1, len(scores) + 1)
    levels = (np.cumsum(ordered) - 1) / counts
    size = counts[ordered > levels][-1]
    return np.maximum(shifted - levels[size - 1], 0)


def masked_simplex(rng: np.random.Generator, items: int) -> Drawn:
    """Projections of scores onto the simplex, some scores masked by numbers from -1e3 to the smallest float."""
    n = int(rng.integers(4, 12))
    p, scores = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(p - scores)), [cp.sum(p) == 1, p >= 0])
    values = rng.normal(size=(items, n))
    for row in values:
        masked = rng.choice(n, int(rng.integers(1, n - 1)), replace=False)
        row[masked] = -(10 ** rng.uniform(3, 38)) if rng.random() < 0.8 else np.finfo(np.float32).min
    solutions = np.stack([project_simplex(row) for row in values])

    def derivative(i: int, g: np.ndarray) -> np.ndarray:
        kept = solutions[i] > 0
        return np.where(kept, g - g[kept].mean(), 0.0)

    return Drawn(problem, scores, p, values, solutions, 1.0, derivative)


def masked_softmax(rng: np.random.Generator, items: int) -> Drawn:
    """Softmax as the entropy-regularised choice, scores masked as in attention."""
    n = int(rng.integers(3, 6))
    p, scores = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Maximize(scores @ p + cp.sum(cp.entr(p))), [cp.sum(p) == 1])
    values = rng.normal(size=(items, n))
    for row in values:
        row[rng.choice(n, int(rng.integers(1, n - 1)), replace=False)] = -(10 ** rng.uniform(1, 10))
    powers = np.exp((values - values.max(1, keepdims=True)).astype(Real))
    solutions = powers / powers.sum(1, keepdims=True)

    def derivative(i: int, g: np.ndarray) -> np.ndarray:
        return solutions[i] * (g - solutions[i] @ g)

    return Drawn(problem, scores, p, values, solutions, 1.0, derivative)


def forbidden_edges(rng: np.random.Generator, items: int) -> Drawn:
    """Assignments by linear programming, with edges forbidden by a cost from 1e5 to 1e12."""
    n = int(rng.integers(3, 6))
    X, costs = cp.Variable((n, n)), cp.Parameter((n, n))
    rows = [cp.sum(X, axis=0) == 1, cp.sum(X, axis=1) == 1, X >= 0]
    values, solutions = [], []
    while len(values) < items:
        cost = rng.uniform(0, 1, (n, n))
        allowed = np.eye(n, dtype=bool)[rng.permutation(n)] | (rng.random((n, n)) < 0.5)
        cost[~allowed] = 10 ** rng.uniform(5, 12)
        plan = np.zeros((n, n))
        plan[linear_sum_assignment(cost)] = 1
        if _second_best(cost, plan) - (cost * plan).sum() > 1e-3 and not (plan.astype(bool) & ~allowed).any():
            values.append(cost)
            solutions.append(plan.ravel(order="F"))
    return Drawn(cp.Problem(cp.Minimize(cp.vdot(costs, X)), rows), costs, X, np.stack(values), np.stack(solutions), 1.0)


def _second_best(cost: np.ndarray, plan: np.ndarray) -> float:
    """The cost of the best assignment that avoids one edge of the plan at least."""
    best = np.inf
    for edge in zip(*np.nonzero(plan), strict=True):
        other = cost.copy()
        other[edge] = 1e30
        best = min(best, other[linear_sum_assignment(other)].sum())
    return best


def ball_beside_simplex(rng: np.random.Generator, items: int) -> Drawn:
    """A large least-squares problem over a ball beside a small projection onto the simplex, which share nothing."""
    n, weight = int(rng.integers(2, 6)), 10 ** rng.uniform(0, 6)
    x, z, scores = cp.Variable(n), cp.Variable(n), cp.Parameter(n)
    target = weight * rng.uniform(0.2, 2) * np.ones(n)
    cost = cp.sum_squares(weight * x - target) + cp.sum_squares(z - scores)
    problem = cp.Problem(cp.Minimize(cost), [cp.norm(x) <= 1, z >= 0, cp.sum(z) == 1])
    values = rng.normal(size=(items, n))
    solutions = np.stack([project_simplex(row) for row in values])

    def derivative(i: int, g: np.ndarray) -> np.ndarray:
        kept = solutions[i] > 0
        return np.where(kept, g - g[kept].mean(), 0.0)

    return Drawn(problem, scores, z, values, solutions, 1.0, derivative)


def far_bounds(rng: np.random.Generator, items: int) -> Drawn:
    """Weighted projections onto boxes, some of whose bounds lie at 1e6 to 1e14."""
    n = int(rng.integers(2, 8))
    x, target = cp.Variable(n), cp.Parameter(n)
    weights = 10 ** rng.uniform(-3, 3, n)
    far = rng.random(n) < 0.5
    upper = np.where(far, 10 ** rng.uniform(6, 14, n), rng.uniform(0.1, 1, n))
    lower = -np.where(rng.random(n) < 0.5, 10 ** rng.uniform(6, 14, n), rng.uniform(0.1, 1, n))
    cost = 0.5 * cp.sum(cp.multiply(weights, cp.square(x - target)))
    problem = cp.Problem(cp.Minimize(cost), [x <= upper, x >= lower])
    values = rng.normal(size=(items, n))
    solutions = np.clip(values, lower, upper)

    def derivative(i: int, g: np.ndarray) -> np.ndarray:
        return np.where(values[i] == solutions[i], g, 0.0)

    return Drawn(problem, target, x, values, solutions, 1.0, derivative)


def flat_objective(rng: np.random.Generator, items: int) -> Drawn:
    """Separable quadratics of curvatures from 1e-10 to 1e6, beside a bound that holds some of the variables."""
    n = int(rng.integers(2, 6))
    curvature = 10 ** rng.uniform(-10, 6, n)
    x, slope = cp.Variable(n), cp.Parameter(n)
    upper = np.where(rng.random(n) < 0.3, 0.5 / curvature, 3 / curvature)
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum(cp.multiply(curvature, cp.square(x))) - slope @ x), [x <= upper])
    values = rng.uniform(0.6, 1.4, (items, n))
    free = values.astype(Real) / curvature
    solutions = np.minimum(free, upper)

    def derivative(i: int, g: np.ndarray) -> np.ndarray:
        return np.where(free[i] < upper, g / curvature, 0.0)

    return Drawn(problem, slope, x, values, solutions, 1 / curvature, derivative, 1 / curvature.min())


def units_of_money(rng: np.random.Generator, items: int) -> Drawn:
    """Budgets shared by concave utilities, in units from 1e-6 to 1e9: sums of c log x under a budget."""
    n, money = int(rng.integers(2, 5)), 10 ** rng.uniform(-6, 9)
    x, weights = cp.Variable(n), cp.Parameter(n, nonneg=True)
    problem = cp.Problem(cp.Maximize(weights @ cp.log(x / money)), [cp.sum(x) <= money])
    values = rng.uniform(0.2, 2, (items, n))
    shares = values / values.sum(1, keepdims=True)

    def derivative(i: int, g: np.ndarray) -> np.ndarray:
        return money * (g - shares[i] @ g) / values[i].sum()

    return Drawn(problem, weights, x, values, money * shares, money, derivative, money)


def concave(rng: np.random.Generator, items: int) -> Drawn:
    """Quadratic objectives of one negative curvature, which the rules of CVXPY let through in a PSD parameter."""
    n = int(rng.integers(1, 4))
    x, matrix = cp.Variable(n), cp.Parameter((n, n), PSD=True)
    slope = rng.uniform(0.01, 0.1, n)
    problem = cp.Problem(cp.Minimize(0.5 * cp.quad_form(x, matrix) + slope @ x), [x <= 1, x >= -1])
    values, solutions = np.zeros((items, n, n)), np.zeros((items, n))
    for i in range(items):
        curvatures = rng.uniform(0.2, 2, n)
        curvatures[0] *= -1
        values[i] = np.diag(curvatures)
        solutions[i] = np.where(curvatures < 0, -1.0, np.clip(-slope / curvatures, -1, 1))
    return Drawn(problem, matrix, x, values, solutions, 1.0)


def contradictory(rng: np.random.Generator, items: int) -> Drawn:
    """Inequalities that contradict each other by 1e-3 to 1, in units from 1e-3 to 1e6."""
    n, unit = int(rng.integers(2, 6)), 10 ** rng.uniform(-3, 6)
    x, target = cp.Variable(n), cp.Parameter(n)
    gap, share = 10 ** rng.uniform(-3, 0), rng.uniform(0.1, 1, n)
    rows = [share @ x <= -gap * unit, x >= 0]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - unit * target)), rows)
    return Drawn(problem, target, x, rng.normal(size=(items, n)), np.full((items, n), np.nan), unit)


FAMILIES: dict[str, Callable[[np.random.Generator, int], Drawn]] = {
    family.__name__: family
    for family in (
        *(masked_simplex, masked_softmax, forbidden_edges, ball_beside_simplex, far_bounds, flat_objective),
        *(units_of_money, concave, contradictory),
    )
}

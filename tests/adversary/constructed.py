"""Programmes made from their solutions, with derivatives from the construction and none of the package's code.

A point (x, y, s) is drawn first: in each block a face of the cone for s and the complementary one for y, in extended
precision (`numpy.longdouble`). P and A are drawn, q = -(Px + A'y) and b = Ax + s follow and are rounded to double
precision; one Newton step in extended precision gives the solution of the rounded data. The derivative D of the
projection at v = y - s follows from the parameters of the faces, so that no projection is ever computed.

Blocks and columns are then measured in units of their own, which changes the numbers of a programme and not the
programme: errors are measured in the units of the construction.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from conelayers.cones import (
    Cone,
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    SecondOrder,
    Zero,
)

__all__ = ["Constructed", "Spread", "construct", "solve_extended"]

Real = np.longdouble
Face = tuple[np.ndarray, np.ndarray, np.ndarray]  # y, s and D


@dataclasses.dataclass(frozen=True)
class Spread:
    """How far numbers lie apart: each is drawn as 10**uniform(-k, k).

    Attributes:
        rows: k of the units of blocks.
        columns: k of the units of columns.
        objective: k of the unit of the objective.
        points: k of the sizes of slacks and of multipliers, block by block: not a matter of units.
    """

    rows: float = 0.0
    columns: float = 0.0
    objective: float = 0.0
    points: float = 0.0


@dataclasses.dataclass(frozen=True)
class Constructed:
    """One programme, its solution and derivative.

    Attributes:
        P, q, A, b: Data in double precision, dense; q (n,), b (m,).
        x, y, s: The solution in extended precision.
        D: The derivative of the projection onto K* at y - s in the units of the construction, (m, m).
        row_units: Size by which each row was multiplied, (m,).
        column_units: Unit of each variable, (n,).
        objective_unit: Unit of the objective.
        condition: Condition number of the linearised conditions in the units of the construction.
    """

    P: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray
    x: np.ndarray
    y: np.ndarray
    s: np.ndarray
    D: np.ndarray
    row_units: np.ndarray
    column_units: np.ndarray
    objective_unit: float
    condition: float

    def in_base_units(self, name: str, value: np.ndarray) -> np.ndarray:
        """Part of a solution, "b" or "q", or a gradient ("dP" and so on), in the units of the construction."""
        row, column, objective = self.row_units, self.column_units, self.objective_unit
        factors = {
            "x": 1 / column,
            "y": row / objective,
            "s": 1 / row,
            "b": 1 / row,
            "q": column / objective,
            "dP": objective / np.outer(column, column),
            "dq": objective / column,
            "dA": row[:, None] / column,
            "db": row,
        }
        return value * factors[name]

    def gradients(self, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        """Gradients of <cotangent, x> by the adjoint system; all in the units of the construction."""
        row, column, objective = self.row_units, self.column_units, self.objective_unit
        x, y = (self.in_base_units(name, getattr(self, name)) for name in "xy")
        P, A = self.P * np.outer(column, column) / objective, self.A * column / row[:, None]
        right = np.concatenate([cotangent.astype(Real), np.zeros(len(y), dtype=Real)])
        found = solve_extended(_jacobian(P, A, self.D).T, right)
        lam, nu = found[: len(x)], found[len(x) :]
        return {
            "dP": -(np.outer(lam, x) + np.outer(x, lam)) / 2,
            "dq": -lam,
            "dA": -(np.outer(y, lam) + np.outer(nu, x)),
            "db": nu,
        }


def construct(
    cones: Sequence[Cone], n: int, rng: np.random.Generator, spread: Spread = Spread(), *, rank: int | None = None
) -> Constructed:
    """Draw a programme of n variables; strictly complementary, generically regular.

    Faces are drawn anew until no more than n independent rows are active (and, for P of small rank, enough of them).

    Args:
        cones: The blocks.
        n: Number of variables.
        rng: Source of all draws.
        spread: How far numbers lie apart.
        rank: Rank of P; n by default.
    """
    rank = n if rank is None else rank
    for _ in range(1000):
        faces = [_FACES[type(cone)](cone, rng, *_sizes(rng, spread.points)) for cone in cones]
        y, s = (np.concatenate([face[k] for face in faces]) for k in (0, 1))
        D = _block_diagonal([face[2] for face in faces])
        values = np.linalg.eigvalsh(D.astype(float))
        if (values > 0.999).sum() <= n and (rank == n or rank + (values > 1e-3).sum() > n):
            break
    else:
        raise ValueError(f"no faces of {cones} make a regular programme of {n} variables with P of rank {rank}")
    m = len(y)
    root = rng.normal(size=(n, rank))
    P, A = (root @ root.T / max(rank, 1)).astype(Real), rng.normal(size=(m, n)).astype(Real)
    x = rng.normal(size=n).astype(Real)
    units = [10 ** rng.uniform(-k, k, size) for k, size in ((spread.rows, len(cones)), (spread.columns, n))]
    row = np.repeat(_power_of_two(units[0]), [cone.dim for cone in cones]).astype(Real)
    column, objective = (
        _power_of_two(units[1]).astype(Real),
        Real(_power_of_two(10 ** rng.uniform(-spread.objective, spread.objective))),
    )
    condition = float(np.linalg.cond(_jacobian(P, A, D).astype(float)))
    # The same programme in units: powers of two, which round nothing.
    P, A = objective * P / np.outer(column, column), row[:, None] * A / column
    x, s, y = column * x, row * s, objective * y / row
    P, A = P.astype(float), A.astype(float)
    q, b = (-(P.astype(Real) @ x + A.T.astype(Real) @ y)).astype(float), (A.astype(Real) @ x + s).astype(float)
    rest = np.concatenate([P.astype(Real) @ x + q + A.T.astype(Real) @ y, A.astype(Real) @ x + s - b])
    dx, dy, ds = _newton_step(P, A, D, rest, row, column, objective)
    return Constructed(P, q, A, b, x + dx, y + dy, s + ds, D, row, column, float(objective), condition)


def _newton_step(P, A, D, rest, row, column, objective) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dy, ds) against the residual `rest`, computed in the units of the construction, where D is known."""
    n = len(column)
    base_P, base_A = P * np.outer(column, column) / objective, A * column / row[:, None]
    scaled = np.concatenate([rest[:n] * column / objective, rest[n:] / row])
    step = solve_extended(_jacobian(base_P, base_A, D), -scaled)
    dy = D @ step[n:]
    return column * step[:n], objective * dy / row, row * (dy - step[n:])


def _jacobian(P: np.ndarray, A: np.ndarray, D: np.ndarray) -> np.ndarray:
    """J = [[P, A'D], [A, D - I]]."""
    P, A = P.astype(Real), A.astype(Real)
    return np.block([[P, A.T @ D], [A, D - np.eye(len(D), dtype=Real)]])


def solve_extended(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Gaussian elimination with scaled partial pivoting in extended precision; LAPACK knows double precision only."""
    work = np.concatenate([matrix, right[:, None]], axis=1).astype(Real)
    size = len(right)
    scale = np.maximum(np.abs(matrix).max(1), np.finfo(float).tiny)
    for k in range(size):
        pivot = k + int(np.argmax(np.abs(work[k:, k]) / scale[k:]))
        if pivot != k:
            work[[k, pivot]], scale[[k, pivot]] = work[[pivot, k]], scale[[pivot, k]]
        factor = work[k + 1 :, k] / work[k, k]
        work[k + 1 :, k:] -= factor[:, None] * work[k, k:]
    found = np.zeros(size, dtype=Real)
    for k in reversed(range(size)):
        found[k] = (work[k, -1] - work[k, k + 1 : size] @ found[k + 1 :]) / work[k, k]
    return found


def _sizes(rng: np.random.Generator, k: float) -> tuple[Real, Real]:
    """Sizes of a block's multiplier and slack."""
    return Real(10 ** rng.uniform(-k, k)), Real(10 ** rng.uniform(-k, k))


def _power_of_two(value):
    return 2.0 ** np.round(np.log2(value))


def _block_diagonal(blocks: Sequence[np.ndarray]) -> np.ndarray:
    size = sum(len(block) for block in blocks)
    full, at = np.zeros((size, size), dtype=Real), 0
    for block in blocks:
        full[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    return full


def _normal(rng, size) -> np.ndarray:
    return rng.normal(size=size).astype(Real)


def _zero(cone: Zero, rng, big, small) -> Face:
    return big * _normal(rng, cone.dim), np.zeros(cone.dim, Real), np.eye(cone.dim, dtype=Real)


def _nonnegative(cone: Nonnegative, rng, big, small) -> Face:
    active = rng.random(cone.dim) < rng.uniform(0.2, 0.6)
    y = np.where(active, big * rng.uniform(0.3, 2, cone.dim), 0).astype(Real)
    s = np.where(active, 0, small * rng.uniform(0.3, 2, cone.dim)).astype(Real)
    return y, s, np.diag(active.astype(Real))


def _corner(cone: Cone, rng, y: np.ndarray, s: np.ndarray) -> Face | None:
    """One of the two trivial faces, now and then: s inside and y = 0, or y inside and s = 0."""
    draw, zero = rng.random(), np.zeros(cone.dim, Real)
    if draw < 0.2:
        return zero, s, np.zeros((cone.dim, cone.dim), Real)
    if draw < 0.3:
        return y, zero, np.eye(cone.dim, dtype=Real)
    return None


def _second_order(cone: SecondOrder, rng, big, small) -> Face:
    w = _normal(rng, cone.dim - 1)
    w /= np.sqrt((w**2).sum())
    inside = np.concatenate([[Real(1)], Real(0.5) * w])
    corner = _corner(cone, rng, big * inside, small * inside)
    if corner is not None:
        return corner
    y, s = big * np.concatenate([[Real(1)], -w]), small * np.concatenate([[Real(1)], w])
    one, none = (np.concatenate([[Real(1)], sign * w]) / np.sqrt(Real(2)) for sign in (-1, 1))
    middle = big / (big + small)
    rest = np.eye(cone.dim, dtype=Real) - np.outer(one, one) - np.outer(none, none)
    return y, s, np.outer(one, one) + middle * rest


def _semidefinite(cone: PositiveSemidefinite, rng, big, small) -> Face:
    order = int((np.sqrt(8 * cone.dim + 1) - 1) / 2 + 0.5)
    Q = np.zeros((order, order), Real)
    for k in range(order):  # Gram and Schmidt, twice
        v = _normal(rng, order)
        for _ in range(2):
            v -= Q[:, :k] @ (Q[:, :k].T @ v)
        Q[:, k] = v / np.sqrt((v**2).sum())
    positive = int(rng.integers(0, order + 1)) if rng.random() < 0.3 else int(rng.integers(0, max(order // 2, 1) + 1))
    sizes = np.where(np.arange(order) < positive, big, -small) * rng.uniform(0.3, 2, order)
    up, down = np.maximum(sizes, 0), np.maximum(-sizes, 0)
    total = np.add.outer(up, down)  # entries (i, j): lambda_i^+ + lambda_j^-
    ratio = np.divide(up[:, None] * np.ones(order), total, out=np.zeros((order, order), Real), where=total > 0)
    B = np.where(np.outer(up > 0, up > 0), 1, np.where((up > 0)[:, None] != (up > 0), np.maximum(ratio, ratio.T), 0))
    columns, rows = np.triu_indices(order)  # the lower triangle, column by column
    basis = np.zeros((cone.dim, order, order), Real)
    root = np.sqrt(Real(0.5))
    for k, (i, j) in enumerate(zip(rows, columns, strict=True)):
        basis[k, i, j] = basis[k, j, i] = 1 if i == j else root
    turned = np.einsum("ia,kij,jb->kab", Q, basis, Q)
    D = np.einsum("kab,ab,lab->kl", turned, B, turned)
    y, s = (np.einsum("kij,ij->k", basis, (Q * part) @ Q.T) for part in (up, down))
    return y, s, D


def _exponential(cone: Exponential, rng, big, small) -> Face:
    r = Real(rng.uniform(-1.5, 1.5))
    e = np.exp(r)
    ray, ray_slope = np.array([r, 1, e]), np.array([1, 0, e])
    normal, normal_slope = np.array([-e, (r - 1) * e, 1]), np.array([-e, r * e, 0])
    inside = ray + np.array([0, 0, 1])
    corner = _corner(cone, rng, big * (normal + np.array([0, 1, 1])), small * inside)
    return corner or _three_dimensional(normal, normal_slope, ray, ray_slope, big, small)


def _power(cone: Power, rng, big, small) -> Face:
    alpha, r, sign = Real(cone.alpha), Real(rng.uniform(-1.5, 1.5)), Real(rng.choice([-1, 1]))
    X, Y = np.exp((1 - alpha) * r), np.exp(-alpha * r)
    ray, ray_slope = np.array([X, Y, sign]), np.array([(1 - alpha) * X, -alpha * Y, 0])
    normal = np.array([alpha / X, (1 - alpha) / Y, -sign])
    normal_slope = np.array([-(1 - alpha) * alpha / X, alpha * (1 - alpha) / Y, 0])
    more = np.array([1, 1, 0])
    corner = _corner(cone, rng, big * (normal + more), small * (ray + more))
    return corner or _three_dimensional(normal, normal_slope, ray, ray_slope, big, small)


def _three_dimensional(normal, normal_slope, ray, ray_slope, big, small) -> Face:
    """A point y on the ray of normals and s on that of the boundary, both functions of r: D = dy / dv for v = y - s."""
    y_moves = np.stack([big * normal_slope, normal, np.zeros(3, Real)], 1).astype(Real)
    v_moves = np.stack([big * normal_slope - small * ray_slope, normal, -ray], 1).astype(Real)
    D = np.stack([solve_extended(v_moves.T, row) for row in y_moves])
    return (big * normal).astype(Real), (small * ray).astype(Real), D


def _dual(primal: Callable[..., Face], make: Callable[[Cone], Cone]) -> Callable[..., Face]:
    """A dual cone's faces: the two points change places, and with them D and I - D."""

    def face(cone: Cone, rng, big, small) -> Face:
        y, s, D = primal(make(cone), rng, small, big)
        return s, y, np.eye(cone.dim, dtype=Real) - D

    return face


_FACES: dict[type[Cone], Callable[..., Face]] = {
    Zero: _zero,
    Nonnegative: _nonnegative,
    SecondOrder: _second_order,
    PositiveSemidefinite: _semidefinite,
    Exponential: _exponential,
    Power: _power,
    DualExponential: _dual(_exponential, lambda cone: Exponential()),
    DualPower: _dual(_power, lambda cone: Power(cone.alpha)),
}

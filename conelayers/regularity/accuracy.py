"""How far a computed point may be from the solution, by the residual at v and what the Jacobian makes of it.

The residual F(x, v) = (Px + q + A'Pi(v), Ax + Pi(v) - v - b) is measured at the computed point itself, so nothing is
asked of the solver. With J(D) the Jacobian the point is off by

    delta = |J(D)^-1 F| + what the rounding errors of F make, row by row,

to first order. That this is all is proved as by Kantorovich: if the Jacobian varies over the ball of radius 2 delta so
little that what its variation makes of delta is below delta, then there is a solution in the ball. Blocks that may be
on a kink there count with all their elements, of which the smallest, the largest and the middle one are taken.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.program import ConeStructure
from conelayers.regularity.dense import Matrices, inverses, jacobians
from conelayers.regularity.extremes import curved_blocks
from conelayers.regularity.residual import ROUNDING, Residual
from conelayers.residual.linearization import linearize

__all__ = ["PointError", "determined_error", "point_error", "sparse_error"]

#: A solution may be this many times further off than the estimate: twice for the Jacobian's variation over the ball,
#: and half as much again for what the estimate leaves out.
SAFETY = 3.0
# Kinks nearer than this many times the error in the determined directions count as reached.
_REACHED = 25.0
_TRUSTED = 1e7
# Right-hand sides that estimate |J^-1| rho for sparse matrices.
_PROBES = 6
# Relative residual beyond which these solves tell nothing.
_SOLVED = 1e-3
# Iterations of the bound on what the Jacobian's variation adds, and by how much the last may still raise it.
_ITERATIONS, _CONVERGED = 6, 1.1
# Rounds in which the set of blocks that may be on a kink settles.
_ROUNDS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class PointError:
    """How far points are from solutions.

    Attributes:
        radius: Bound on the distance of each block of v, per row, (B, m); infinity where there is none.
        truncated: Whether the Jacobian is singular, so that the bound leaves its null directions out, bool, (B,).
    """

    radius: Tensor
    truncated: Tensor


def point_error(structure: ConeStructure, matrices: Matrices, v: Tensor, residual: Residual) -> PointError:
    """The error of B points, dense."""
    radius, margins = torch.zeros_like(v), _row_margins(structure, v)
    truncated = torch.zeros(v.shape[0], dtype=torch.bool)
    for _ in range(_ROUNDS):
        found = torch.zeros_like(v)
        for D in _elements(structure, v, radius, bool((margins <= radius).any())):
            inverse, cut = inverses(jacobians(matrices, D))
            truncated = truncated | cut
            found = torch.maximum(found, _bounded(structure, matrices, v, inverse, residual))
        previous, radius = radius, torch.maximum(radius, SAFETY * found)
        settled = ((margins <= radius) == (margins <= previous)).all(-1)
        if bool(settled.all()):
            break
    return PointError(torch.where(settled[:, None], radius, torch.inf), truncated)


def determined_error(structure: ConeStructure, matrices: Matrices, v: Tensor, residual: Residual) -> Tensor:
    """Distances within which B points count as on a kink: the error in directions that the Jacobian determines."""
    D = structure.cone.dual_derivative(v).matrix()
    return _REACHED * _first_order(structure, inverses(jacobians(matrices, D), _TRUSTED)[0], residual)


def sparse_error(structure: ConeStructure, P: Tensor, A: Tensor, v: Tensor, residual: Residual) -> PointError:
    """As `point_error` for large programmes: |J^-1| rho is estimated from random signs of rho, at the element at v."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (v.shape[0], _PROBES, structure.n + structure.m), generator=generator).to(v) * 2 - 1
    rhs = torch.cat([residual.values[:, None], signs * ROUNDING * residual.terms[:, None]], 1)
    _, dv, left = linearize(structure, P, A, v).attempt((rhs[..., : structure.n], rhs[..., structure.n :]))
    delta = _by_block(structure, 3 * dv.square().sum(1).sqrt())
    solved = (left <= _SOLVED).all(-1)
    return PointError(torch.where(solved[:, None], SAFETY * delta, torch.inf), torch.zeros_like(solved))


def _elements(structure: ConeStructure, v: Tensor, radius: Tensor, weak: bool) -> list[Tensor]:
    """The extreme elements, and their mean, where blocks may be on a kink; else the only one; (B, m, m) each."""
    low = structure.cone.dual_derivative(v, radius=radius).matrix()
    if not weak:
        return [low]
    high = structure.cone.dual_derivative(v, weak="max", radius=radius).matrix()
    return [low, high, (low + high) / 2]


def _row_margins(structure: ConeStructure, v: Tensor) -> Tensor:
    """Distances from kinks, of rows in polyhedral cones and of blocks in curved ones, (B, m)."""
    cones, margins = structure.cone.cones, structure.cone.margin(v)
    owner = torch.repeat_interleave(torch.arange(len(cones)), torch.tensor([c.dim for c in cones], dtype=torch.int64))
    alone = torch.tensor([c.polyhedral and c.has_kinks for c in cones], dtype=torch.bool)[owner]
    return torch.where(alone, v.abs(), margins[:, owner])


def _bounded(structure: ConeStructure, matrices: Matrices, v: Tensor, inverse: Tensor, residual: Residual) -> Tensor:
    """First-order errors of v, per row, and what the variation of the Jacobian adds; infinity if that has no end."""
    first = _first_order(structure, inverse, residual)
    gain = (inverse[:, :, : structure.n] @ matrices.A.mT + inverse[:, :, structure.n :])[:, structure.n :].abs()
    if structure.cone.is_polyhedral:
        return first
    delta, before, rate = first, first, _turning_rate(structure, v, SAFETY * first)
    for _ in range(_ITERATIONS):
        # |D' - D| on the way to the ball's edge, about half the turning of both spaces, times the radius.
        change = (rate * SAFETY * delta).clamp(max=1.0) * SAFETY * delta / 2
        before, delta = delta, first + _by_block(structure, (gain @ change[..., None])[..., 0])
    return torch.where((delta <= _CONVERGED * before).all(-1, keepdim=True), delta, torch.inf)


def _first_order(structure: ConeStructure, inverse: Tensor, residual: Residual) -> Tensor:
    """|J^-1 F|, and three standard deviations of what rounding errors of F make, by blocks, (B, m)."""
    rows = inverse[:, structure.n :]
    moved = (rows @ residual.values[..., None])[..., 0].abs()
    noise = (rows.square() @ (ROUNDING * residual.terms).square()[..., None])[..., 0].sqrt()
    return _by_block(structure, moved + 3 * noise)


def _turning_rate(structure: ConeStructure, v: Tensor, radius: Tensor) -> Tensor:
    """By how much both spaces turn, together, over the radius, (B, m); zero in polyhedral rows."""
    rate = torch.zeros_like(v)
    for cone, _, rows in curved_blocks(structure.cone.dual()):
        here = radius[:, rows[:, 0]]
        one, zero = cone.turning(v[:, rows], here)
        rate[:, rows] = ((one + zero).clamp(max=1.0) / here.clamp(min=torch.finfo(v.dtype).tiny))[..., None]
    return rate


def _by_block(structure: ConeStructure, delta: Tensor) -> Tensor:
    """Norms of curved blocks in place of their rows."""
    for _, _, rows in curved_blocks(structure.cone):
        delta[:, rows] = delta[:, rows].norm(dim=-1, keepdim=True).expand(-1, *rows.shape)
    return delta

"""Points nearer to the solution, for items that the certificate cannot decide at the point that a solver left.

An interior-point method may stop with y and s both at 1e-5 in a row whose multiplier is 1e-5: v = y - s does not tell
on which side of its kink the row lies. The central path does: from the complementarity of the point it is followed, by
Newton steps on the residual with the proximal map of mu F in place of the projection, until mu is nothing. At points
that are not regular Newton steps that leave the null directions of the Jacobian out converge to one of the solutions.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.program import ConeProgram, ConeSolution
from conelayers.regularity.dense import DENSE_SIZE, inverses, jacobians
from conelayers.regularity.point import Point
from conelayers.regularity.residual import possible_kink

__all__ = ["EXACT", "sharpened", "sharper_solution"]

#: Steps are taken as long as some row of the residual is this many times larger than rounding errors.
EXACT = 8.0
_FACTOR, _LEVELS, _STEPS = 0.03, 14, 6
# Newton steps leave out directions in which the inverse of the equilibrated Jacobian exceeds this.
_TRUSTED = 1e6


def sharpened(point: Point) -> Point:
    """The same items at points with smaller residuals, where such are found."""
    found = _newton(point)
    far = found.residual.excess > EXACT
    if not bool(far.any()):
        return found
    other = _newton(_central(point.take(far)))
    better = other.residual.excess < found.residual.excess[far]
    x, v = found.x.clone(), found.v.clone()
    x[far], v[far] = (
        torch.where(better[:, None], new, old[far]) for new, old in ((other.x, found.x), (other.v, found.v))
    )
    return dataclasses.replace(found, x=x, v=v)


def sharper_solution(program: ConeProgram, solution: ConeSolution) -> ConeSolution:
    """The solution of a single programme, or a point nearer to it; as it is where the programme is large.

    Args:
        program: Without batch axes.
        solution: Its solution.
    """
    structure = program.structure
    if structure.n + structure.m > DENSE_SIZE:
        return solution
    flat, single = program.detach().flatten(), solution.reshape(torch.Size([1]))
    data, v = (flat.P, flat.q, flat.A, flat.b), single.y - single.s
    found = sharpened(Point.of(structure, data, single.x, single.y, single.s, possible_kink(flat, single, v)))
    y = structure.cone.project_dual(found.v)
    return dataclasses.replace(single, x=found.x, y=y, s=y - found.v).reshape(torch.Size([]))


def _newton(point: Point) -> Point:
    """Newton steps on the residual, as long as they lower it."""
    matrices, residual = point.matrices, point.residual
    for _ in range(_STEPS):
        if bool((residual.excess <= EXACT).all()):
            break
        D = point.structure.cone.dual_derivative(point.v).matrix()
        moved = _step(point, inverses(jacobians(matrices, D), _TRUSTED)[0], residual.values)
        after = moved.residual
        better = (after.excess < residual.excess)[:, None]
        if not bool(better.any()):
            break
        point = dataclasses.replace(
            point, x=torch.where(better, moved.x, point.x), v=torch.where(better, moved.v, point.v)
        )
        residual = point.residual
    return point


def _central(point: Point) -> Point:
    """The end of the central path through the point."""
    structure, matrices = point.structure, point.matrices
    start = torch.maximum(point.mu, point.guess.square()[:, None])
    for level in range(_LEVELS):
        mu = (start * _FACTOR**level).clamp(min=torch.finfo(torch.float64).tiny ** 0.25)
        for _ in range(2):
            y = structure.cone.project_dual(point.v, mu=mu)
            residual = point.residual.values
            shift = y - structure.cone.project_dual(point.v)
            residual = residual + torch.cat([(matrices.A.mT @ shift[..., None])[..., 0], shift], -1)
            D = structure.cone.dual_derivative(point.v, mu=mu).matrix()
            moved = _step(point, inverses(jacobians(matrices, D))[0], residual)
            usable = (moved.x.isfinite().all(-1) & moved.v.isfinite().all(-1))[:, None]
            point = dataclasses.replace(
                point, x=torch.where(usable, moved.x, point.x), v=torch.where(usable, moved.v, point.v)
            )
    return point


def _step(point: Point, inverse: Tensor, residual: Tensor) -> Point:
    step = (inverse @ residual[..., None])[..., 0]
    n = point.structure.n
    return dataclasses.replace(point, x=point.x - step[:, :n], v=point.v - step[:, n:])

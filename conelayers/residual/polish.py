"""Semismooth Newton steps on the optimality conditions, after a backend has done the work."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.program import ConeProgram, ConeSolution, Residuals, Status, residuals
from conelayers.residual.linearization import linearize

__all__ = ["polish"]

_ROUNDOFF = 1e-15
_SOLVED = 1e-8


def polish(program: ConeProgram, solution: ConeSolution, steps: int = 3) -> ConeSolution:
    """Newton steps on F1 = Px + q + A'Pi(v), F2 = Ax + Pi(v) - v - b with the Jacobian J(D), from v = y - s.

    Afterwards y = Pi_{K*}(v) and s = Pi_K(-v), so both cones and complementarity hold to roundoff. Each item keeps, of
    all points on the way and the one it came with, the one of smallest residual. Near a solution where J is invertible
    the residual is squared at each step (Qi & Sun 1993).

    Args:
        program: The programmes, on any device.
        solution: What a backend found, with the programme's batch axes. Items without a solution are left alone.
        steps: Limit on Newton steps.

    Returns:
        The better solution. An inaccurate item whose residuals come below 1e-8 counts as solved.
    """
    batch, structure = program.batch_shape, program.structure
    flat = program.detach().flatten()
    count = batch.numel()
    start = solution.detach().reshape(torch.Size([count]))
    if count == 0 or not bool(start.has_solution.any()):
        return solution
    keep = start.has_solution
    best_points = (start.x, start.y, start.s)
    best = Residuals(start.primal_residual, start.dual_residual, start.gap)
    x, v = (torch.where(keep[:, None], value, 0.0) for value in (start.x, start.y - start.s))
    previous = torch.full_like(best.gap, torch.inf)
    for step in range(steps + 1):
        y = structure.cone.project_dual(v)
        s = y - v
        measured = residuals(flat, x, y, s)
        better = keep & (measured.worst < best.worst)
        best_points = tuple(
            torch.where(better[:, None], new, old) for new, old in zip((x, y, s), best_points, strict=True)
        )
        best = _choose(better, measured, best)
        # An item goes on as long as steps lower the residual of its iterates and there is something left to gain. The
        # first iterate may be worse than what the backend returned: projecting v magnifies the gap of an inner point.
        moving = keep & (measured.worst > _ROUNDOFF) & (measured.worst < previous)
        previous = measured.worst
        if step == steps or not bool(moving.any()):
            break
        dx, dv = _newton_step(flat, x, y, s, v)
        x, v = torch.where(moving[:, None], x + dx, x), torch.where(moving[:, None], v + dv, v)
    code = torch.where(keep & (best.worst <= _SOLVED), int(Status.SOLVED), start.status_code)
    polished = dataclasses.replace(
        start,
        x=best_points[0],
        y=best_points[1],
        s=best_points[2],
        status_code=code.to(start.status_code.dtype),
        primal_residual=best.primal,
        dual_residual=best.dual,
        gap=best.gap,
    )
    return polished.reshape(batch)


def _newton_step(program: ConeProgram, x: Tensor, y: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Solve J(D) [dx; dv] = -[F1; F2] for one right-hand side per item."""
    first = program.P_times(x) + program.q + program.A_transpose_times(y)
    second = program.A_times(x) + s - program.b
    linearization = linearize(program.structure, program.P, program.A, v)
    dx, dv = linearization.solve((-first[:, None], -second[:, None]))
    return dx[:, 0], dv[:, 0]


def _choose(better: Tensor, new: Residuals, old: Residuals) -> Residuals:
    fields = (torch.where(better, getattr(new, f.name), getattr(old, f.name)) for f in dataclasses.fields(old))
    return Residuals(*fields)

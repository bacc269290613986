"""How well (x, y, s) solves a programme, measured from the data and nothing else."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.program.program import ConeProgram

__all__ = ["Residuals", "residuals"]


@dataclasses.dataclass(frozen=True)
class Residuals:
    """Relative residuals of the optimality conditions, one per batch item, shapes (*batch,).

    Attributes:
        primal: ||Ax + s - b|| / max(1, ||b||, ||Ax||, ||s||), in the infinity norm.
        dual: ||Px + q + A'y|| / max(1, ||q||, ||Px||, ||A'y||), in the infinity norm.
        gap: |x'Px + q'x + b'y| / max(1, min(|primal objective|, |dual objective|)).
    """

    primal: Tensor
    dual: Tensor
    gap: Tensor

    @property
    def worst(self) -> Tensor:
        """The largest of the three, shape (*batch,)."""
        return torch.maximum(self.primal, torch.maximum(self.dual, self.gap))


def residuals(program: ConeProgram, x: Tensor, y: Tensor, s: Tensor) -> Residuals:
    """Relative residuals of (x, y, s).

    Each is relative to the terms it is made of, in the infinity norm. Interior-point solvers divide by the norms of x,
    y and s as well, so a solver's "solved" can come with larger numbers here where these norms are large.

    Args:
        program: The programmes, batch axes broadcasting with those of the points.
        x: Primal variables, shape (*batch, n).
        y: Dual variables, shape (*batch, m).
        s: Slacks, shape (*batch, m).
    """
    Ax, Aty, Px = program.A_times(x), program.A_transpose_times(y), program.P_times(x)
    one = x.new_ones(())
    primal_scale = _largest(one, program.b, Ax, s)
    dual_scale = _largest(one, program.q, Px, Aty)
    xPx, qx, by = (x * Px).sum(-1), (program.q * x).sum(-1), (program.b * y).sum(-1)
    primal_objective, dual_objective = xPx / 2 + qx, -xPx / 2 - by
    gap_scale = torch.clamp(torch.minimum(primal_objective.abs(), dual_objective.abs()), min=1.0)
    return Residuals(
        _norm(Ax + s - program.b) / primal_scale,
        _norm(Px + program.q + Aty) / dual_scale,
        (primal_objective - dual_objective).abs() / gap_scale,
    )


def _norm(u: Tensor) -> Tensor:
    """Infinity norm along the last axis; zero for an empty one."""
    return u.abs().amax(-1) if u.shape[-1] else u.new_zeros(u.shape[:-1])


def _largest(first: Tensor, *others: Tensor) -> Tensor:
    for other in others:
        first = torch.maximum(first, _norm(other))
    return first

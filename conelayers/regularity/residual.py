"""The residual of the optimality conditions at v, and the sizes of its terms.

Rows are compared with the terms that they are sums of, never with other rows: costs and constraints of sizes far apart
do not share a tolerance.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.program.products import A_times, A_transpose_times, P_times
from conelayers.regularity.extremes import curved_blocks

__all__ = ["ROUNDING", "Residual", "natural_residual", "possible_kink"]

#: Standard deviation of the rounding errors of a sum, and of its data, beside the sum of its terms' moduli.
ROUNDING = 2 * torch.finfo(torch.float64).eps
# A row whose residual is below this part of its terms is taken for satisfied, and one below the second part of the
# largest terms of all rows.
_CONSISTENT, _NEGLIGIBLE, _NEGLIGIBLE_TERMS = 1e-8, 1e-14, 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Residual:
    """F at points (x, v), and the sizes of its terms.

    Attributes:
        values: F, shape (B, n + m).
        terms: Sums of the moduli of what each row is a sum of, (B, n + m).
        y: Pi(v), (B, m).
    """

    values: Tensor
    terms: Tensor
    y: Tensor

    @property
    def excess(self) -> Tensor:
        """How many times larger than rounding errors |F| is in its worst row, (B,).

        A row whose terms vanish is measured by a small part of the largest terms of all rows.
        """
        size = self.terms + _NEGLIGIBLE_TERMS * self.terms.amax(-1, keepdim=True)
        return (self.values.abs() / (ROUNDING * size).clamp(min=torch.finfo(torch.float64).tiny)).amax(-1)

    @property
    def consistent(self) -> Tensor:
        """Whether every row is small beside its own terms: v has the solution's faces, whatever its distance, (B,)."""
        size = self.terms.amax(-1, keepdim=True)
        return (self.values.abs() <= _CONSISTENT * self.terms + _NEGLIGIBLE * size).all(-1)


def natural_residual(
    structure: ConeStructure, P: Tensor, q: Tensor, A: Tensor, b: Tensor, x: Tensor, v: Tensor
) -> Residual:
    """The residual at v; data of B items or one, x (B, n), v (B, m)."""
    y = structure.cone.project_dual(v)
    sizes = _block_sizes(structure, v)
    first = P_times(structure, P, x) + q + A_transpose_times(structure, A, y)
    second = A_times(structure, A, x) + y - v - b
    one = (
        P_times(structure, P.abs(), x.abs())
        + q.abs()
        + A_transpose_times(structure, A.abs(), torch.where(y != 0, sizes, 0.0))
    )
    two = A_times(structure, A.abs(), x.abs()) + sizes + b.abs()
    return Residual(torch.cat([first, second], -1), torch.cat([one, two], -1), y)


def _block_sizes(structure: ConeStructure, v: Tensor) -> Tensor:
    """|v|, and the norm of the block for rows of curved blocks: their projections mix them."""
    sizes = v.abs().clone()
    for _, _, rows in curved_blocks(structure.cone):
        sizes[:, rows] = v[:, rows].norm(dim=-1, keepdim=True).expand(-1, *rows.shape)
    return sizes


def possible_kink(program: ConeProgram, solution: ConeSolution, v: Tensor) -> Tensor:
    """Distance within which a block may lie on a kink, from the residuals and the size of v, (B,).

    Residuals are measured here against the largest terms: what a block's distance to a kink shows is an absolute error.
    A weakly active block is found only to the square root of the residual; this is a cheap bound for screening.

    Slack linear inequalities do not count: a bound of 1e10 that nothing comes near would hide every other number behind
    its size.

    Args:
        program: One batch axis at most.
        solution: With one batch axis B.
        v: y - s, shape (B, m); anything finite for items without a solution.
    """
    slack = torch.as_tensor(_inequalities(program.structure.cone), device=v.device) & (v < 0)
    x, y, s = solution.x, solution.y, solution.s
    Ax, Px, Aty = program.A_times(x), program.P_times(x), program.A_transpose_times(y)
    primal = _relative(*(torch.where(slack, 0.0, value) for value in (Ax + s - program.b, Ax, s, program.b)))
    dual = _relative(Px + program.q + Aty, Px, program.q, Aty)
    xPx, qx, by = (x * Px).sum(-1), (program.q * x).sum(-1), (program.b * torch.where(slack, 0.0, y)).sum(-1)
    gap = (xPx + qx + by).abs() / torch.minimum((xPx / 2 + qx).abs(), (xPx / 2 + by).abs()).clamp(min=1.0)
    residual = torch.maximum(primal, torch.maximum(dual, gap)).nan_to_num(nan=0.0).clamp(min=1e-15)
    return _largest(torch.where(slack, 0.0, v)).clamp(min=1.0) * 5 * residual.sqrt()


def _relative(left: Tensor, *terms: Tensor) -> Tensor:
    """What is left of a sum, relative to the largest entry of its terms and to one, (B,)."""
    return _largest(left) / torch.stack([_largest(term).expand(_largest(left).shape) for term in terms]).amax(0).clamp(
        min=1.0
    )


def _largest(values: Tensor) -> Tensor:
    return values.abs().amax(-1) if values.shape[-1] else values.new_zeros(values.shape[:-1])


@functools.lru_cache(maxsize=64)
def _inequalities(cone: ProductCone) -> np.ndarray:
    """Which rows are linear inequalities, bool, (m,)."""
    owners = np.array([block.polyhedral and block.has_kinks for block in cone.cones], dtype=bool)
    return np.repeat(owners, [block.dim for block in cone.cones])

"""A cheap test that clears ordinary solutions, so that rank tests are for the suspicious ones.

Without a weakly active block J(D) is the only element of the Clarke Jacobian. One step of inverse iteration, J z = r
from a random r, tells whether it is singular: if its smallest singular value is zero, with the left singular vector u,
no z brings the relative residual below |<u, r>| / |r|, which is about 1 / sqrt(N); if it is tiny, |r| / |z| is of its
size times sqrt(N). So a few digits of z will do: this costs one factorization and one or two solves with it, about half
a backward.

Whether a block is weakly active is read off y and s where that is cheaper than the margin: Y + S = |V| has the moduli
of V's eigenvalues, and exponential and power blocks away from both cones have the distances |s| and |y| from them.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from conelayers.cones import Cone, ProductCone
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.regularity.extremes import curved_blocks
from conelayers.regularity.residual import possible_kink
from conelayers.residual.linearization import probe

__all__ = ["kink_margin", "suspicious"]

# J's entries vary with the user's units; far below this even badly scaled regular problems do not come.
_SMALLEST = 1e-7
# Relative residual to which J z = r is solved; where it is not reached J counts as nearly singular.
_RESIDUAL = 1e-5


def suspicious(program: ConeProgram, solution: ConeSolution) -> Tensor:
    """Which items need rank tests, bool, (*batch,).

    Items without a solution are not suspicious: nothing of theirs is differentiated.
    """
    batch, structure = program.batch_shape, program.structure
    flat, point = program.detach().flatten(), solution.detach().reshape(torch.Size([batch.numel()]))
    solved = point.has_solution
    y, s = (torch.where(solved[:, None], value, fill) for value, fill in ((point.y, 1.0), (point.s, 0.0)))
    v = y - s
    doubtful = _near_kinks(structure.cone, y, s, v, possible_kink(flat, point, v))
    doubtful = doubtful | _nearly_singular(flat.P, flat.A, y, s, structure)
    return (doubtful & solved).reshape(batch)


def kink_margin(solution: ConeSolution, cone: ProductCone) -> Tensor:
    """Distance of v = y - s to the nearest kink, (*batch,); NaN for items without a solution."""
    solved = solution.has_solution
    v = torch.where(solved[..., None], solution.y - solution.s, 1.0)
    margins = cone.margin(v)
    margin = margins.amin(-1) if margins.shape[-1] else v.new_full(v.shape[:-1], torch.inf)
    return torch.where(solved, margin, torch.nan)


def _near_kinks(cone: ProductCone, y: Tensor, s: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """Whether the margin is at most `reach`, (B,), for y = Pi(v) and s = y - v."""
    lines, curved = _blocks(cone)
    near = torch.zeros_like(reach, dtype=torch.bool)
    if lines is not None:
        near = v[:, lines].abs().amin(-1) <= reach
    for block, rows, shape in curved:
        of_y, of_s, of_v = (value[:, rows].reshape(-1, *shape) for value in (y, s, v))
        near = near | block.near_kink(of_y, of_s, of_v, reach[:, None]).any(-1)
    return near


Rows = Tensor | slice


@functools.lru_cache(maxsize=64)
def _blocks(cone: ProductCone) -> tuple[Rows | None, list[tuple[Cone, Rows, torch.Size]]]:
    """Rows of half-lines; equal curved blocks of the dual cone with their rows and their (count, d)."""
    lines = [
        torch.arange(cone.offsets[i], cone.offsets[i + 1])
        for i, block in enumerate(cone.cones)
        if block.polyhedral and block.dim and block.has_kinks
    ]
    curved = [(block, _rows(members.reshape(-1)), members.shape) for block, _, members in curved_blocks(cone.dual())]
    return _rows(torch.cat(lines)) if lines else None, curved


def _rows(index: Tensor) -> Rows:
    """The rows as a slice where they are consecutive, which spares a copy."""
    first, last = int(index[0]), int(index[-1]) + 1
    return slice(first, last) if torch.equal(index, torch.arange(first, last)) else index


def _nearly_singular(P: Tensor, A: Tensor, y: Tensor, s: Tensor, structure: ConeStructure) -> Tensor:
    if y.shape[0] == 0:
        return torch.zeros(0, dtype=torch.bool)
    rhs, size = _direction(structure.n + structure.m)
    length, residual = probe(structure, P, A, y, s, rhs.to(y), accuracy=_RESIDUAL)
    return ~((size > _SMALLEST * length) & (residual <= _RESIDUAL))


@functools.lru_cache(maxsize=64)
def _direction(size: int) -> tuple[Tensor, float]:
    """A right-hand side in general position, and its norm."""
    rhs = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return rhs, float(rhs.norm())

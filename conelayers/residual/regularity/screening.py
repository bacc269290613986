"""A cheap test that clears ordinary solutions, so that rank tests are for the suspicious ones.

Without a weakly active block J(D) is the only element of the Clarke Jacobian. One step of inverse iteration, J z = r
from a random r, tells whether it is singular: if its smallest singular value is zero, with the left singular vector u,
no z brings the relative residual below |<u, r>| / |r|, which is about 1 / sqrt(N); if it is tiny, |r| / |z| is of its
size times sqrt(N). This costs one factorization with one right-hand side: less than a backward.

Whether a block is weakly active is read off y and s where that is cheaper than the margin: Y + S = |V| has the moduli
of V's eigenvalues, and exponential and power blocks away from both cones have the distances |s| and |y| from them.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from conelayers.cones import Cone, Free, PositiveSemidefinite, ProductCone, SecondOrder, Zero
from conelayers.cones.svec import smat
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.residual.linearization import linearize
from conelayers.residual.regularity.certificate import accuracy
from conelayers.residual.regularity.extremes import curved_blocks

__all__ = ["kink_margin", "suspicious"]

# J's entries vary with the user's units; far below this even badly scaled regular problems do not come.
_SMALLEST = 1e-7
_RESIDUAL = 1e-6


def suspicious(program: ConeProgram, solution: ConeSolution) -> Tensor:
    """Which items need rank tests, bool, (*batch,).

    Items without a solution are not suspicious: nothing of theirs is differentiated.
    """
    batch, structure = program.batch_shape, program.structure
    flat, point = program.detach().flatten(), solution.detach().reshape(torch.Size([batch.numel()]))
    solved = point.has_solution
    y, s = (torch.where(solved[:, None], value, fill) for value, fill in ((point.y, 1.0), (point.s, 0.0)))
    doubtful = _near_kinks(structure.cone, y, s, accuracy(point, y - s).possibly)
    doubtful = doubtful | _nearly_singular(flat.P, flat.A, y - s, structure)
    return (doubtful & solved).reshape(batch)


def kink_margin(solution: ConeSolution, cone: ProductCone) -> Tensor:
    """Distance of v = y - s to the nearest kink, (*batch,); NaN for items without a solution."""
    solved = solution.has_solution
    v = torch.where(solved[..., None], solution.y - solution.s, 1.0)
    margins = cone.margin(v)
    margin = margins.amin(-1) if margins.shape[-1] else v.new_full(v.shape[:-1], torch.inf)
    return torch.where(solved, margin, torch.nan)


def _near_kinks(cone: ProductCone, y: Tensor, s: Tensor, reach: Tensor) -> Tensor:
    """Whether the margin is at most `reach`, (B,), for y = Pi(v) and s = y - v."""
    lines, curved = _blocks(cone)
    near = torch.zeros_like(reach, dtype=torch.bool)
    if len(lines):
        near = ((y - s)[:, lines].abs() <= reach[:, None]).any(-1)
    for block, rows in curved:
        near = near | _block_near_kink(block, y[:, rows], s[:, rows], reach[:, None]).any(-1)
    return near


def _block_near_kink(block: Cone, y: Tensor, s: Tensor, reach: Tensor) -> Tensor:
    """The same for equal blocks: y and s (B, count, d), reach (B, 1) to (B, count)."""
    if isinstance(block, PositiveSemidefinite):
        modulus = smat(y + s)
        identity = torch.eye(modulus.shape[-1], dtype=y.dtype, device=y.device)
        return torch.linalg.cholesky_ex(modulus - reach[..., None, None] * identity).info != 0
    v = y - s
    if isinstance(block, SecondOrder):
        return block.margin(v) <= reach
    # Exponential and power: outside of both cones the distances are |s| and |y|, but for kinks beside the flat faces,
    # which lie on the planes of coordinates.
    near = torch.minimum(torch.minimum(y.norm(dim=-1), s.norm(dim=-1)), v.abs().amin(-1)) <= reach
    if bool(near.any()):
        near[near.clone()] = block.margin(v[near]) <= reach.expand_as(near)[near]
    return near


@functools.lru_cache(maxsize=64)
def _blocks(cone: ProductCone) -> tuple[Tensor, list[tuple[Cone, Tensor]]]:
    """Rows of half-lines, and equal curved blocks of the dual cone with their rows (count, d)."""
    lines = [
        torch.arange(cone.offsets[i], cone.offsets[i + 1])
        for i, block in enumerate(cone.cones)
        if block.polyhedral and not isinstance(block, Zero | Free)
    ]
    rows = torch.cat(lines) if lines else torch.zeros(0, dtype=torch.int64)
    return rows, [(block, members) for block, _, members in curved_blocks(cone.dual())]


def _nearly_singular(P: Tensor, A: Tensor, v: Tensor, structure: ConeStructure) -> Tensor:
    items, n = v.shape[0], structure.n
    if items == 0:
        return torch.zeros(0, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    rhs = torch.randn(n + structure.m, dtype=v.dtype, generator=generator).to(v.device)
    first, second = rhs[:n].repeat(items, 1, 1), rhs[n:].repeat(items, 1, 1)
    dx, dv, residual = linearize(structure, P, A, v).attempt((first, second))
    length = torch.hypot(dx.norm(dim=-1), dv.norm(dim=-1))
    fine = (rhs.norm() / length > _SMALLEST) & (residual <= _RESIDUAL)
    return ~fine.all(-1)

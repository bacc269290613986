"""A cheap test that clears ordinary solutions, so that rank tests are for the suspicious ones.

Without a weakly active block J(D) is the only element of the Clarke Jacobian. One step of inverse iteration, J z = r
from a random r, tells whether it is singular: if its smallest singular value is zero, with the left singular vector u,
no z brings the relative residual below |<u, r>| / |r|, which is about 1 / sqrt(N); if it is tiny, |r| / |z| is of its
size times sqrt(N). This costs one factorization with one right-hand side and a product: less than a backward.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.program.products import A_times, A_transpose_times, P_times
from conelayers.residual.linearization import linearize
from conelayers.residual.regularity.certificate import accuracy

__all__ = ["kink_margin", "suspicious"]

# J's entries vary with the user's units; far below this even badly scaled regular problems do not come.
_SMALLEST = 1e-7
_RESIDUAL = 1e-6


def suspicious(program: ConeProgram, solution: ConeSolution) -> tuple[Tensor, Tensor]:
    """Which items need rank tests, bool, and the kink margin of all, both (*batch,).

    Items without a solution are not suspicious: nothing of theirs is differentiated.
    """
    batch, structure = program.batch_shape, program.structure
    flat = program.detach().flatten()
    point = solution.detach().to(torch.device("cpu")).reshape(torch.Size([batch.numel()]))
    solved = point.has_solution
    v = torch.where(solved[:, None], point.y - point.s, 1.0)
    margin = kink_margin(point, structure.cone)
    weak = margin <= accuracy(point, v).possibly
    doubtful = weak | _nearly_singular(flat.P.cpu(), flat.A.cpu(), v, structure)
    return (doubtful & solved).reshape(batch), margin.reshape(batch)


def kink_margin(solution: ConeSolution, cone: ProductCone) -> Tensor:
    """Distance of v = y - s to the nearest kink, (*batch,); NaN for items without a solution."""
    solved = solution.has_solution
    v = torch.where(solved[..., None], solution.y - solution.s, 1.0)
    margins = cone.margin(v)
    margin = margins.amin(-1) if margins.shape[-1] else v.new_full(v.shape[:-1], torch.inf)
    return torch.where(solved, margin, torch.nan)


def _nearly_singular(P: Tensor, A: Tensor, v: Tensor, structure: ConeStructure) -> Tensor:
    items, n = v.shape[0], structure.n
    if items == 0:
        return torch.zeros(0, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    rhs = torch.randn(1, 1, n + structure.m, dtype=v.dtype, generator=generator).expand(items, -1, -1)
    linearization = linearize(structure, P, A, v)
    dx, dv = linearization.solve((rhs[..., :n].contiguous(), rhs[..., n:].contiguous()))
    w = linearization.project(dv)
    residual = _product(P, A, dx, dv, w, structure) - rhs
    length = torch.hypot(dx.norm(dim=-1), dv.norm(dim=-1))
    bad = ~(rhs.norm(dim=-1) / length > _SMALLEST)
    bad = bad | ~(residual.norm(dim=-1) <= _RESIDUAL * rhs.norm(dim=-1))
    return bad.any(-1)


def _product(P: Tensor, A: Tensor, dx: Tensor, dv: Tensor, w: Tensor, structure: ConeStructure) -> Tensor:
    """J [dx; dv] with w = D dv, shape (B, k, n + m)."""
    P, A = P.unsqueeze(-2), A.unsqueeze(-2)
    first = P_times(structure, P, dx) + A_transpose_times(structure, A, w)
    return torch.cat([first, A_times(structure, A, dx) + w - dv], -1)

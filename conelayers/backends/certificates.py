"""Certificates of infeasibility and of unboundedness, judged in the data of the programme and by nothing else.

A programme has no feasible point if some y in K* has A'y = 0 and b'y < 0, and is unbounded, where it is feasible, if
some x has Px = 0, -Ax in K and q'x < 0. A solver stops where these hold to its tolerance, relative to the largest
entries of the data; where the data are of very different sizes that says little: min x_1^2 + 1e-9 x_2^2 - x_2 looks
unbounded along x_2. Here each row of an equation is compared with the sum of the absolute values of its own terms,
which no choice of units changes: a ray that passes is exact for data whose entries differ from the given ones by so
small a part of each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from conelayers.backends.blocks import Blocks
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status

__all__ = ["EXACT", "ROUGH", "proven_status"]

EXACT, ROUGH = 1e-7, 1e-5
"""What the worst row of an equation may leave of its own terms: at first, and where a second way found no solution."""

_CLEARLY = 1e3  # how many times that the objective must gain, relative to its own terms

# The interior points that solvers return have small entries in place of zeros: parts of a ray below these of its
# largest one are tried as zeros. Whatever ray passes is a certificate.
_NEGLIGIBLE = (0.0, 1e-10, 1e-8, 1e-6, 1e-4)


def proven_status(program: ConeProgram, solution: ConeSolution, exact: float) -> Tensor:
    """Status codes, int8, shape (B,): certificates are as they are if they hold, failures if they do not.

    The last points of items that ended without a claim are tried as well.

    Args:
        program: The programmes, one batch axis at most.
        solution: x, y and s of items without a solution are the rays, of any length, or where the solver stopped.
        exact: What the worst row of an equation may leave of its own terms.
    """
    ended = ~solution.has_solution
    claimed = ended & (solution.status_code < int(Status.ITERATION_LIMIT))
    code = torch.where(claimed, int(Status.FAILED), solution.status_code)
    part = torch.nonzero(ended)[:, 0]
    if not len(part):
        return solution.status_code
    data = (value if value.shape[0] == 1 else value[part] for value in _rows(program))
    programs = ConeProgram.unchecked(program.structure, *data)
    infeasible, unbounded = (
        _infeasible(programs, solution.y[part], exact),
        _unbounded(programs, solution.x[part], exact),
    )
    # Where both hold, the solver's word counts.
    infeasible &= ~unbounded | (solution.status_code[part] != int(Status.DUAL_INFEASIBLE))
    found = torch.where(unbounded, int(Status.DUAL_INFEASIBLE), code[part])
    code[part] = torch.where(infeasible, int(Status.PRIMAL_INFEASIBLE), found).to(code.dtype)
    return code.to(torch.int8)


def _infeasible(program: ConeProgram, y: Tensor, exact: float) -> Tensor:
    """Whether y, projected on K*, proves that there is no feasible point; shape (B,)."""
    structure, blocks, size = program.structure, Blocks.of(program.structure), _sizes(program)
    y = structure.cone.project_dual(_finite(y))
    weight = blocks.spread(blocks.largest(y.abs() * _row_sizes(size)))
    proven = torch.zeros(y.shape[:-1], dtype=torch.bool, device=y.device)
    for ray in _cleaned(y, weight):
        # The entries of a curved block share a scale: one that should be zero is no term of its own.
        terms = size.A_transpose_times(blocks.spread(blocks.largest(ray.abs())))
        left = _ratio(program.A_transpose_times(ray).abs(), terms)
        proven |= _holds(left, _gain(program.b, ray), exact)
    return proven


def _unbounded(program: ConeProgram, x: Tensor, exact: float) -> Tensor:
    """Whether the objective falls for ever along x, from any feasible point; shape (B,)."""
    structure, blocks, size = program.structure, Blocks.of(program.structure), _sizes(program)
    x = _finite(x)
    proven = torch.zeros(x.shape[:-1], dtype=torch.bool, device=x.device)
    for ray in _cleaned(x, x.abs() * _column_sizes(size)):
        s = -program.A_times(ray)
        outside = blocks.largest((structure.cone.project(s) - s).abs())
        rows = _ratio(outside, blocks.largest(size.A_times(ray.abs())))
        curvature = _ratio(program.P_times(ray).abs(), size.P_times(ray.abs()))
        proven |= _holds(torch.cat([curvature, rows], -1), _gain(program.q, ray), exact)
    return proven


def _cleaned(ray: Tensor, weight: Tensor) -> Iterator[Tensor]:
    """The ray without its negligible entries, for each sense of negligible."""
    largest = weight.amax(-1, keepdim=True) if weight.shape[-1] else weight
    for part in _NEGLIGIBLE:
        yield torch.where(weight >= part * largest, ray, 0.0)


def _holds(left: Tensor, gain: Tensor, exact: float) -> Tensor:
    """The judgement, from the relative residuals of all rows and the relative gain of the objective."""
    worst = left.amax(-1) if left.shape[-1] else left.new_zeros(left.shape[:-1])
    return (worst <= exact) & (gain > _CLEARLY * torch.clamp(worst, min=1e-15))


def _gain(cost: Tensor, ray: Tensor) -> Tensor:
    """By how much the objective falls along a ray, relative to the sizes of its terms."""
    terms = cost * ray
    return _ratio(-terms.sum(-1), terms.abs().sum(-1))


def _ratio(value: Tensor, size: Tensor) -> Tensor:
    """Value / size; 0 where there are no terms."""
    return torch.where(size == 0, 0.0, value / torch.where(size == 0, 1.0, size))


def _finite(ray: Tensor) -> Tensor:
    return torch.nan_to_num(ray, nan=0.0, posinf=0.0, neginf=0.0)


def _rows(program: ConeProgram) -> tuple[Tensor, ...]:
    """P, q, A and b with one batch axis each."""
    return tuple(v if v.dim() == 2 else v[None] for v in (program.P, program.q, program.A, program.b))


def _sizes(program: ConeProgram) -> ConeProgram:
    """The absolute values of the data."""
    return ConeProgram.unchecked(program.structure, *(value.abs() for value in _rows(program)))


def _row_sizes(size: ConeProgram) -> Tensor:
    """Largest entry of each row of A and b, shape (1 or B, m)."""
    structure = size.structure
    return torch.maximum(_largest(size.A, structure.A_indices, structure.m), size.b)


def _column_sizes(size: ConeProgram) -> Tensor:
    """Largest entry of each column of A and of q, shape (1 or B, n)."""
    structure: ConeStructure = size.structure
    return torch.maximum(_largest(size.A, structure.A_columns, structure.n), size.q)


def _largest(values: Tensor, index, count: int) -> Tensor:
    index = torch.as_tensor(index, device=values.device).expand(values.shape)
    return values.new_zeros((*values.shape[:-1], count)).scatter_reduce(-1, index, values, "amax")

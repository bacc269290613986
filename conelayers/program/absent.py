"""Rows without a bound: an infinite right-hand side constrains nothing, and would decide every norm and every product.

A row a'x <= inf becomes 0'x + s = 1. So does a block ||u|| <= inf of a second-order cone, or exp(u) <= inf and
-inf <= log(u) of an exponential one, with a point inside the cone on the right. The solution in the other unknowns, and
all derivatives, are those of the programme without the rows: y is zero there, and s far inside the cone.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import torch
from torch import Tensor

from conelayers.cones import Cone, Exponential, Nonnegative, SecondOrder
from conelayers.program.program import ConeProgram
from conelayers.program.solution import ConeSolution

__all__ = ["NO_BOUND", "AbsentRows", "without_absent_rows"]

NO_BOUND = 1e20
"""A right-hand side of at least so many times the largest entry of its row, and of 1, bounds nothing."""


@dataclasses.dataclass(frozen=True)
class AbsentRows:
    """Which rows a batch of programmes was freed of.

    Attributes:
        rows: bool, shape (B or 1, m).
        slack: What s is said to be there, shape (B, m).
        point: What it is in the programme without the rows, shape (m,).
    """

    rows: Tensor
    slack: Tensor
    point: Tensor

    def inside(self, solution: ConeSolution) -> ConeSolution:
        """A point of the programme as given, such as a start, as one of the programme without the rows."""
        return dataclasses.replace(
            solution,
            y=torch.where(self.rows, 0.0, solution.y),
            s=torch.where(self.rows, self.point, solution.s),
        )

    def restore(self, solution: ConeSolution) -> ConeSolution:
        """A solution of the programme without the rows as one of the programme as given."""
        there = self.rows & solution.has_solution[:, None]
        return dataclasses.replace(
            solution, y=torch.where(there, 0.0, solution.y), s=torch.where(there, self.slack, solution.s)
        )


def without_absent_rows(program: ConeProgram) -> tuple[ConeProgram, AbsentRows | None]:
    """The programmes with rows that hold for all x where a right-hand side is infinite, and these rows, if any.

    Args:
        program: One batch axis.
    """
    structure, b = program.structure, program.b
    if not b.numel() or float(b.abs().amax()) < NO_BOUND:  # not so if one is not a number
        return program, None
    kinds = _kinds(structure.cone.cones).to(b.device)
    index = torch.as_tensor(structure.A_indices, device=b.device)
    size = b.new_ones(program.A.shape[0], structure.m)
    size = size.scatter_reduce(-1, index.expand(program.A.shape), program.A.abs(), "amax")
    alone = kinds.alone & (b >= NO_BOUND * size)
    freeing = (b * kinds.sign == torch.inf).to(b.dtype)
    found = b.new_zeros(len(b), kinds.blocks).scatter_reduce(-1, kinds.block.expand(b.shape), freeing, "amax")
    together = (found[:, kinds.block] > 0) & ~b.isnan()
    absent = alone | together
    if not bool(absent.any()):
        return program, None
    if bool((absent == absent[:1]).all()):
        absent = absent[:1]
    A = torch.where(absent[:, index], 0.0, program.A)
    freed = ConeProgram(structure, program.P, program.q, A, torch.where(absent, kinds.inside, b))
    far = kinds.inside * NO_BOUND
    return freed, AbsentRows(absent, torch.where(alone & b.isfinite(), b, far), kinds.inside)


class _Kinds(NamedTuple):
    """What an infinite entry of b means, by rows, shape (m,) each."""

    alone: Tensor  # rows of nonnegative cones
    inside: Tensor  # a point inside the cones of which rows may be absent
    sign: Tensor  # of the infinity that frees the whole block; 0: none does
    block: Tensor
    blocks: int

    def to(self, device: torch.device) -> _Kinds:
        """The same on a device."""
        if device.type == "cpu":
            return self
        alone, inside, sign, block = (values.to(device) for values in self[:-1])
        return _Kinds(alone, inside, sign, block, self.blocks)


@functools.lru_cache(maxsize=64)
def _kinds(cones: tuple[Cone, ...]) -> _Kinds:
    alone: list[bool] = []
    inside: list[float] = []
    sign: list[float] = []
    block: list[int] = []
    for k, cone in enumerate(cones):
        point, frees = [0.0] * cone.dim, [0.0] * cone.dim
        if isinstance(cone, Nonnegative):
            point = [1.0] * cone.dim
        elif isinstance(cone, SecondOrder) and cone.dim:
            point[0] = frees[0] = 1.0
        elif isinstance(cone, Exponential):
            point, frees = [0.0, 1.0, 2.0], [-1.0, 0.0, 1.0]
        alone += [isinstance(cone, Nonnegative)] * cone.dim
        inside, sign, block = inside + point, sign + frees, block + [k] * cone.dim
    points, signs = (torch.tensor(values, dtype=torch.float64) for values in (inside, sign))
    return _Kinds(torch.tensor(alone), points, signs, torch.tensor(block), len(cones))

"""How well (x, y, s) solves a programme, measured from the data and nothing else."""

from __future__ import annotations

import dataclasses
import weakref
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import Nonnegative, Zero
from conelayers.program.program import ConeProgram
from conelayers.program.structure import ConeStructure

__all__ = ["Residuals", "residuals"]

# As in row_sizes.hpp: a row counts as no smaller than this share of its usual size, or of one; ...
_SHARE = 1e-4
# ... a row that is smaller than this, and than this part of another one, says nothing of what is usual.
_UNUSUAL = 1e-3


@dataclasses.dataclass(frozen=True)
class Residuals:
    """Relative residuals of the optimality conditions, one per batch item, shapes (*batch,).

    Attributes:
        primal: The largest row of |Ax + s - b|, and of the distance of s to K, relative to the row's own terms.
        dual: The largest row of |Px + q + A'y|, and of the distance of y to K*, relative to the row's own terms.
        gap: |x'Px + q'x + b'y| relative to the sum of the sizes of its terms or to one; or the largest |s'y| of a
            block relative to the sizes of the block's slacks and multipliers or to one, if that is larger.
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

    Each row is measured against its own largest term, in a curved cone against that of its block: a residual is then
    the relative change of the data of its row that explains it (Oettli & Prager, 1964), and no huge row hides another.
    The summands of a product count for 1e-4 of their size, which is far above their rounding.
    A row whose terms vanish has no size of its own: it counts as no smaller than 1e-4 of what is usual for its unknowns
    in their other rows, or of one.

    Args:
        program: The programmes, batch axes broadcasting with those of the points.
        x: Primal variables, shape (*batch, n).
        y: Dual variables, shape (*batch, m).
        s: Slacks, shape (*batch, m).
    """
    structure = program.structure
    Ax, Aty, Px = program.A_times(x), program.A_transpose_times(y), program.P_times(x)
    sizes = _sizes(program, x, y, s, Ax, Aty, Px)
    cone = structure.cone
    # A point that is not finite has residuals that are not; eigendecompositions would raise on it.
    finite_s, finite_y = (torch.nan_to_num(z, nan=0.0, posinf=0.0, neginf=0.0) for z in (s, y))
    outside_s, outside_y = cone.project_dual(-finite_s).abs(), (cone.project_dual(finite_y) - finite_y).abs()
    primal_rest, dual_rest = torch.maximum((Ax + s - program.b).abs(), outside_s), (Px + program.q + Aty).abs()
    quadratic, linear, bound = x * Px, program.q * x, program.b * y
    terms = quadratic.abs().sum(-1) + linear.abs().sum(-1) + bound.abs().sum(-1)
    one_x, one_y = _one(sizes.rows, program.b), _one(sizes.columns, program.q)
    gap = (quadratic.sum(-1) + linear.sum(-1) + bound.sum(-1)).abs() / torch.maximum(terms, one_x * one_y)
    slack, price = torch.maximum(sizes.rows, sizes.usual_rows), torch.maximum(y.abs(), sizes.multipliers)
    blocks = _layout(structure)
    product = blocks.sums(s * y).abs() / (
        torch.maximum(blocks.largest(slack), one_x[..., None]) * torch.maximum(blocks.largest(price), one_y[..., None])
    )
    return Residuals(
        _norm(primal_rest / _floored(sizes.rows, sizes.usual_rows, one_x)),
        torch.maximum(
            _norm(dual_rest / _floored(sizes.columns, sizes.usual_columns, one_y)),
            _norm(outside_y / blocks.of_rows(blocks.largest(price)).clamp(min=_SHARE)),
        ),
        torch.maximum(gap, _norm(product)),
    )


def _norm(u: Tensor) -> Tensor:
    """Infinity norm along the last axis; zero for an empty one."""
    return u.abs().amax(-1) if u.shape[-1] else u.new_zeros(u.shape[:-1])


def _floored(own: Tensor, usual: Tensor, one: Tensor) -> Tensor:
    return torch.maximum(own, _SHARE * torch.maximum(usual, one[..., None]))


def _one(sizes: Tensor, data: Tensor) -> Tensor:
    """What counts as one: the largest size where it is smaller and the data say so, shape (*batch,)."""
    return torch.where(_norm(data) > 0, _norm(sizes).clamp(max=1.0), 1.0)


class _Sizes(NamedTuple):
    """Largest terms of the rows of A (*batch, m) and of the columns (*batch, n), and what is usual."""

    rows: Tensor
    columns: Tensor
    usual_rows: Tensor
    usual_columns: Tensor
    multipliers: Tensor  # usual size of y


def _sizes(program: ConeProgram, x: Tensor, y: Tensor, s: Tensor, Ax: Tensor, Aty: Tensor, Px: Tensor) -> _Sizes:
    structure = program.structure
    layout = _layout(structure)
    A, P = program.A.abs(), _SHARE * program.P.abs()
    i, j = layout.index(structure.A_indices, x), layout.index(structure.A_columns, x)
    rows = torch.maximum(s.abs(), torch.maximum(program.b.abs(), Ax.abs()))
    rows = _most(rows, i, _SHARE * A * x.abs()[..., j])
    rows = layout.of_rows(layout.largest(rows))
    columns = torch.maximum(program.q.abs().expand_as(Aty), torch.maximum(Px.abs(), Aty.abs()))
    columns = _most(columns, j, _SHARE * A * y.abs()[..., i])
    if structure.P_nnz:
        upper, lower = layout.index(structure.P_indices, x), layout.index(structure.P_columns, x)
        columns = _most(_most(columns, upper, P * x.abs()[..., lower]), lower, P * x.abs()[..., upper])
    inverse = torch.where(A > 0, 1 / torch.where(A > 0, A, 1.0), 0.0)
    unknowns = _usual(rows[..., i] * inverse, A > 0, j, structure.n)
    multipliers = _usual(columns[..., j] * inverse, A > 0, i, structure.m)
    usual_rows = _most(torch.zeros_like(rows), i, A * unknowns[..., j])
    usual_columns = _most(torch.zeros_like(columns), j, A * multipliers[..., i])
    return _Sizes(rows, columns, usual_rows, usual_columns, multipliers)


def _most(start: Tensor, index: Tensor, values: Tensor) -> Tensor:
    """The larger of `start` (*batch, size) and the largest of the values (*batch, nnz) in each bin."""
    batch = torch.broadcast_shapes(start.shape[:-1], values.shape[:-1])
    start, values = start.expand(*batch, start.shape[-1]), values.expand(*batch, values.shape[-1])
    return start.scatter_reduce(-1, index.expand(values.shape), values, "amax")


def _usual(allowed: Tensor, there: Tensor, index: Tensor, size: int) -> Tensor:
    """The smallest size that the rows of an unknown allow it, those without a size apart, shape (*batch, size)."""
    largest = _most(allowed.new_zeros(*allowed.shape[:-1], size), index, allowed)
    counts = there & (allowed >= _UNUSUAL * largest.clamp(max=1.0)[..., index])
    least = -_most(
        allowed.new_full((*allowed.shape[:-1], size), -torch.inf), index, torch.where(counts, -allowed, -torch.inf)
    )
    return torch.where(least < torch.inf, least, 0.0)


class _Layout:
    """Which rows are measured together: those of a curved cone, and each other row by itself."""

    def __init__(self, structure: ConeStructure) -> None:
        dims = [
            np.ones(cone.dim, int) if isinstance(cone, Nonnegative | Zero) else [cone.dim]
            for cone in structure.cone.cones
        ]
        sizes = np.concatenate([np.zeros(0, int), *dims]).astype(int)
        self._count = len(sizes)
        self._of_row = np.repeat(np.arange(len(sizes)), sizes)

    @staticmethod
    def index(indices: np.ndarray, like: Tensor) -> Tensor:
        """Indices on the device of a tensor."""
        return torch.as_tensor(indices, device=like.device)

    def largest(self, rows: Tensor) -> Tensor:
        """The largest entry of each block, shape (*batch, blocks)."""
        return _most(rows.new_zeros(*rows.shape[:-1], self._count), self.index(self._of_row, rows), rows)

    def sums(self, rows: Tensor) -> Tensor:
        """The sum of each block, shape (*batch, blocks)."""
        return rows.new_zeros(*rows.shape[:-1], self._count).index_add(-1, self.index(self._of_row, rows), rows)

    def of_rows(self, blocks: Tensor) -> Tensor:
        """The block's value in each of its rows, shape (*batch, m)."""
        return blocks[..., self.index(self._of_row, blocks)]


_layouts: weakref.WeakKeyDictionary[ConeStructure, _Layout] = weakref.WeakKeyDictionary()


def _layout(structure: ConeStructure) -> _Layout:
    found = _layouts.get(structure)
    if found is None:
        found = _layouts[structure] = _Layout(structure)
    return found

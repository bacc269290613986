"""Units in which a programme with curved cones is solved and differentiated without loss of digits.

On a curved cone the pair y, s of a block is carried by v = y - s alone, so that where one of them is 1e8 times the
other half the digits of the smaller one are gone, and with them those of the derivative. Such pairs come from the units
of the data: rows of a cone, or the objective, that are far from one. The scaling

    P, q -> c P, c q,    A, b -> r A, r b (one r for the rows of a cone),    y -> (c / r) y,    s -> r s

leaves x and the cones alone. Here r and c are powers of two, so that nothing is rounded, and exactly one wherever the
data are of ordinary size.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import Nonnegative, Zero
from conelayers.program import ConeProgram, ConeSolution, ConeStructure

__all__ = ["Units", "ordinary_units", "units_matter"]

# Largest entries between these bounds are left as they are.
_SMALLEST, _LARGEST = 2.0**-6, 2.0**6

# As in block_units.hpp: sizes of y and s up to this ratio are left as they are, and s'y is at most this part of |s| |y|
# where neither of them tends to zero.
_APART, _BOTH_THERE = 2.0**17, 0.01

# Part of a row's terms below which a term is rounding.
_ROUNDING = 1e-13


@dataclasses.dataclass(frozen=True)
class Units:
    """Factors of the rows and of the objective.

    Attributes:
        rows: r, powers of two, equal within a cone, shape (*batch, m).
        objective: c, a power of two, shape (*batch, 1).
    """

    rows: Tensor
    objective: Tensor

    @classmethod
    def of(cls, program: ConeProgram) -> Units | None:
        """The units for a batch of programmes, or None where theirs will do."""
        curved = _curved_entries(program.structure)
        if curved is None:
            return None
        # Under a transform, and without waiting for a GPU, data cannot decide; then the units are always applied.
        if program.A.device.type == "cpu" and not torch._C._are_functorch_transforms_active():
            if curved.are_ordinary(*(values.detach().numpy() for values in (program.P, program.q, program.A))):
                return None
        with torch.no_grad():
            rows = curved.of_rows(_normalising(curved.largest(program.A.detach())))
            size = torch.maximum(_largest(program.P), _largest(program.q))
            return cls(rows, _normalising(size)[..., None])

    @classmethod
    def at(cls, program: ConeProgram, x: Tensor, y: Tensor, s: Tensor) -> Units | None:
        """The units in which D is taken at y - s, or None where those of the programmes will do.

        They are those of the data, times what makes y and s of a curved block of one size where one of them is far
        larger: columns in units of their own part them as well, which no look at the rows tells. A part that is lost
        in the rounding of every row that it enters is none: on a kink it would be noise, made as large as the other.

        Args:
            program: The programmes.
            x: Their solutions, shape (*batch, n).
            y: Multipliers of their solutions, shape (*batch, m).
            s: Slacks, shape (*batch, m).
        """
        curved = _curved_entries(program.structure)
        if curved is None:
            return None
        known = program.A.device.type == "cpu" and not torch._C._are_functorch_transforms_active()
        units = cls.of(program)
        if units is None and known and not curved.are_apart(y.detach().numpy(), s.detach().numpy()):
            return None
        with torch.no_grad():
            if units is None:
                units = cls(torch.ones_like(s), s.new_ones((1,)))
            there = curved.count_for_something(program.detach(), x.detach(), y.detach(), s.detach())
            _, y, s = units.points(None, y.detach(), s.detach())
            balanced = torch.where(there, _balancing(*curved.squares(y, s)), 1.0)
            return dataclasses.replace(units, rows=units.rows * curved.of_rows(balanced))

    def of_entries(self, structure: ConeStructure) -> Tensor:
        """The factor of each stored entry of A, shape (*batch, A_nnz)."""
        return self.rows[..., torch.as_tensor(structure.A_indices, device=self.rows.device)]

    def data(self, structure: ConeStructure, *values: Tensor | None) -> tuple[Any, ...]:
        """P, q, A and b in these units, or tangents of them; None stays None."""
        factors = (self.objective, self.objective, self.of_entries(structure), self.rows)
        return _multiplied(values, factors)

    def points(self, *values: Tensor | None) -> tuple[Any, ...]:
        """x, y and s in these units, or tangents of them; None stays None."""
        return _multiplied(values, (None, self.objective / self.rows, self.rows))

    def from_points(self, *values: Tensor | None) -> tuple[Any, ...]:
        """x, y and s out of these units, or tangents of them, or their cotangents into them; None stays None."""
        return _multiplied(values, (None, self.rows / self.objective, 1 / self.rows))

    def start(self, solution: ConeSolution) -> ConeSolution:
        """A starting point in these units."""
        x, y, s = self.points(solution.x, solution.y, solution.s)
        return dataclasses.replace(solution, x=x, y=y, s=s)


def _multiplied(values: Sequence[Tensor | None], factors: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return tuple(v if v is None or f is None else v * f for v, f in zip(values, factors, strict=True))


def units_matter(structure: ConeStructure) -> bool:
    """Whether units make a difference: polyhedral cones have no digits to lose."""
    return _curved_entries(structure) is not None


def ordinary_units(
    structure: ConeStructure,
    P: np.ndarray,
    q: np.ndarray,
    A: np.ndarray,
    point: tuple[np.ndarray, np.ndarray] | None = None,
) -> bool:
    """Whether programmes are as well off in the units in which they are given.

    Args:
        structure: Patterns and cones.
        P: Values of P, shape (*batch, P_nnz).
        q: Linear objective, shape (*batch, n).
        A: Values of A, shape (*batch, A_nnz).
        point: y and s of the solutions, shape (*batch, m) each, where D is to be taken; None before there are any.
    """
    curved = _curved_entries(structure)
    if curved is None:
        return True
    return curved.are_ordinary(P, q, A) and (point is None or not curved.are_apart(*point))


class _CurvedEntries:
    """The entries of A in the rows of curved cones, block by block.

    Indices are NumPy's: a tensor made inside a `torch.func` transform would belong to that transform.
    """

    def __init__(self, structure: ConeStructure) -> None:
        blocks = structure.cone.cones
        curved = [k for k, cone in enumerate(blocks) if not isinstance(cone, Nonnegative | Zero) and cone.dim > 1]
        number = np.full(len(blocks), len(curved))  # the last block stands for all rows of other cones
        number[curved] = np.arange(len(curved))
        of_row = np.repeat(number, [cone.dim for cone in blocks])
        self.count = len(curved)
        self._block_of_row = of_row
        of_entry = of_row[structure.A_indices]
        self._block_of_entry = of_entry
        order = np.argsort(of_entry, kind="stable")
        self._entries = order[: np.searchsorted(of_entry[order], self.count)]  # those of curved blocks, block by block
        self._starts = np.flatnonzero(np.diff(of_entry[self._entries], prepend=-1))
        self._rows = np.flatnonzero(of_row < self.count)
        self._row_starts = np.flatnonzero(np.diff(of_row[self._rows], prepend=-1))

    def are_ordinary(self, P: np.ndarray, q: np.ndarray, A: np.ndarray) -> bool:
        """Whether the largest entries of the objective and of each curved block leave the units as they are."""
        objective = np.abs(q).max(-1, initial=0.0)
        if P.shape[-1]:
            objective = np.maximum(objective, np.abs(P).max(-1))
        sizes = (
            np.maximum.reduceat(np.abs(A[..., self._entries]), self._starts, axis=-1) if len(self._starts) else A[:0]
        )
        return _ordinary(objective) and _ordinary(sizes)

    def are_apart(self, y: np.ndarray, s: np.ndarray) -> bool:
        """Whether y and s of a curved block are of so different sizes that units may win digits."""
        ys, ss = (np.maximum.reduceat(np.abs(z[..., self._rows]), self._row_starts, axis=-1) for z in (y, s))
        return bool(((ys > _APART * ss) & (ss > 0) | (ss > _APART * ys) & (ys > 0)).any())

    def squares(self, y: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y'y, s's and y's of each curved block, and 0 for the other rows, shape (*batch, count + 1)."""
        index = torch.as_tensor(self._block_of_row, device=y.device)
        products = [a * b for a, b in ((y, y), (s, s), (y, s))]
        sums = [z.new_zeros((*z.shape[:-1], self.count + 1)).index_add(-1, index, z) for z in products]
        return sums[0], sums[1], sums[2]

    def count_for_something(self, program: ConeProgram, x: Tensor, y: Tensor, s: Tensor) -> Tensor:
        """Blocks whose y and s both exceed the rounding of a row that they enter, shape (*batch, count + 1)."""
        structure = program.structure
        rows, columns = (torch.as_tensor(i, device=x.device) for i in (structure.A_indices, structure.A_columns))
        size = ConeProgram.unchecked(structure, *(v.abs() for v in (program.P, program.q, program.A, program.b)))
        x, y, s = x.nan_to_num().abs(), y.nan_to_num().abs(), s.nan_to_num().abs()
        stationarity = size.P_times(x) + size.q + size.A_transpose_times(y)
        prices = self._most(size.A * y[..., rows] / _positive(stationarity)[..., columns], self._block_of_entry)
        slacks = self._most(s / _positive(size.A_times(x) + size.b + s), self._block_of_row)
        return torch.minimum(prices, slacks) > _ROUNDING

    def _most(self, values: Tensor, block: np.ndarray) -> Tensor:
        """Largest value of each block and of the other rows, shape (*batch, count + 1)."""
        index = torch.as_tensor(block, device=values.device).expand(values.shape)
        return values.new_zeros((*values.shape[:-1], self.count + 1)).scatter_reduce(-1, index, values, "amax")

    def largest(self, A: Tensor) -> Tensor:
        """Largest entry of A in each curved block, and 1 for the other rows, shape (*batch, count + 1)."""
        found = self._most(A.abs(), self._block_of_entry)
        return torch.cat([found[..., :-1], torch.ones_like(found[..., -1:])], dim=-1)

    def of_rows(self, values: Tensor) -> Tensor:
        """Values of the curved blocks and of the other rows, (*batch, count + 1), row by row, (*batch, m)."""
        return values[..., torch.as_tensor(self._block_of_row, device=values.device)]


def _ordinary(size: np.ndarray) -> bool:
    """Whether `_normalising` leaves all sizes as they are."""
    inside = (size >= _SMALLEST) & (size <= _LARGEST)
    return bool(inside.all()) or bool((inside | (size == 0) | ~np.isfinite(size)).all())


_ABSENT: Any = object()
_entries: weakref.WeakKeyDictionary[ConeStructure, _CurvedEntries | None] = weakref.WeakKeyDictionary()


def _curved_entries(structure: ConeStructure) -> _CurvedEntries | None:
    """The entries to look at, found once per structure; None if there are no curved cones."""
    found = _entries.get(structure, _ABSENT)
    if found is _ABSENT:
        made = _CurvedEntries(structure)
        found = _entries[structure] = made if made.count else None
    return found


def _largest(values: Tensor) -> Tensor:
    """Largest entry, 0 if there is none, shape (*batch,)."""
    values = values.detach()
    return values.abs().amax(-1) if values.shape[-1] else values.new_zeros(values.shape[:-1])


def _normalising(size: Tensor) -> Tensor:
    """The power of two that brings a size to between 1 and 2; 1 for sizes that are ordinary, zero or not finite."""
    far = ((size > _LARGEST) | (size < _SMALLEST)) & (size > 0) & torch.isfinite(size)
    return torch.where(far, torch.exp2(-torch.floor(torch.log2(torch.where(far, size, 1.0)))), 1.0)


def _positive(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, 1.0)


def _balancing(price: Tensor, slack: Tensor, product: Tensor) -> Tensor:
    """The powers of two that make blocks with these y'y, s's and y's even; 1 where they are or a part is zero."""
    both = (product.square() <= _BOTH_THERE**2 * slack * price) & (slack > 1e-200) & (price > 1e-200)
    ratio = torch.where(both, price / torch.where(both, slack, 1.0), 1.0)
    apart = (ratio > _APART**2) | (ratio * _APART**2 < 1)
    return torch.where(apart, torch.exp2(torch.floor(torch.log2(torch.where(apart, ratio, 1.0)) / 4)), 1.0)

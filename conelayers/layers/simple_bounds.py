"""Bounds on single variables, which a returned point satisfies to the last bit.

A solver ends within rounding of the boundary, on either side: at x_j = -1e-17 where x >= 0 was asked for, the logarithm
of a probability is not a number. The point is moved there by what is below its accuracy.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from conelayers.canonicalize import ParametricProgram
from conelayers.cones import Nonnegative

__all__ = ["SimpleBounds"]

_Rows = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class SimpleBounds:
    """The rows  x_j + s_i = b_i  and  -x_j + s_i = b_i  of the nonnegative cone, which are bounds that are not rounded.

    Attributes:
        lower: Constant lower bounds, -inf where there is none, shape (n,); None if there is none at all.
        upper: Constant upper bounds, likewise.
        below: Columns and rows of lower bounds that depend on parameters, each column once per entry.
        above: Columns and rows of upper bounds that depend on parameters.
    """

    lower: np.ndarray | None
    upper: np.ndarray | None
    below: tuple[_Rows, ...]
    above: tuple[_Rows, ...]

    @classmethod
    def of(cls, program: ParametricProgram) -> SimpleBounds | None:
        """The bounds of a family of programmes; None if there are none."""
        s, A = program.structure, program.A.map
        rows, columns = s.A_indices, s.A_columns
        alone = np.bincount(rows, minlength=s.m)[rows] == 1
        fixed = np.diff(A.matrix[:, :-1].indptr) == 0
        linear = np.repeat([isinstance(cone, Nonnegative) for cone in s.cone.cones], np.diff(s.cone.offsets))
        useful = alone & fixed & (linear[rows] if s.m else alone)
        moving = np.diff(program.b.map.matrix[:, :-1].indptr) > 0
        b, bounds, rounds = program.b.map.offset, [], []
        for sign in (-1.0, 1.0):
            entries = np.flatnonzero(useful & (A.offset == sign))
            constant = entries[~moving[rows[entries]]]
            limit = np.full(s.n, sign * np.inf)
            (np.maximum if sign < 0 else np.minimum).at(limit, columns[constant], sign * b[rows[constant]])
            bounds.append(limit if np.isfinite(limit).any() else None)
            rounds.append(_rounds(columns[entries], rows[entries], moving))
        if all(bound is None for bound in bounds) and not any(rounds):
            return None
        return cls(*bounds, *rounds)

    def hold(self, x: np.ndarray, b: np.ndarray) -> None:
        """Move x within its bounds, in place.

        Args:
            x: Solutions, shape (*batch, n), float64.
            b: Right-hand sides, shape (m,) or (*batch, m), batch axes of size 1 broadcasting.
        """
        if self.lower is not None:
            np.maximum(x, self.lower, out=x)
        if self.upper is not None:
            np.minimum(x, self.upper, out=x)
        for columns, rows in self.below:
            x[..., columns] = np.maximum(x[..., columns], -b[..., rows])
        for columns, rows in self.above:
            x[..., columns] = np.minimum(x[..., columns], b[..., rows])

    def hold_tensor(self, x: Tensor, b: Tensor) -> None:
        """The same for tensors on any device, without autograd."""
        if x.is_cpu:
            self.hold(x.detach().numpy(), b.detach().numpy())
        else:
            self._hold_elsewhere(x, b)

    def _hold_elsewhere(self, x: Tensor, b: Tensor) -> None:
        """The same on another device."""
        x, b = x.detach(), b.detach()
        for limit, least in ((self.lower, True), (self.upper, False)):
            if limit is not None:
                bound = torch.as_tensor(limit, device=x.device)
                (torch.maximum if least else torch.minimum)(x, bound, out=x)
        for rounds, sign in ((self.below, -1.0), (self.above, 1.0)):
            for pair in rounds:
                columns, rows = (torch.as_tensor(i, device=x.device) for i in pair)
                bound = sign * b[..., rows]
                nearer = torch.maximum(x[..., columns], bound) if sign < 0 else torch.minimum(x[..., columns], bound)
                x[..., columns] = nearer


def _rounds(columns: np.ndarray, rows: np.ndarray, moving: np.ndarray) -> tuple[_Rows, ...]:
    """Bounds that depend on parameters, in groups in which each column stands once."""
    chosen = moving[rows]
    columns, rows, found = columns[chosen], rows[chosen], []
    while len(columns):
        _, first = np.unique(columns, return_index=True)
        found.append((columns[first], rows[first]))
        columns, rows = np.delete(columns, first), np.delete(rows, first)
    return tuple(found)

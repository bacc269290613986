"""All derivatives at a kink: the extreme elements of the conservative Jacobian.

At a weakly active row of a polyhedral cone the projection has two derivatives, 0 and 1. Each choice for all weakly
active rows gives an extreme element D of the Clarke Jacobian, and -J(D)^-1 (dF/dtheta) is an extreme element of the
conservative Jacobian of the solution. Blocks of curved cones may have infinitely many: of theirs the one is taken that
the projection's derivative has at v as it was computed, the element of the side on which rounding leaves v.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.errors import UnsupportedError
from conelayers.implicit import Equation, Exact, zeros_for_none
from conelayers.program import ConeSolution
from conelayers.residual.conic import ConicConditions, adjoint_gradients

__all__ = ["FixedElement", "extreme_points", "weak_rows"]

# Where a row is put beside its kink: its sign is all that matters to D, and its multiplier stays nearly zero.
_ASIDE = 1e-9


class FixedElement(Equation):
    """A solved programme with a chosen element of the Clarke Jacobian: `ConicConditions` with D taken at another v.

    Attributes:
        conditions: The equation.
        solution: Its solution, one item without batch axes.
        v: Where D is taken, (m,).
    """

    nondifferentiable = ConicConditions.nondifferentiable

    def __init__(self, conditions: ConicConditions, solution: ConeSolution, v: Tensor) -> None:
        self.conditions, self.solution, self.v = conditions, solution.detach(), v

    @property
    def event_dims(self) -> Sequence[int]:
        """P, q, A and b are vectors."""
        return (1, 1, 1, 1)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The known solution."""
        return tuple(getattr(self.solution, f.name).clone() for f in dataclasses.fields(self.solution))

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The adjoint formula at the chosen element."""
        P, _, A, _ = inputs
        x, y = outputs[:2]
        gx, gy, gs = zeros_for_none(cotangents[:3], outputs[:3])
        structure, s, code = self.conditions.structure, y - self.v, outputs[3]
        gradients = adjoint_gradients(structure, Exact(), P, A, x, y, s, gx, gy, gs, code, (needed[0], needed[2]))
        return tuple(g if use else None for g, use in zip(gradients, needed, strict=True))

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Not provided: take one-sided derivatives for directions."""
        raise UnsupportedError("Extreme elements are given in reverse mode; use jacrev.")


def weak_rows(cone: ProductCone, v: Tensor, radius: float) -> tuple[Tensor, bool]:
    """Polyhedral rows within `radius` of their kink, int64, and whether a curved block lies on one too; v (m,)."""
    rows: list[int] = []
    margins = cone.margin(v)
    curved = False
    for position, block in enumerate(cone.cones):
        start, stop = cone.offsets[position], cone.offsets[position + 1]
        if not block.polyhedral:
            curved = curved or bool(margins[position] <= radius)
        elif block.has_kinks:
            rows.extend((start + torch.nonzero(v[start:stop].abs() <= radius)[:, 0]).tolist())
    return torch.tensor(rows, dtype=torch.int64, device=v.device), curved


def extreme_points(v: Tensor, rows: Tensor, limit: int) -> Iterator[Tensor]:
    """Points with the extreme elements of the weakly active `rows`: v with these entries beside their kink.

    At most `limit` of them; the smallest element comes first, then those in which few rows are active.
    """
    count = len(rows)
    subsets = itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count + 1))
    for active in itertools.islice(subsets, limit):
        signs = v.new_full((count,), -_ASIDE)
        signs[list(active)] = _ASIDE
        yield v.index_copy(0, rows, signs)

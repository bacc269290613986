"""The extreme elements of the Clarke Jacobian over a neighbourhood of v, and how far their eigenspaces turn there.

The neighbourhood of radius r is the set of v' whose every block lies within r of the block of v: rows of polyhedral
cones by absolute value, second-order and semidefinite blocks in the spectral norm of their Jordan algebras (half the
sum |t| + ||w|| times sqrt(2), and the largest |eigenvalue|), exponential and power blocks in the Euclidean norm. It
contains the Euclidean ball.

Regularity asks for the eigenvalue-1 space of the largest and the eigenvalue-0 space of the smallest element at every
v'. For polyhedral cones both are those of `dual_derivative(v, weak=..., radius=r)`, exactly. For curved cones each
unit vector of such a space at v' lies within a distance eta of the space at v, see `Cone.turning`; blocks of which
nothing is known are replaced by the largest family there is, 0 <= D <= I.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from conelayers.cones import Cone, ProductCone, SpectralBlocks

__all__ = ["Extremes", "curved_blocks", "extremes"]


@dataclasses.dataclass(frozen=True, eq=False)
class Extremes:
    """Largest and smallest elements of a neighbourhood, in common eigenvectors block by block.

    Attributes:
        largest, smallest: spectra, in the order of `ConeDerivative.spectrum`.
        turn_one: distance eta by which eigenvalue-1 spaces turn, per row (the same for all rows of a block), (B, m).
        turn_zero: the same for eigenvalue-0 spaces, (B, m).
    """

    largest: list[SpectralBlocks]
    smallest: list[SpectralBlocks]
    turn_one: Tensor
    turn_zero: Tensor


def extremes(
    cone: ProductCone, v: Tensor, reach: Tensor, turn: Tensor | None = None, *, attained: bool = False
) -> Extremes:
    """Extreme elements over a neighbourhood of v.

    Args:
        cone: K; the elements are those of the projection onto its dual.
        v: shape (B, m).
        reach: Blocks within this distance of a kink are moved onto it, per row, (B, m).
        turn: Radius of the neighbourhood in which eigenspaces may turn, per row, (B, m); None for v alone.
        attained: Return elements that do occur in the neighbourhood, and no turns: a lower estimate of the family where
            the default is an upper one.
    """
    largest = cone.dual_derivative(v, weak="max", radius=reach).spectrum()
    smallest = cone.dual_derivative(v, weak="min", radius=reach).spectrum()
    turn_one, turn_zero = torch.zeros_like(v), torch.zeros_like(v)
    if turn is not None and not attained:
        for kind, _, rows in curved_blocks(cone.dual()):
            one, zero = kind.turning(v[:, rows], turn[:, rows[:, 0]])
            turn_one[:, rows], turn_zero[:, rows] = one.unsqueeze(-1), zero.unsqueeze(-1)
        largest = [_widened(block, turn_one, 1.0) for block in largest]
        smallest = [_widened(block, turn_zero, 0.0) for block in smallest]
        turn_one, turn_zero = (torch.where(turn.isinf(), 0.0, turn) for turn in (turn_one, turn_zero))
    return Extremes(largest, smallest, turn_one, turn_zero)


def curved_blocks(cone: ProductCone) -> Iterator[tuple[Cone, Tensor, Tensor]]:
    """Equal curved cones of a product with their positions (count,) and rows (count, dim)."""
    members: dict[Cone, list[int]] = {}
    for position, block in enumerate(cone.cones):
        if not block.polyhedral and block.dim > 0:
            members.setdefault(block, []).append(position)
    for block, positions in members.items():
        starts = torch.tensor([cone.offsets[position] for position in positions])
        yield block, torch.tensor(positions), starts[:, None] + torch.arange(block.dim)


def _widened(block: SpectralBlocks, turn: Tensor, value: float) -> SpectralBlocks:
    """The spectrum with all eigenvalues `value` where the turn is infinite."""
    unknown = turn[:, block.rows[:, 0]].isinf().unsqueeze(-1)
    return block._replace(values=torch.where(unknown, value, block.values))

"""The extreme elements of the Clarke Jacobian over a neighbourhood of v, and how far their eigenspaces turn there.

The neighbourhood of radius r is the set of v' whose every block lies within r of the block of v: rows of polyhedral
cones by absolute value, second-order and semidefinite blocks in the spectral norm of their Jordan algebras (half the
sum |t| + ||w|| times sqrt(2), and the largest |eigenvalue|), exponential and power blocks in the Euclidean norm. It
contains the Euclidean ball.

Regularity asks for the eigenvalue-1 space of the largest and the eigenvalue-0 space of the smallest element at every
v'. For polyhedral cones both are those of `dual_derivative(v, weak=..., radius=r)`, exactly. For curved cones each
unit vector of such a space at v' lies within a distance eta of the space at v:

- second-order: the frame turns with w, |w' - w| <= sqrt(2) r, so eta = sqrt(2) r / |w|;
- semidefinite: by Davis and Kahan's sin-theta theorem for half-lines the range of the nonnegative part of V' is within
  r / g of the span of the eigenvalues >= -r of V, with g the least |eigenvalue| below -r; for the symmetric matrices on
  that range the distance is at most sqrt(2) r / g. Likewise on the other side;
- exponential and power: away from kinks the spaces are spanned by p = Pi(v) and by d = v - p, which are Lipschitz with
  constant 1, so eta = r / |p| and r / |d|. Blocks nearer than r to a kink are replaced by the largest family there is,
  0 <= D <= I.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from conelayers.cones import (
    Cone,
    ConeDerivative,
    DualExponential,
    DualPower,
    Exponential,
    PositiveSemidefinite,
    Power,
    ProductCone,
    SecondOrder,
    SpectralBlocks,
)
from conelayers.cones.svec import smat

__all__ = ["Extremes", "curved_blocks", "extremes"]

_RAYS = (Exponential, DualExponential, Power, DualPower)


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


def extremes(cone: ProductCone, v: Tensor, radius: Tensor, floor: Tensor, *, attained: bool = False) -> Extremes:
    """Extreme elements over the neighbourhood of v.

    Args:
        cone: K; the elements are those of the projection onto its dual.
        v: shape (B, m).
        radius: shape (B,). Radii up to `floor` are read as the accuracy of v: weakly active parts are moved onto their
            kinks and nothing turns.
        floor: shape (B,).
        attained: Return elements that do occur in the neighbourhood, and no turns: a lower estimate of the family where
            the default is an upper one. The two agree but for exponential and power blocks near their kinks.
    """
    reach = torch.maximum(radius, floor)[:, None].repeat(1, len(cone.cones))
    if attained:
        rays = torch.tensor([isinstance(block, _RAYS) for block in cone.cones], dtype=torch.bool)
        reach = torch.where(rays, floor[:, None], reach)
    derivatives: dict[str, ConeDerivative] = {}
    for weak in ("max", "min"):
        derivatives[weak] = cone.dual_derivative(v, weak=weak, radius=reach)  # type: ignore[arg-type]
    largest, smallest = derivatives["max"].spectrum(), derivatives["min"].spectrum()
    turn_one, turn_zero = torch.zeros_like(v), torch.zeros_like(v)
    true_radius = torch.where(radius > floor, radius, 0.0)
    if not attained and bool((true_radius > 0).any()):
        for kind, _, rows in curved_blocks(cone.dual()):
            one, zero = _turns(kind, v[:, rows], true_radius[:, None])
            turn_one[:, rows], turn_zero[:, rows] = one.unsqueeze(-1), zero.unsqueeze(-1)
        largest, smallest = (
            [_widened(block, turn_one, value) for block in spectrum]
            for spectrum, value in ((largest, 1.0), (smallest, 0.0))
        )
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


def _turns(cone: Cone, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Eta for eigenvalue-1 and eigenvalue-0 spaces; v (B, count, d), radius (B, 1); infinite where nothing is known."""
    zero = torch.zeros_like(v[..., 0])
    if isinstance(cone, SecondOrder):
        if cone.dim == 1:
            return zero, zero
        length = v[..., 1:].norm(dim=-1)
        high, low, reach = v[..., 0] + length, v[..., 0] - length, math.sqrt(2.0) * radius
        turn = (reach / length).clamp(max=1.0).nan_to_num(nan=1.0)
        one = torch.where((low >= -reach) | (high < -reach), zero, turn)
        return one, torch.where((high <= reach) | (low > reach), zero, turn)
    if isinstance(cone, PositiveSemidefinite):
        values = torch.linalg.eigvalsh(smat(v))
        reach = radius.unsqueeze(-1)
        below, above = values < -reach, values > reach
        return _sine(values, below, radius), _sine(values, above, radius)
    return _ray_turns(cone, v, radius)


def _sine(values: Tensor, outside: Tensor, radius: Tensor) -> Tensor:
    """sqrt(2) r / g with g the least |eigenvalue| among `outside`; zero if there is none, or nothing else."""
    gap = torch.where(outside, values.abs(), torch.inf).amin(-1)
    turn = (math.sqrt(2.0) * radius / gap).clamp(max=1.0)
    return torch.where(outside.all(-1), 0.0, turn)


def _ray_turns(cone: Cone, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Exponential and power cones: r / |p| and r / |d| away from kinks."""
    assert isinstance(cone, _RAYS)
    projected = cone.project(v)
    p, d = projected.norm(dim=-1), (v - projected).norm(dim=-1)
    smooth = cone.margin(v) > radius
    if isinstance(cone, (Power, DualPower)):  # on z = 0 the curvature is zero or infinite
        smooth = smooth & (v[..., 2].abs() > radius)
    inside, polar = d == 0, p == 0
    settled = inside | polar
    one = torch.where(settled, 0.0, (radius / p).clamp(max=1.0))
    zero = torch.where(settled, 0.0, (radius / d).clamp(max=1.0))
    unknown = torch.full_like(one, torch.inf)
    return torch.where(smooth, one, unknown), torch.where(smooth, zero, unknown)

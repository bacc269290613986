"""What the exponential and the power cone share: three dimensions, and a boundary swept by a curve of rays.

Let c(r) span the rays of the boundary and n(r) be the outward normal there. A point v outside the cone K and its polar
cone is v = p + d with p = |p| c^ on the boundary and d = |d| n^ normal to it, where r is the root of v . e(r) = 0 and
e = c^'/|c^'| is the direction in which the ray turns; (c^, e, n^) is an orthonormal frame. With sigma = |dc^/dr| and
nu = |dn^/dr|, moving v by h turns p, d and the frame by multiples of h_e only, which gives

    D = c^ c^T + theta e e^T,     theta = |p| sigma / M,  M = |p| sigma + |d| nu

(so theta = 1 / (1 + |d| kappa) with the curvature kappa = nu / (sigma |p|) of the boundary at p), and, differentiating
once more with k = nu / sigma the geodesic curvature of c^,

    D'(v)[u, w] = a_p sym(c^ e e) - a_d sym(n^ e e) - a_e eee,
    a_p = |d| sigma nu / M^2,  a_d = |p| sigma nu / M^2,  a_e = |p| |d| sigma nu (log k)' / M^3,

where sym(x e e)[u, w] = (u_x w_e + u_e w_x) e + u_e w_e x. For curves of the form below sigma = |c x c'| / |c|^2 and
nu = |c| det(c, c', c'') / |c x c'|^2, so a cone supplies its curve, the logarithmic derivatives, and the root.
"""

import abc
import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from conelayers.cones.base import BlockDerivative, Cone, Kink, expand_like

__all__ = ["CurvedCone", "Frame", "FrameDerivative", "Location"]


class Frame(NamedTuple):
    """The boundary at parameter r, with the speeds scaled by a common positive factor `scale`.

    Shapes: (*batch, 3) for ray, tangent and normal, (*batch,) for the others.
    """

    ray: Tensor
    tangent: Tensor
    normal: Tensor
    sigma: Tensor
    nu: Tensor
    slope: Tensor  # (log k)' over the scale of the speeds


class Location(NamedTuple):
    """Where v lies: inside the cone, inside its polar cone, or on the normal at one boundary point."""

    frame: Frame
    along: Tensor  # |p|, shape: (*batch,)
    across: Tensor  # |d|, shape: (*batch,)
    inside: Tensor  # v in the interior of K
    polar: Tensor  # v in the polar cone


@dataclasses.dataclass(frozen=True, eq=False)
class FrameDerivative(BlockDerivative):
    """D = U diag(values) U^T with U = (ray, tangent, normal) as columns, and its third derivative."""

    vectors: Tensor  # shape: (*batch, 3, 3)
    values: Tensor  # shape: (*batch, 3)
    third: Tensor  # a_p, -a_e, -a_d, shape: (*batch, 3)

    def apply(self, u: Tensor) -> Tensor:
        """D u."""
        inner = (self.vectors * u.unsqueeze(-1)).sum(-2)
        return (self.vectors * (self.values * inner).unsqueeze(-2)).sum(-1)

    def curvature(self, u: Tensor, w: Tensor) -> Tensor:
        """Gradient of <w, D(v) u>."""
        left = (self.vectors * u.unsqueeze(-1)).sum(-2)
        right = (self.vectors * w.unsqueeze(-1)).sum(-2)
        le, re = left[..., 1:2], right[..., 1:2]
        weights = self.third * torch.cat([torch.ones_like(le), torch.zeros_like(le), torch.ones_like(le)], -1)
        along = self.third[..., 1:2] * le * re + (weights * (left * re + right * le)).sum(-1, keepdim=True)
        weights = weights * le * re
        parts = torch.cat([weights[..., :1], along, weights[..., 2:]], -1)
        return (self.vectors * parts.unsqueeze(-2)).sum(-1)

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Frame and eigenvalues."""
        return self.vectors, self.values

    def complement(self) -> "FrameDerivative":
        """The derivative of v -> v + Pi(-v) at -v: I - D, and the same third derivative."""
        return dataclasses.replace(self, values=1 - self.values)


class CurvedCone(Cone):
    """A cone of R^3 whose boundary is swept by a curve of rays."""

    @property
    def dim(self) -> int:
        """Three rows."""
        return 3

    @abc.abstractmethod
    def frame(self, root: Tensor, v: Tensor) -> Frame:
        """The boundary at parameter `root`; v tells the sheet where the boundary has two."""

    @abc.abstractmethod
    def locate(self, v: Tensor) -> Location:
        """Solve for the boundary point nearest to v; points inside K or its polar get any frame."""

    @abc.abstractmethod
    def grid(self, v: Tensor) -> Tensor:
        """Parameters spread over the whole boundary, shape (count,)."""

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Nearest point: |p| c^ outside K and its polar cone."""
        where = self.locate(v)
        projected = where.along.unsqueeze(-1) * where.frame.ray
        projected = torch.where(where.inside.unsqueeze(-1), v, projected)
        return torch.where(where.polar.unsqueeze(-1), 0, projected)

    def polar_part(self, v: Tensor) -> Tensor:
        """v - Pi(v) without cancellation, the projection on the polar cone."""
        where = self.locate(v)
        rest = where.across.unsqueeze(-1) * where.frame.normal
        rest = torch.where(where.polar.unsqueeze(-1), v, rest)
        return torch.where(where.inside.unsqueeze(-1), 0, rest)

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink | None = None) -> FrameDerivative:
        """c^ c^T + theta e e^T outside K and its polar cone."""
        where = self.locate(v)
        kink = kink or Kink()
        frame, along, across = where.frame, where.along, where.across
        pull, push = along * frame.sigma, across * frame.nu
        total = pull + push
        safe = torch.where(total > 0, total, 1)
        theta = torch.where(total > 0, pull / safe, 0)
        mixed = frame.sigma * frame.nu / safe.square()
        third = torch.stack([across * mixed, -theta * push / safe * frame.slope / safe, -along * mixed], -1)
        outside = ~(where.inside | where.polar)
        third = torch.where(outside.unsqueeze(-1), third, 0)
        ones, zeros = torch.ones_like(theta), torch.zeros_like(theta)
        values = torch.stack([ones, theta, zeros], -1)
        values = torch.where(where.inside.unsqueeze(-1), 1, values)
        values = torch.where(where.polar.unsqueeze(-1), 0, values)
        vectors = torch.stack([frame.ray, frame.tangent, frame.normal], -1)
        return FrameDerivative(vectors, values, third)

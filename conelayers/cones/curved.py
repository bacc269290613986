"""What the exponential and the power cone share: three dimensions, and a boundary swept by a curve of rays.

Let c(r) span the rays of the boundary and n(r) be the outward normal there. A point v outside the cone K and
its polar cone is v = p + d with p = |p| c^ on the boundary and d = |d| n^ normal to it, where r is the root
of v . e(r) = 0 and e = c^'/|c^'| is the direction in which the ray turns; (c^, e, n^) is an orthonormal
frame. With sigma = |dc^/dr| and nu = |dn^/dr|, moving v by h turns p, d and the frame by multiples of h_e
only, which gives

    D = c^ c^T + theta e e^T,     theta = |p| sigma / M,  M = |p| sigma + |d| nu

(so theta = 1 / (1 + |d| kappa) with the curvature kappa = nu / (sigma |p|) of the boundary at p), and,
differentiating once more with k = nu / sigma the geodesic curvature of c^,

    D'(v)[u, w] = a_p sym(c^ e e) - a_d sym(n^ e e) - a_e eee,
    a_p = |d| sigma nu / M^2,  a_d = |p| sigma nu / M^2,  a_e = |p| |d| sigma nu (log k)' / M^3,

where sym(x e e)[u, w] = (u_x w_e + u_e w_x) e + u_e w_e x. For curves of the form below sigma = |c x c'| /
|c|^2 and nu = |c| det(c, c', c'') / |c x c'|^2, so a cone supplies its curve, the logarithmic derivatives,
and the root.
"""

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from conelayers.cones.barrier import ProximalPoint
from conelayers.cones.base import EXACT, BlockDerivative, Cone, Kink, expand_like
from conelayers.cones.roots import increasing_root, surely

__all__ = ["CurvedCone", "beside_kink", "Frame", "FrameDerivative", "Location"]

#: The grid that brackets the least distance from within: sinh(26) is about 1e11.
_GRID_END, _GRID_COUNT, _GRID_CHUNK, _BASINS = 26.0, 161, 23, 4


class Frame(NamedTuple):
    """The boundary at parameter r, with both speeds divided by the positive factor `scale`.

    Shapes: (*batch, 3) for ray, tangent and normal, (*batch,) for the others.
    """

    ray: Tensor
    tangent: Tensor
    normal: Tensor
    sigma: Tensor
    nu: Tensor
    slope: Tensor  # (log k)' / scale
    scale: Tensor


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


def beside_kink(cone: Cone, y: Tensor, s: Tensor, v: Tensor, reach: Tensor) -> Tensor:
    """Whether a block of three rows lies near a kink; the margin is found for few.

    Outside of both cones the distances are |s| and |y|, but for kinks beside the flat faces, which lie on the planes of
    coordinates. No norm is below the largest entry.
    """
    least = torch.minimum(torch.minimum(y.abs().amax(-1), s.abs().amax(-1)), v.abs().amin(-1))
    near = least <= reach
    if bool(near.any()):
        near[near.clone()] = cone.margin(v[near]) <= reach.expand_as(near)[near]
    return near


class CurvedCone(Cone):
    """A cone of R^3 whose boundary is swept by a curve of rays."""

    kinks_attained: ClassVar[bool] = False

    @property
    def dim(self) -> int:
        """Three rows."""
        return 3

    @abc.abstractmethod
    def frame(self, root: Tensor, v: Tensor) -> Frame:
        """The boundary at parameter `root`; v tells the sheet where the boundary has two."""

    @abc.abstractmethod
    def regions(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Masks of the points in the interior of K and in the polar cone."""

    @abc.abstractmethod
    def nearest(self, v: Tensor, outside: Tensor) -> Frame:
        """The boundary at the point nearest to v; any frame where `outside` is false."""

    def locate(self, v: Tensor) -> Location:
        """Where v lies, its nearest boundary point and its distances from K and from the polar cone."""
        inside, polar = self.regions(v)
        frame = self.nearest(v, ~(inside | polar))
        along = (v * frame.ray).sum(-1).clamp(min=0)
        across = (v * frame.normal).sum(-1).clamp(min=0)
        return Location(frame, along, across, inside, polar)

    def refine(self, v: Tensor, root: Tensor) -> Frame:
        """The frame after one Newton step on v . e(r) = 0, which also makes it differentiable in v."""
        frame = self.frame(root.detach(), v)
        total = (v * frame.ray).sum(-1) * frame.sigma + (v * frame.normal).sum(-1) * frame.nu
        step = (v * frame.tangent).sum(-1) / torch.where(total > 0, total, 1) / frame.scale
        small = (total > 0) & (step.abs() <= 1e-3 * root.abs().clamp(min=1))
        return self.frame(root.detach() + torch.where(small, step, 0), v)

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Nearest point |p| c^, outside K and its polar cone."""
        if mu is not None:
            return self.proximal(v, expand_like(mu, v)[..., 0]).restored()
        where = self.locate(v)
        projected = where.along.unsqueeze(-1) * where.frame.ray
        projected = torch.where(where.inside.unsqueeze(-1), v, projected)
        return torch.where(where.polar.unsqueeze(-1), 0, projected)

    def polar_part(self, v: Tensor) -> Tensor:
        """Projection on the polar cone, v - Pi(v)."""
        where = self.locate(v)
        rest = where.across.unsqueeze(-1) * where.frame.normal
        rest = torch.where(where.inside.unsqueeze(-1), 0, rest)
        return torch.where(where.polar.unsqueeze(-1), v, rest)

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> BlockDerivative:
        """c^ c^T + theta e e^T outside K and its polar cone; see the module for its third derivative."""
        if mu is not None:
            return self.proximal(v, expand_like(mu, v)[..., 0]).derivative()
        return self.projection_derivative(v, kink)

    def projection_derivative(self, v: Tensor, kink: Kink) -> FrameDerivative:
        """`derivative` without smoothing."""
        where = self.locate(v)
        radius = expand_like(kink.radius, v)[..., 0]
        outside = ~(where.inside | where.polar)
        known = outside
        if isinstance(kink.radius, Tensor) or kink.radius > 0:
            where, known = self._move_to_boundary(v, where), torch.ones_like(outside)
        frame, along, across = where.frame, where.along, where.across
        pull, push = along * frame.sigma, across * frame.nu
        total = torch.where(pull + push > 0, pull + push, 1)
        theta = pull / total
        third = torch.stack(
            [
                across * frame.sigma / total * frame.nu / total,
                -theta * push / total * frame.slope / total,
                -along * frame.sigma / total * frame.nu / total,
            ],
            -1,
        )
        third = torch.where(outside.unsqueeze(-1), third, 0)
        # Largest and smallest elements: the zero on the normal becomes a one within `radius` of K, the one on the ray a
        # zero within `radius` of the polar cone, and theta goes with them; at the apex everything is weak.
        ray, normal = (~where.polar).to(v.dtype), where.inside.to(v.dtype)
        theta = torch.where(where.inside, 1, torch.where(where.polar, 0, theta))
        apex = v.norm(dim=-1) <= radius
        near_polar, near_cone = (known & (along <= radius)) | apex, (known & (across <= radius)) | apex
        if kink.weak == "max":
            ray = torch.where(near_polar, 1, ray)
            theta = torch.where(near_cone, 1, theta)
            normal = torch.where(near_cone, 1, normal)
        else:
            ray = torch.where(near_polar, 0, ray)
            theta = torch.where(near_polar, 0, theta)
            normal = torch.where(near_cone, 0, normal)
        vectors = torch.stack([frame.ray, frame.tangent, frame.normal], -1)
        return FrameDerivative(vectors, torch.stack([ray, theta, normal], -1), third)

    def margin(self, v: Tensor) -> Tensor:
        """Distance to the boundary of K or of its polar cone, whichever is nearer.

        From outside both it is |d| or |p|, to rounding. From inside it is the least value of -v . n^ (or -v .
        c^) over the boundary, by a search in every basin that a grid shows (see `_inner_root`): against dense
        searches it errs by less than 1e-13 |v|, which is a measurement and no proof.
        """
        where = self._move_to_boundary(v, self.locate(v))
        return torch.minimum(where.along, where.across)

    def near_kink(self, y: Tensor, s: Tensor, v: Tensor, reach: Tensor) -> Tensor:
        """See `beside_kink`."""
        return beside_kink(self, y, s, v, reach)

    def turning(self, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """R / |p| and r / |d| away from kinks, where the spaces are spanned by p and d, which are 1-Lipschitz in v.

        Beside the boundary of K (d small) the largest eigenvalue-1 space is everything and the smallest eigenvalue-0
        space the normal, which turns by r kappa to first order; beside that of the polar cone the ray turns by its
        curvature in the same way. Twice the first order is taken. At the apex both spaces are everything.
        """
        where = self._move_to_boundary(v, self.locate(v))
        frame, along, across = where.frame, where.along, where.across
        radius = torch.as_tensor(radius, dtype=v.dtype).expand(along.shape)
        zero, unknown = torch.zeros_like(along), torch.full_like(along, torch.inf)
        pull, push = along * frame.sigma, across * frame.nu
        normal = (2 * radius * frame.nu / pull).clamp(max=1.0).nan_to_num(nan=1.0)
        ray = (2 * radius * frame.sigma / push).clamp(max=1.0).nan_to_num(nan=1.0)
        one = torch.where(where.inside | where.polar, zero, (radius / along).clamp(max=1.0))
        none = torch.where(where.inside | where.polar, zero, (radius / across).clamp(max=1.0))
        near_cone, near_polar, far = across <= radius, along <= radius, 10 * radius
        one = torch.where(near_cone, torch.where(along > far, zero, unknown), one)
        none = torch.where(near_cone, torch.where(along > far, normal, unknown), none)
        one = torch.where(near_polar, torch.where(across > far, ray, unknown), one)
        none = torch.where(near_polar, torch.where(across > far, zero, unknown), none)
        apex = v.norm(dim=-1) <= radius
        return torch.where(apex, zero, one), torch.where(apex, zero, none)

    def _move_to_boundary(self, v: Tensor, where: Location) -> Location:
        """Give points inside K or its polar cone the frame at the nearest boundary point.

        `along` becomes the distance from v to the boundary of the polar cone and `across` that to the
        boundary of K.
        """
        hidden = where.inside | where.polar
        if surely(~hidden):
            return where
        inner = self.frame(self._inner_root(v, where.polar, hidden), v)
        blended = [
            torch.where(hidden.reshape(hidden.shape + (1,) * (new.dim() - hidden.dim())), new, old)
            for new, old in zip(inner, where.frame, strict=True)
        ]
        depth = torch.where(where.polar, -(v * inner.ray).sum(-1), -(v * inner.normal).sum(-1)).clamp(min=0)
        length = v.norm(dim=-1)
        along = torch.where(where.polar, depth, torch.where(where.inside, length, where.along))
        across = torch.where(where.inside, depth, torch.where(where.polar, length, where.across))
        return Location(Frame(*blended), along, across, where.inside, where.polar)

    def _inner_root(self, v: Tensor, polar: Tensor, hidden: Tensor) -> Tensor:
        """Minimise -v . c^ (where polar) or -v . n^ over the boundary; anything where not `hidden`.

        A grid in t with r = sinh t brackets the lowest local minima (a point may be about equally far from
        several parts of the boundary); the slope in t is a positive multiple of -v . e^, whose roots in the
        brackets are found by Newton steps, and the lowest minimum is taken.
        """
        grid = torch.linspace(-_GRID_END, _GRID_END, _GRID_COUNT, dtype=v.dtype, device=v.device)
        points = grid.reshape(-1, *(1 for _ in hidden.shape)).sinh()
        depth = torch.cat([self.facing(part, v, polar) for part in points.split(_GRID_CHUNK)])  # (count, *batch)
        wall = torch.full_like(depth[:1], torch.inf)
        rounding = 4 * torch.finfo(v.dtype).eps * v.norm(dim=-1)  # the depth tends to limits at both ends
        local = (depth < torch.cat([wall, depth[:-1]]) - rounding) & (depth <= torch.cat([depth[1:], wall]) + rounding)
        center = grid[torch.where(local, depth, torch.inf).topk(_BASINS, dim=0, largest=False).indices]

        def evaluate(root: Tensor) -> tuple[Tensor, Tensor]:
            frame = self.frame(torch.sinh(root), v)
            value = -(v * frame.tangent).sum(-1)
            slope = (v * frame.ray).sum(-1) * frame.sigma + (v * frame.normal).sum(-1) * frame.nu
            slope = slope * frame.scale * torch.cosh(root)
            proposal = torch.where(slope > 0, root - value / torch.where(slope > 0, slope, 1), torch.nan)
            return value, torch.where(hidden, proposal, root)

        step = grid[1] - grid[0]
        low, high = (center - step).clamp(min=-_GRID_END), (center + step).clamp(max=_GRID_END)
        # The depth errs by the square of the error of the root.
        unit = torch.finfo(v.dtype).eps ** 0.625
        roots = torch.sinh(increasing_root(evaluate, center, low, high, unit=unit))
        return roots.gather(0, self.facing(roots, v, polar).argmin(0, keepdim=True)).squeeze(0)

    @abc.abstractmethod
    def facing(self, root: Tensor, v: Tensor, polar: Tensor) -> Tensor:
        """-v . c^ where polar and -v . n^ elsewhere, at parameter `root`, on the sheet nearer to v."""

    @abc.abstractmethod
    def proximal(self, v: Tensor, mu: Tensor) -> ProximalPoint:
        """Solve y + mu grad F(y) = v for the barrier F of the cone."""

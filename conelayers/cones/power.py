"""The power cone and its dual.

Projection by a root in one variable, see `hien`.
"""

import dataclasses
import functools
import math
from collections.abc import Hashable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from conelayers.cones.barrier import ProximalPoint
from conelayers.cones.base import EXACT, BlockDerivative, Cone, Kink, expand_like
from conelayers.cones.curved import CurvedCone, Frame, FrameDerivative, beside_kink
from conelayers.cones.hien import hien_means, hien_odds, proximal_point
from conelayers.errors import InvalidArgument

__all__ = ["DualPower", "Power"]


@dataclasses.dataclass(frozen=True)
class Power(CurvedCone):
    """The cone {(x, y, z) : x^alpha y^(1 - alpha) >= |z|, x >= 0, y >= 0}, 0 < alpha < 1.

    Its boundary is swept by the rays (X, Y, +-1) with X = exp((1 - alpha) r), Y = exp(-alpha r), and has the
    outward normals (-alpha / X, -(1 - alpha) / Y, +-1). Both sheets meet smoothly in the rays (1, 0, 0) and
    (0, 1, 0).

    Kinks: the boundaries of K and of its polar cone, with the smallest elements I - n^ n^T and 0, and the
    largest I and c^ c^T; at the apex 0 and I. At z = 0, x > 0 > y the projection is differentiable, with
    eigenvalue theta = 0, 1 or x / (x - 2 y) along z for alpha below, above or at 1/2; there D may change
    without a Lipschitz bound, and the derivative of theta, where it exists, vanishes by symmetry.

    Barrier for `mu`: -log(x^(2 alpha) y^(2 - 2 alpha) - z^2) - (1 - alpha) log x - alpha log y.

    Raises:
        InvalidArgument: alpha is not strictly between 0 and 1.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Check the exponent."""
        _check_exponent(self.alpha)

    def dual(self) -> Cone:
        """The dual power cone."""
        return DualPower(self.alpha)

    def family(self) -> Hashable:
        """Power cones of all exponents are computed together."""
        return Power

    @classmethod
    def stack(cls, cones: Sequence[Cone]) -> Cone:
        """Power cones with one exponent each."""
        exponents = tuple(cone.alpha for cone in cones if isinstance(cone, Power))
        return cones[0] if len(set(exponents)) == 1 else _Powers(exponents[0], exponents)

    def exponent(self, like: Tensor) -> Tensor:
        """The exponent as a tensor that broadcasts against (*batch,)."""
        return torch.as_tensor(self.alpha, dtype=like.dtype, device=like.device)

    def facing(self, root: Tensor, v: Tensor, polar: Tensor) -> Tensor:
        """-v . c^ or -v . n^."""
        a = self.exponent(v)
        x, y, z = v.unbind(-1)
        log_x, log_y = (1 - a) * root, -a * root
        log_x = torch.where(polar, log_x, a.log() - log_x)
        log_y = torch.where(polar, log_y, torch.log1p(-a) - log_y)
        scale = torch.maximum(log_x, log_y).clamp(min=0)
        left, right, level = (log_x - scale).exp(), (log_y - scale).exp(), (-scale).exp()
        value = torch.where(polar, -1.0, 1.0).to(v.dtype) * (x * left + y * right) - z.abs() * level
        return value / (left.square() + right.square() + level.square()).sqrt()

    def frame(self, root: Tensor, v: Tensor) -> Frame:
        """The ray (X, Y, s) and the normal (-alpha / X, -(1 - alpha) / Y, s), s the sign of z, in logarithms."""
        a = self.exponent(v)
        sign = torch.where(v[..., 2] < 0, -1.0, 1.0).to(v.dtype).expand(root.shape)
        log_x, log_y = (1 - a) * root, -a * root
        ray, ray_scale = _scaled_exp(log_x, log_y, sign)
        normal, normal_scale = _scaled_exp(a.log() - log_x, torch.log1p(-a) - log_y, sign)
        normal = normal * normal.new_tensor([-1.0, -1.0, 1.0])
        ray_length, normal_length = ray.norm(dim=-1), normal.norm(dim=-1)
        ray, normal = ray / ray_length.unsqueeze(-1), normal / normal_length.unsqueeze(-1)
        log_ray, log_normal = ray_length.log() + ray_scale, normal_length.log() + normal_scale
        product = log_x + log_y
        log_sigma = product + log_normal - 2 * log_ray
        log_nu = (a * (1 - a)).log() + log_ray - product - 2 * log_normal
        log_scale = torch.maximum(log_sigma, log_nu)
        scale = log_scale.clamp(min=math.log(torch.finfo(v.dtype).tiny) / 4).exp()
        slope = (1 - a) * (ray[..., 0].square() + normal[..., 0].square())
        slope = 3 * (slope - a * (ray[..., 1].square() + normal[..., 1].square())) - 2 * (1 - 2 * a)
        tangent = -sign.unsqueeze(-1) * torch.linalg.cross(normal, ray)
        sigma, nu = (log_sigma - log_scale).exp(), (log_nu - log_scale).exp()
        return Frame(ray, tangent, normal, sigma, nu, slope / scale, scale)

    def regions(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Interior of K, and the polar cone (-x / alpha)^alpha (-y / (1 - alpha))^(1 - alpha) >= |z|."""
        a = self.exponent(v)
        x, y, z = v.unbind(-1)
        level = z.abs().log()
        inside = (x > 0) & (y > 0) & (a * x.abs().log() + (1 - a) * y.abs().log() > level)
        mean = a * ((-x).clamp(min=0).log() - a.log()) + (1 - a) * ((-y).clamp(min=0).log() - torch.log1p(-a))
        return inside, (x <= 0) & (y <= 0) & (mean >= level)

    def nearest(self, v: Tensor, outside: Tensor) -> Frame:
        """Hien's root; the smooth rays (1, 0, 0) and (0, 1, 0) for z = 0."""
        largest = v.abs().amax(-1, keepdim=True)
        scaled = v / torch.where(largest > 0, largest, 1)
        scaled = torch.where(scaled.abs() < torch.finfo(v.dtype).tiny ** 0.45, 0, scaled)
        level = scaled[..., 2] == 0
        scaled = torch.where((outside & ~level).unsqueeze(-1), scaled, scaled.new_tensor([1.0, 1.0, 2.0]))
        with torch.no_grad():
            x, y, z = scaled.unbind(-1)
            a = self.exponent(v)
            odds = hien_odds(x, y, z.abs(), a, torch.zeros_like(x), torch.zeros_like(x))
            log_x, log_y, _ = hien_means(odds, x, y, z.abs(), a, torch.zeros_like(x))
        frame = self.refine(v, log_x[0] - log_y[0])
        return self._level_frame(v, frame, level)

    def projection_derivative(self, v: Tensor, kink: Kink) -> FrameDerivative:
        """As in every curved cone; within the radius of z = 0 theta takes its limit, 0 or 1, where that is extreme."""
        found = super().projection_derivative(v, kink)
        if not isinstance(kink.radius, Tensor) and kink.radius == 0:
            return found
        a = torch.where(v[..., 0] > v[..., 1], self.exponent(v), 1 - self.exponent(v))
        radius = expand_like(kink.radius, v)[..., 0]
        inside, polar = self.regions(v)
        level = (v[..., 2].abs() <= radius) & ~inside & ~polar & (a > 0.5 if kink.weak == "max" else a < 0.5)
        theta = torch.where(level, kink.value, found.values[..., 1])
        values = torch.stack([found.values[..., 0], theta, found.values[..., 2]], -1)
        return dataclasses.replace(found, values=values)

    def _level_frame(self, v: Tensor, frame: Frame, level: Tensor) -> Frame:
        """The frame at (1, 0, 0) or (0, 1, 0), whichever is nearer, where `level`."""
        first = v[..., 0] > v[..., 1]
        a = torch.where(first, self.exponent(v), 1 - self.exponent(v))
        axes = torch.eye(3, dtype=v.dtype, device=v.device)
        one, zero = torch.ones_like(frame.sigma), torch.zeros_like(frame.sigma)
        ray = torch.where(first.unsqueeze(-1), axes[0], axes[1])
        special = Frame(
            ray=ray,
            tangent=axes[2].expand_as(ray),
            normal=-ray[..., [1, 0, 2]],
            sigma=torch.where(a < 0.5, zero, one),
            nu=torch.where(a < 0.5, one, torch.where(a > 0.5, zero, 2 * one)),
            slope=zero,
            scale=one,
        )
        blended = [
            torch.where(level.unsqueeze(-1) if new.dim() > level.dim() else level, new, old)
            for new, old in zip(special, frame, strict=True)
        ]
        return Frame(*blended)

    def proximal(self, v: Tensor, mu: Tensor) -> ProximalPoint:
        """See `proximal_point`."""
        return proximal_point(v, mu, self.exponent(v), None)


@dataclasses.dataclass(frozen=True)
class _Powers(Power):
    """Power cones with one exponent each: points have the shape (*batch, len(alphas), 3)."""

    alphas: tuple[float, ...]

    def exponent(self, like: Tensor) -> Tensor:
        """The exponents, shape (len(alphas),)."""
        return _exponents(self.alphas, like.dtype, like.device)


@dataclasses.dataclass(frozen=True)
class DualPower(Cone):
    """The dual of the power cone.

    {(u, v, w) : (u / alpha)^alpha (v / (1 - alpha))^(1 - alpha) >= |w|, u >= 0, v >= 0}.

    Projection and derivative by Moreau's identity, Pi_{K*}(v) = v + Pi_K(-v) and D_{K*}(v) = I - D_K(-v), so
    the smallest element of one belongs to the largest of the other. Barrier for `mu`: that of the power cone
    at (u / alpha, v / (1 - alpha), w).

    Raises:
        InvalidArgument: alpha is not strictly between 0 and 1.
    """

    kinks_attained: ClassVar[bool] = False

    alpha: float

    def __post_init__(self) -> None:
        """Check the exponent."""
        _check_exponent(self.alpha)

    @property
    def dim(self) -> int:
        """Three rows."""
        return 3

    @property
    def primal(self) -> Power:
        """The power cone of the same exponent."""
        return Power(self.alpha)

    def dual(self) -> Power:
        """The power cone."""
        return self.primal

    def family(self) -> Hashable:
        """Dual power cones of all exponents are computed together."""
        return DualPower

    @classmethod
    def stack(cls, cones: Sequence[Cone]) -> Cone:
        """Dual power cones with one exponent each."""
        exponents = tuple(cone.alpha for cone in cones if isinstance(cone, DualPower))
        return cones[0] if len(set(exponents)) == 1 else _DualPowers(exponents[0], exponents)

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Nearest point, or the proximal point for mu."""
        if mu is None:
            return -self.primal.polar_part(-v)
        return self._proximal(v, mu).restored()

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> BlockDerivative:
        """I - D_K(-v), or the Jacobian of the proximal map for mu."""
        if mu is None:
            return self.primal.projection_derivative(-v, kink.opposite()).complement()
        return self._proximal(v, mu).derivative()

    def margin(self, v: Tensor) -> Tensor:
        """That of the power cone at -v."""
        return self.primal.margin(-v)

    def near_kink(self, y: Tensor, s: Tensor, v: Tensor, reach: Tensor) -> Tensor:
        """See `beside_kink`."""
        return beside_kink(self, y, s, v, reach)

    def turning(self, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Those of the power cone at -v, exchanged."""
        one, zero = self.primal.turning(-v, radius)
        return zero, one

    def _proximal(self, v: Tensor, mu: float | Tensor) -> ProximalPoint:
        a = self.primal.exponent(v)
        return proximal_point(v, expand_like(mu, v)[..., 0], a, -a * a.log() - (1 - a) * torch.log1p(-a))


@dataclasses.dataclass(frozen=True)
class _DualPowers(DualPower):
    """Dual power cones with one exponent each."""

    alphas: tuple[float, ...]

    @property
    def primal(self) -> Power:
        """The power cones of the same exponents."""
        return _Powers(self.alpha, self.alphas)


def _check_exponent(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise InvalidArgument(f"alpha must lie strictly between 0 and 1, got {alpha!r}.")


@functools.lru_cache(maxsize=256)
def _exponents(alphas: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(alphas, dtype=dtype, device=device)


def _scaled_exp(log_x: Tensor, log_y: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
    """(exp(log_x), exp(log_y), sign) divided by its largest entry, and the logarithm of that entry."""
    scale = torch.maximum(log_x, log_y).clamp(min=0)
    return torch.stack([(log_x - scale).exp(), (log_y - scale).exp(), sign * (-scale).exp()], -1), scale

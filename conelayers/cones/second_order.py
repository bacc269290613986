"""The second-order cone {(t, w) : ||w|| <= t}."""

import dataclasses
import math

import torch
from torch import Tensor

from conelayers.cones.base import EXACT, BlockDerivative, Cone, Kink, check_count, expand_like
from conelayers.cones.nonnegative import Nonnegative
from conelayers.cones.spectral import Eigenvalues

__all__ = ["SecondOrder", "SecondOrderDerivative"]

_SQRT2 = math.sqrt(2.0)


def _split(v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eigenvalues t + ||w||, t - ||w||, then ||w||, shape (*batch, 1), and w / ||w|| (first axis at 0)."""
    t, w = v[..., :1], v[..., 1:]
    largest = w.abs().amax(-1, keepdim=True)
    scaled = w / torch.where(largest > 0, largest, 1)
    length = scaled.norm(dim=-1, keepdim=True)
    axis = torch.zeros_like(w)
    axis[..., 0] = 1
    unit = torch.where(largest > 0, scaled / torch.where(length > 0, length, 1), axis)
    radius = largest * length
    return t + radius, t - radius, radius, unit


@dataclasses.dataclass(frozen=True, eq=False)
class SecondOrderDerivative(BlockDerivative):
    """D = g1 a a^T + g2 b b^T + g12 (I - a a^T - b b^T), a = (1, unit) / sqrt(2), b = (1, -unit) / sqrt(2).

    The third derivative is, in the same frame and with E the rest, c1 aaa + c2 bbb + c112 sym(a E E) + c122
    sym(b E E), where sym(a E E)[u, w] = (u_a w_E + w_a u_E) + (u_E . w_E) a.
    """

    unit: Tensor  # shape: (*batch, d - 1)
    first: tuple[Tensor, Tensor, Tensor]  # g1, g2, g12, shape: (*batch, 1)
    second: tuple[Tensor, Tensor, Tensor, Tensor]  # c1, c2, c112, c122, shape: (*batch, 1)

    def _decompose(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        along = (u[..., 1:] * self.unit).sum(-1, keepdim=True)
        rest = u[..., 1:] - along * self.unit
        return (u[..., :1] + along) / _SQRT2, (u[..., :1] - along) / _SQRT2, rest

    def _compose(self, a: Tensor, b: Tensor, rest: Tensor) -> Tensor:
        return torch.cat([(a + b) / _SQRT2, (a - b) / _SQRT2 * self.unit + rest], -1)

    def apply(self, u: Tensor) -> Tensor:
        """D u."""
        a, b, rest = self._decompose(u)
        g1, g2, g12 = self.first
        return self._compose(g1 * a, g2 * b, g12 * rest)

    def curvature(self, u: Tensor, w: Tensor) -> Tensor:
        """Gradient of <w, D(v) u>."""
        ua, ub, ue = self._decompose(u)
        wa, wb, we = self._decompose(w)
        c1, c2, c112, c122 = self.second
        inner = (ue * we).sum(-1, keepdim=True)
        rest = (c112 * ua + c122 * ub) * we + (c112 * wa + c122 * wb) * ue
        return self._compose(c1 * ua * wa + c112 * inner, c2 * ub * wb + c122 * inner, rest)

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Eigenvectors a, b, then a basis of the rest from the reflection of the first axis to unit."""
        g1, g2, g12 = self.first
        dim = self.unit.shape[-1]
        sign = torch.where(self.unit[..., :1] > 0, 1.0, -1.0).to(self.unit.dtype)
        normal = self.unit.clone()
        normal[..., :1] += sign
        normal = normal / normal.norm(dim=-1, keepdim=True)
        eye = torch.eye(dim, dtype=self.unit.dtype, device=self.unit.device)
        rest = (eye - 2 * normal.unsqueeze(-1) * normal.unsqueeze(-2))[..., 1:]
        ones = torch.ones_like(self.unit[..., :1])
        a = torch.cat([ones, self.unit], -1) / _SQRT2
        b = torch.cat([ones, -self.unit], -1) / _SQRT2
        rest = torch.cat([torch.zeros_like(rest[..., :1, :]), rest], -2)
        vectors = torch.cat([a.unsqueeze(-1), b.unsqueeze(-1), rest], -1)
        return vectors, torch.cat([g1, g2, g12.expand(*g12.shape[:-1], dim - 1)], -1)


@dataclasses.dataclass(frozen=True)
class SecondOrder(Cone):
    """The cone {(t, w) in R x R^(dim - 1) : ||w|| <= t}, its own dual.

    A vector has the eigenvalues t + ||w|| and t - ||w||; projection and derivative act on them (Fukushima,
    Luo and Tseng, "Smoothing functions for second-order-cone complementarity problems", SIAM J. Optim. 2002),
    see `spectral`. Kinks are where an eigenvalue vanishes. On the boundary (t = ||w|| > 0) the smallest
    element has a zero on (1, -w/||w||), on that of the polar cone it is 0, at the apex 0; the largest are I,
    (1, w/||w||)(1, w/||w||)^T / 2 and I.

    Barrier for `mu`: -1/2 log(t^2 - ||w||^2), the one whose central path is y o s = mu (1, 0) in the Jordan
    product, so that eigenvalues obey y - mu / y = v as in the other symmetric cones.
    """

    dim: int

    def __post_init__(self) -> None:
        """Check the dimension."""
        check_count("dim", self.dim, least=1)

    @property
    def polyhedral(self) -> bool:  # type: ignore[override]
        """Only the half-line is."""
        return self.dim == 1

    def dual(self) -> "SecondOrder":
        """The same cone."""
        return self

    def atoms(self) -> tuple[Cone, int]:
        """The cone of dimension one is the half-line."""
        return (Nonnegative(1), 1) if self.dim == 1 else (self, 1)

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """f(t + ||w||) (1, w/||w||) / 2 + f(t - ||w||) (1, -w/||w||) / 2."""
        if self.dim == 1:
            return Nonnegative(1).project(v, mu=mu)
        high, low, _, unit = _split(v)
        mu = None if mu is None else expand_like(mu, v)
        high, low = Eigenvalues(high, mu).y, Eigenvalues(low, mu).y
        projected = torch.cat([(high + low) / 2, (high - low) / 2 * unit], -1)
        return (
            projected
            if mu is not None
            else torch.where(v[..., :1] >= v[..., 1:].norm(dim=-1, keepdim=True), v, projected)
        )

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> BlockDerivative:
        """Divided differences of f at the two eigenvalues."""
        if self.dim == 1:
            return Nonnegative(1).derivative(v, mu=mu, kink=kink)
        high, low, _, unit = _split(v)
        if mu is None:
            radius = _SQRT2 * expand_like(kink.radius, v)
            high = torch.where(high.abs() <= radius, 0, high)
            low = torch.where(low.abs() <= radius, 0, low)
        smoothing = None if mu is None else expand_like(mu, v)
        one, two = Eigenvalues(high, smoothing, kink.value), Eigenvalues(low, smoothing, kink.value)
        first = (one.first(one), two.first(two), one.first(two))
        second = (
            2 * _SQRT2 * one.second(one, one),
            2 * _SQRT2 * two.second(two, two),
            _SQRT2 * one.second(one, two),
            _SQRT2 * one.second(two, two),
        )
        return SecondOrderDerivative(unit, first, second)

    def margin(self, v: Tensor) -> Tensor:
        """| |t| - ||w|| | / sqrt(2), exactly (|t| for dim = 1)."""
        if self.dim == 1:
            return v[..., 0].abs()
        high, low, _, _ = _split(v)
        return torch.minimum(high.abs(), low.abs())[..., 0] / _SQRT2

    def turning(self, v: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        """The frame turns with w, and |w' - w| <= sqrt(2) r in the spectral norm: sqrt(2) r / |w|.

        Where the space is everything, or nothing, it does not turn.
        """
        if self.dim == 1:
            return super().turning(v, radius)
        length, reach = v[..., 1:].norm(dim=-1), _SQRT2 * radius
        high, low = v[..., 0] + length, v[..., 0] - length
        turn = (reach / length).clamp(max=1.0).nan_to_num(nan=1.0)
        one = torch.where((low >= -reach) | (high < -reach), 0.0, turn)
        return one, torch.where((high <= reach) | (low > reach), 0.0, turn)

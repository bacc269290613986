"""Robust regression losses: Huber's, and the quantile loss, exact or with a rounded corner."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso.datafits.base import Datafit
from conelayers.settings import require_numbers

__all__ = ["Huber", "Quantile"]

_MOST_STEPS, _FLAT = 60, 1e-12  # of the search for the best constant, and the balance of slopes at which it ends


class _Regression(Datafit):
    def targets(self, y: Tensor) -> Tensor:
        """See `Datafit.targets`."""
        if y.ndim != 1:
            raise InvalidArgument(f"y must have shape (n_samples,); got {tuple(y.shape)}")
        return y.to(torch.float64)

    def constant(self, y: Tensor, weights: Tensor) -> Tensor:
        """Between the targets' extremes, by Newton's method within a shrinking bracket; see `Datafit.constant`."""
        known = y[weights > 0]
        low, high = known.min(), known.max()
        best = 0.5 * (low + high)
        for _ in range(_MOST_STEPS):
            eta = best.expand_as(y)
            slopes = self.gradient(eta, y, weights)
            slope = slopes.sum()
            if float(slope.abs()) <= _FLAT * float(slopes.abs().sum()):
                break
            low, high = (low, best) if slope > 0 else (best, high)
            newton = best - slope / self.hessian(eta, y, weights).sum()
            best = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
        return best


@dataclass(frozen=True)
class Huber(_Regression):
    """l(eta, y) = r^2 / 2 for |r| <= delta, else delta |r| - delta^2 / 2, with r = eta - y."""

    delta: float = 1.35

    def __post_init__(self) -> None:
        require_numbers(self, delta="(0, inf]")

    def loss(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.loss`."""
        r = eta - y
        near = r.clamp(-self.delta, self.delta)
        return 0.5 * near.square() + self.delta * (r - near).abs()

    def slope(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.slope`."""
        return (eta - y).clamp(-self.delta, self.delta)

    def second(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.second`."""
        return ((eta - y).abs() <= self.delta).to(eta.dtype)

    def conjugate(self, slope: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.conjugate`."""
        inside = slope.abs() <= self.delta * (1 + 1e-12)
        return torch.where(inside, 0.5 * slope.square() + slope * y, torch.inf)


@dataclass(frozen=True)
class Quantile(_Regression):
    """The quantile (pinball) loss of level q, its corner rounded over residuals of size `smoothing`.

    With r = y - eta, the loss is max(q r, (q - 1) r); its Moreau envelope of parameter `smoothing` is quadratic for
    -(1 - q) smoothing <= r <= q smoothing and below the loss by at most smoothing max(q, 1 - q)^2 / 2. With
    `smoothing` zero the loss is the exact one: models then interpolate some samples and are differentiated as such.

    Args:
        level: q, between 0 and 1.
        smoothing: In the units of y, at least zero.
    """

    level: float = 0.5
    smoothing: float = 1e-2

    def __post_init__(self) -> None:
        require_numbers(self, level="(0, 1)", smoothing="[0, inf)")

    @property
    def smooth(self) -> bool:  # type: ignore[override]
        """Whether the corner is rounded."""
        return self.smoothing > 0

    @property
    def curvature(self) -> float:  # type: ignore[override]
        """Bound of the second derivative."""
        return 1 / self.smoothing if self.smooth else float("inf")

    def constant(self, y: Tensor, weights: Tensor) -> Tensor:
        """The weighted quantile, where the corner is not rounded; see `Datafit.constant`."""
        if self.smooth:
            return super().constant(y, weights)
        values, order = y.sort()
        shares = weights[order].cumsum(0)
        return values[torch.searchsorted(shares, self.level * shares[-1]).clamp(max=len(y) - 1)]

    def _dual(self, eta: Tensor, y: Tensor) -> Tensor:
        scaled = (y - eta) / self.smoothing if self.smooth else torch.sign(y - eta)
        return scaled.clamp(self.level - 1, self.level)

    def loss(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.loss`."""
        u = self._dual(eta, y)
        return u * (y - eta) - 0.5 * self.smoothing * u.square()

    def slope(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.slope`."""
        return -self._dual(eta, y)

    def second(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.second`."""
        u = (y - eta) / self.smoothing
        return ((u >= self.level - 1) & (u <= self.level)).to(eta.dtype) / self.smoothing

    def conjugate(self, slope: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.conjugate`."""
        inside = (-slope >= self.level - 1 - 1e-12) & (-slope <= self.level + 1e-12)
        return torch.where(inside, 0.5 * self.smoothing * slope.square() + slope * y, torch.inf)

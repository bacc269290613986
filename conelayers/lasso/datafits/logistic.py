"""Logistic losses, of two classes and of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso.datafits.base import Datafit, visible
from conelayers.settings import require_counts

__all__ = ["Logistic", "Multinomial"]

_RAREST = 1e-10  # the share of a class that is not there: its intercept would be infinite


class Logistic(Datafit):
    """l(eta, y) = log(1 + exp(-y eta)) for labels y in {-1, 1}."""

    classes: ClassVar[bool] = True
    curvature = 0.25

    def loss(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.loss`."""
        return torch.nn.functional.softplus(-y * eta)

    def slope(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.slope`."""
        return -y * torch.sigmoid(-y * eta)

    def second(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.second`."""
        # y^2 sigma(-y eta) sigma(y eta); both factors keep their relative accuracy in the tails
        return y.square() * torch.sigmoid(-y * eta) * torch.sigmoid(y * eta)

    def conjugate(self, slope: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.conjugate`."""
        p = -slope * y  # in [0, 1]
        inside = (p >= 0) & (p <= 1)
        q = p.clamp(0, 1)
        return torch.where(inside, torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q), torch.inf)

    def targets(self, y: Tensor) -> Tensor:
        """See `Datafit.targets`."""
        known = visible(y)
        if y.ndim != 1 or (known is not None and not bool(((known == 1) | (known == -1)).all())):
            raise InvalidArgument("y must have shape (n_samples,) and hold the labels -1 and 1")
        return y.to(torch.float64)

    def constant(self, y: Tensor, weights: Tensor) -> Tensor:
        """The log-odds of the shares; see `Datafit.constant`."""
        return torch.special.logit(weights @ (y > 0).to(weights) / weights.sum(), eps=_RAREST)


@dataclass(frozen=True)
class Multinomial(Datafit):
    """l(eta, y) = logsumexp(eta) - eta_y for class numbers y in 0 .. n_classes - 1, K = n_classes outputs."""

    n_classes: int
    outputs: ClassVar[bool] = True
    classes: ClassVar[bool] = True
    curvature = 0.5

    def __post_init__(self) -> None:
        require_counts(self, n_classes=2)

    def loss(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.loss`."""
        return torch.logsumexp(eta, -1) - (eta * y).sum(-1)

    def slope(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.slope`."""
        return torch.softmax(eta, -1) - y

    def second(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.second`."""
        p = torch.softmax(eta, -1)
        return torch.diag_embed(p) - p[..., :, None] * p[..., None, :]

    def conjugate(self, slope: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.conjugate`."""
        p = slope + y  # on the simplex
        inside = ((p >= -1e-12).all(-1)) & ((p.sum(-1) - 1).abs() <= 1e-9)
        return torch.where(inside, torch.xlogy(p.clamp_min(0), p.clamp_min(0)).sum(-1), torch.inf)

    def targets(self, y: Tensor) -> Tensor:
        """See `Datafit.targets`."""
        known = visible(y)
        outside = known is not None and not bool(((known >= 0) & (known < self.n_classes)).all())
        if y.ndim != 1 or y.is_floating_point() or outside:
            raise InvalidArgument(f"y must have shape (n_samples,) and hold class numbers 0 .. {self.n_classes - 1}")
        return (y[:, None] == torch.arange(self.n_classes, device=y.device)).to(torch.float64)

    def coef_shape(self, n_features: int, y: Tensor) -> tuple[int, ...]:
        """See `Datafit.coef_shape`."""
        return (n_features, self.n_classes)

    def constant(self, y: Tensor, weights: Tensor) -> Tensor:
        """Logarithms of the shares, of mean zero; see `Datafit.constant`."""
        logarithms = (weights @ y / weights.sum()).clamp_min(_RAREST).log()
        return logarithms - logarithms.mean()

"""Least squares, with one or several outputs."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso.datafits.base import Datafit

__all__ = ["MultitaskQuadratic", "Quadratic"]


class Quadratic(Datafit):
    """l(eta, y) = (eta - y)^2 / 2."""

    quadratic: ClassVar[bool] = True

    def loss(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.loss`."""
        return 0.5 * (eta - y).square()

    def slope(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.slope`."""
        return eta - y

    def second(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.second`."""
        return torch.ones_like(eta)

    def conjugate(self, slope: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.conjugate`."""
        return 0.5 * slope.square() + slope * y

    def targets(self, y: Tensor) -> Tensor:
        """See `Datafit.targets`."""
        if y.ndim != 1:
            raise InvalidArgument(f"y must have shape (n_samples,); got {tuple(y.shape)}: use MultitaskQuadratic")
        return y.to(torch.float64)

    def constant(self, y: Tensor, weights: Tensor) -> Tensor:
        """The mean; see `Datafit.constant`."""
        return weights @ y / weights.sum()


class MultitaskQuadratic(Datafit):
    """l(eta, y) = ||eta - y||^2 / 2 for K outputs."""

    quadratic: ClassVar[bool] = True
    outputs: ClassVar[bool] = True

    def loss(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.loss`."""
        return 0.5 * (eta - y).square().sum(-1)

    def slope(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.slope`."""
        return eta - y

    def second(self, eta: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.second`."""
        return torch.ones_like(eta[..., 0])

    def conjugate(self, slope: Tensor, y: Tensor) -> Tensor:
        """See `Datafit.conjugate`."""
        return (0.5 * slope.square() + slope * y).sum(-1)

    def targets(self, y: Tensor) -> Tensor:
        """See `Datafit.targets`."""
        if y.ndim != 2:
            raise InvalidArgument(f"y must have shape (n_samples, n_outputs); got {tuple(y.shape)}: use Quadratic")
        return y.to(torch.float64)

    def coef_shape(self, n_features: int, y: Tensor) -> tuple[int, ...]:
        """See `Datafit.coef_shape`."""
        return (n_features, y.shape[1])

    def constant(self, y: Tensor, weights: Tensor) -> Tensor:
        """The mean; see `Datafit.constant`."""
        return weights @ y / weights.sum()

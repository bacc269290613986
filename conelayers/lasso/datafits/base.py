"""The smooth part of a model: an average of losses of the predictions."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Datafit", "visible"]


def visible(values: Tensor) -> Tensor | None:
    """The same tensor where its numbers can be looked at, None inside `torch.func` transforms."""
    return None if torch._C._functorch.is_functorch_wrapped_tensor(values) else values  # pyright: ignore


class Datafit(abc.ABC):
    """f(eta) = sum_i w_i l(eta_i, y_i), convex and (but for the exact quantile loss) differentiable in eta.

    Predictions have shape (n,), or (n, K) for models with several outputs; the weights w have shape (n,), are
    nonnegative and come normalised to sum to one (to n where `reduction` is "sum"). Every method is plain torch code,
    differentiable in all arguments where the loss is.
    """

    quadratic: ClassVar[bool] = False  # l is quadratic in eta: one Newton step is exact
    outputs: ClassVar[bool] = False  # predictions carry an axis of K outputs
    classes: ClassVar[bool] = False  # targets are classes, predictions their scores
    smooth: bool = True  # l is differentiable
    curvature: float = 1.0  # an upper bound of the second derivative of l

    @abc.abstractmethod
    def loss(self, eta: Tensor, y: Tensor) -> Tensor:
        """l(eta_i, y_i), shape (n,)."""

    @abc.abstractmethod
    def slope(self, eta: Tensor, y: Tensor) -> Tensor:
        """First derivative of l in eta_i, shape of eta."""

    @abc.abstractmethod
    def second(self, eta: Tensor, y: Tensor) -> Tensor:
        """Second derivative of l in eta_i: shape (n,) (a multiple of the identity for K outputs) or (n, K, K)."""

    @abc.abstractmethod
    def conjugate(self, slope: Tensor, y: Tensor) -> Tensor:
        """Fenchel conjugate of l at `slope`, shape (n,); infinite outside its domain."""

    @abc.abstractmethod
    def targets(self, y: Tensor) -> Tensor:
        """Check the targets and bring them to the form that the other methods take."""

    def coef_shape(self, n_features: int, y: Tensor) -> tuple[int, ...]:
        """Shape of the coefficients for targets in the form of `targets`."""
        return (n_features,)

    def constant(self, y: Tensor, weights: Tensor) -> Tensor:
        """The intercept that fits best where there are no features, shape () or (K,); zero where it is not known.

        Solvers start there, and measure their accuracy by the gradient there.
        """
        return weights.new_zeros(self.coef_shape(0, y)[1:])

    def value(self, eta: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of losses, a scalar."""
        return weights @ self.loss(eta, y)

    def gradient(self, eta: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Gradient of `value` in eta, shape of eta."""
        slope = self.slope(eta, y)
        return slope * (weights if slope.ndim == 1 else weights[:, None])

    def hessian(self, eta: Tensor, y: Tensor, weights: Tensor) -> Tensor:
        """Hessian of `value` in eta, one entry or K x K block per sample."""
        second = self.second(eta, y)
        return second * (weights if second.ndim == 1 else weights[:, None, None])

    def times_hessian(self, hessian: Tensor, direction: Tensor) -> Tensor:
        """The product of `hessian` with a direction of the shape of eta."""
        if hessian.ndim == 3:
            return torch.einsum("nkl,nl->nk", hessian, direction)
        return direction * (hessian if direction.ndim == 1 else hessian[:, None])

"""A regulariser with its numbers filled in: what solvers and derivatives need to know of it."""

from __future__ import annotations

import abc
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Term", "soft"]


def soft(v: Tensor, threshold: Tensor) -> Tensor:
    """Soft thresholding sign(v) max(|v| - threshold, 0)."""
    return v - torch.maximum(torch.minimum(v, threshold), -threshold)


class Term(abc.ABC):
    """g(beta) for coefficients of shape (p,) or (p, K), with a proximal operator in closed form.

    The *generalised support* is the set of entries in which g moves smoothly with the solution: off it, an entry stays
    at a kink (zero) or at a bound while hyperparameters and data change a little. Methods are plain torch code,
    differentiable in the numbers of the term and in beta where g is.
    """

    convex: ClassVar[bool] = True

    @abc.abstractmethod
    def value(self, beta: Tensor) -> Tensor:
        """g(beta), a scalar."""

    @abc.abstractmethod
    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """argmin_b g(b) + ||b - v||^2 / (2 step), shape of v."""

    @abc.abstractmethod
    def support(self, beta: Tensor) -> Tensor:
        """The generalised support, a mask of the shape of beta."""

    @abc.abstractmethod
    def slope(self, beta: Tensor) -> Tensor:
        """Gradient of g, right on the generalised support and finite elsewhere."""

    @abc.abstractmethod
    def curvature(self, beta: Tensor, index: Tensor) -> Tensor:
        """Hessian of g on the entries `index` of beta.flatten(), shape (s,) if it is diagonal, else (s, s)."""

    @abc.abstractmethod
    def violation(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """How far 0 is from gradient + subdifferential of g, entry by entry, shape of beta."""

    @abc.abstractmethod
    def slack(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """How far each entry off the support is from joining it, in units of the gradient; infinite on the support."""

    @abc.abstractmethod
    def conjugate(self, v: Tensor) -> Tensor:
        """Fenchel conjugate of g, a scalar (infinite off its domain)."""

    @abc.abstractmethod
    def dual_scale(self, v: Tensor) -> Tensor:
        """The largest s in [0, 1] with finite conjugate at s v, a scalar."""

    @abc.abstractmethod
    def restrict(self, index: Tensor) -> Term:
        """The term of the features in `index` alone; whole groups only."""

    def pinned(self, beta: Tensor) -> Tensor:
        """Values of the entries off the support as functions of the term's numbers, zero on it."""
        return torch.zeros_like(beta)

    def whole(self, features: Tensor) -> Tensor:
        """Complete a mask of features, shape (p,), to whole groups."""
        return features

    def max_step(self) -> float:
        """Largest step for which the proximal operator is that of a convex problem."""
        return float("inf")

"""The stochastic Neumann estimator of stocBiO, for inner and outer functions that are sums over data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from conelayers.implicit.bilevel import Hypergradient, Tensors, flatten, unflatten

__all__ = ["StochasticNeumann"]

BatchFunction = Callable[[Tensors, Tensors, Any], Tensor]


@dataclass(frozen=True)
class StochasticNeumann:
    """u = step sum_{q=0}^{terms-1} prod_{j<=q} (I - step H_j) g on fresh minibatches (Ji, Yang & Liang 2021, stocBiO).

    Each product uses the Hessian of another minibatch, so the estimate is unbiased for the truncated series.

    Args:
        terms: Number of terms.
        step: Below 2 / ||H||.
    """

    terms: int = 10
    step: float = 0.1

    def hypergradient(
        self,
        inner: BatchFunction,
        outer: BatchFunction,
        w: Tensors,
        theta: Tensors,
        inner_batches: Iterator[Any],
        outer_batches: Iterator[Any],
    ) -> Hypergradient:
        """Estimate the hypergradient.

        Args:
            inner: inner(w, theta, batch), scalar.
            outer: outer(w, theta, batch), scalar.
            w: Approximate inner solution.
            theta: Outer variables.
            inner_batches: Independent minibatches of the inner function; terms + 1 are taken.
            outer_batches: Minibatches of the outer function; one is taken.
        """
        w = tuple(t.detach().requires_grad_() for t in w)
        theta = tuple(t.detach().requires_grad_() for t in theta)
        with torch.enable_grad():
            value = outer(w, theta, next(outer_batches))
            grads = torch.autograd.grad(value, (*w, *theta), allow_unused=True, materialize_grads=True)
            term = flatten(grads[: len(w)])
            total = term
            for _ in range(self.terms - 1):
                slope = self._slope(inner, w, theta, next(inner_batches))
                moved = torch.autograd.grad(slope, w, unflatten(term, w), allow_unused=True, materialize_grads=True)
                term = (term - self.step * flatten(moved)).detach()
                total = total + term
            u = (self.step * total).detach()
            slope = self._slope(inner, w, theta, next(inner_batches))
            cross = torch.autograd.grad(slope, theta, unflatten(u, w), allow_unused=True, materialize_grads=True)
        gradient = tuple(direct - mixed for direct, mixed in zip(grads[len(w) :], cross, strict=True))
        return Hypergradient(value.detach(), gradient, u)

    @staticmethod
    def _slope(inner: BatchFunction, w: Tensors, theta: Tensors, batch: Any) -> tuple[Tensor, ...]:
        value = inner(w, theta, batch)
        return torch.autograd.grad(value, w, create_graph=True, allow_unused=True, materialize_grads=True)

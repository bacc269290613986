"""The stochastic Neumann estimator of stocBiO, for inner and outer functions that are sums over data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from conelayers.bilevel.functions import Tensors, flatten, gradients, leaves, recorded, unflatten
from conelayers.bilevel.hypergradient import Hypergradient
from conelayers.errors import InvalidArgument
from conelayers.settings import require_counts, require_numbers

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

    def __post_init__(self) -> None:
        require_counts(self, terms=1)
        require_numbers(self, step="(0, inf)")

    def hypergradient(
        self,
        inner: BatchFunction,
        outer: BatchFunction,
        w: Tensors,
        theta: Tensors,
        inner_batches: Iterable[Any],
        outer_batches: Iterable[Any],
    ) -> Hypergradient:
        """Estimate the hypergradient.

        Args:
            inner: inner(w, theta, batch), scalar.
            outer: outer(w, theta, batch), scalar.
            w: Approximate inner solution.
            theta: Outer variables.
            inner_batches: Independent minibatches of the inner function; as many as `terms` are taken.
            outer_batches: Minibatches of the outer function; one is taken.

        Raises:
            InvalidArgument: There are too few minibatches, a function does not return a scalar, or w or theta is no
                tuple of tensors.
        """
        w, theta = leaves("w", w), leaves("theta", theta)
        inner_batches, outer_batches = iter(inner_batches), iter(outer_batches)
        with torch.enable_grad():
            value = recorded("outer", outer(w, theta, _taken("outer_batches", outer_batches, 1)))
            grads = gradients((value,), (*w, *theta))
            term = flatten(grads[: len(w)])
            total = term
            for _ in range(self.terms - 1):
                moved = gradients(self._slope(inner, w, theta, inner_batches), w, unflatten(term, w))
                term = (term - self.step * flatten(moved)).detach()
                total = total + term
            u = (self.step * total).detach()
            cross = gradients(self._slope(inner, w, theta, inner_batches), theta, unflatten(u, w))
        gradient = tuple(direct - mixed for direct, mixed in zip(grads[len(w) :], cross, strict=True))
        return Hypergradient(value.detach(), gradient, u)

    def _slope(self, inner: BatchFunction, w: Tensors, theta: Tensors, batches: Iterator[Any]) -> Tensors:
        value = recorded("inner", inner(w, theta, _taken("inner_batches", batches, self.terms)))
        return gradients((value,), w, create_graph=True)


def _taken(name: str, batches: Iterator[Any], needed: int) -> Any:
    try:
        return next(batches)
    except StopIteration:
        raise InvalidArgument(f"{name} must yield {needed} or more minibatches, and is exhausted.") from None

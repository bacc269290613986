"""Terms that act on each coefficient alone: linear, l1 and l2 parts and bounds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.lasso.terms.base import Term, soft

__all__ = ["SeparableTerm"]


@dataclass(frozen=True)
class SeparableTerm(Term):
    """g(b) = sum_j linear_j b_j + l1_j |b_j| + l2_j b_j^2 / 2, with lower_j <= b_j <= upper_j and lower <= 0 <= upper.

    All five tensors have the shape of the coefficients (expanded views are welcome).
    """

    linear: Tensor
    l1: Tensor
    l2: Tensor
    lower: Tensor
    upper: Tensor

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        *,
        like: Tensor,
        linear: Tensor | None = None,
        l1: Tensor | None = None,
        l2: Tensor | None = None,
        lower: Tensor | None = None,
        upper: Tensor | None = None,
    ) -> SeparableTerm:
        """Expand the given parts to `shape`; absent ones mean no such part."""

        def full(part: Tensor | None, default: float) -> Tensor:
            value = like.new_full((), default) if part is None else part
            return value.expand(shape)

        inf = float("inf")
        return cls(full(linear, 0), full(l1, 0), full(l2, 0), full(lower, -inf), full(upper, inf))

    def value(self, beta: Tensor) -> Tensor:
        """Sum of the parts; bounds are taken to hold."""
        return (self.linear * beta + self.l1 * beta.abs() + 0.5 * self.l2 * beta.square()).sum()

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Shift, soft-threshold, shrink, clip: right in one dimension because each part is convex."""
        shrunk = soft(v - step * self.linear, step * self.l1) / (1 + step * self.l2)
        return torch.minimum(torch.maximum(shrunk, self.lower), self.upper)

    def support(self, beta: Tensor) -> Tensor:
        """Entries strictly between their bounds and off the kink."""
        return ((beta != 0) | (self.l1 == 0)) & (beta > self.lower) & (beta < self.upper)

    def pinned(self, beta: Tensor) -> Tensor:
        """The bound at which an entry stays."""
        at_upper = (beta == self.upper) & (beta != 0)
        at_lower = (beta == self.lower) & (beta != 0)
        zero = torch.zeros_like(beta)
        # masked_fill first: an infinite bound times a zero mask would be NaN in the derivative
        upper = torch.where(at_upper, self.upper, zero)
        return torch.where(at_lower, self.lower, upper)

    def slope(self, beta: Tensor) -> Tensor:
        """Linear + l1 sign(b) + l2 b."""
        return self.linear + self.l1 * torch.sign(beta.detach()) + self.l2 * beta

    def curvature(self, beta: Tensor, index: Tensor) -> Tensor:
        """l2 on the diagonal."""
        return self.l2.reshape(-1)[index]

    def _one_sided(self, beta: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        # left and right derivatives of the objective in each entry
        q = gradient + self.linear + self.l2 * beta
        right = q + torch.where(beta >= 0, self.l1, -self.l1)
        left = q + torch.where(beta > 0, self.l1, -self.l1)
        return left, right

    def violation(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """Descent left in either direction that the bounds allow."""
        left, right = self._one_sided(beta, gradient)
        up = (-right).clamp_min(0) * (beta < self.upper)
        down = left.clamp_min(0) * (beta > self.lower)
        return torch.maximum(up, down)

    def slack(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """Ascent met in the directions that the bounds allow."""
        left, right = self._one_sided(beta, gradient)
        inf = torch.full_like(beta, torch.inf)
        up = torch.where(beta < self.upper, right, inf)
        down = torch.where(beta > self.lower, -left, inf)
        return torch.where(self.support(beta), inf, torch.minimum(up, down))

    def conjugate(self, v: Tensor) -> Tensor:
        """Entry-wise supremum of v b - g(b)."""
        s = soft(v - self.linear, self.l1)
        far = torch.sign(s) * torch.inf
        best = torch.where(self.l2 > 0, s / self.l2, torch.where(s == 0, torch.zeros_like(s), far))
        best = torch.minimum(torch.maximum(best, self.lower), self.upper)
        gain = s * best - 0.5 * self.l2 * best.square()
        return torch.where(best == 0, torch.zeros_like(gain), gain).sum()

    def dual_scale(self, v: Tensor) -> Tensor:
        """Shrink v until no unbounded entry without curvature has |v - linear| > l1."""
        free = self.l2 == 0
        up = torch.where(free & (self.upper == torch.inf) & (v > 0), (self.l1 + self.linear) / v, torch.inf)
        down = torch.where(free & (self.lower == -torch.inf) & (v < 0), (self.l1 - self.linear) / -v, torch.inf)
        return torch.minimum(up, down).min().clamp(0, 1)

    def restrict(self, index: Tensor) -> SeparableTerm:
        """The same parts on fewer features."""
        parts = (self.linear, self.l1, self.l2, self.lower, self.upper)
        return SeparableTerm(*(part.index_select(0, index) for part in parts))

"""Terms that act on groups of features: sums of norms, with an optional l1 part inside the groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.lasso.terms.base import Term, soft

__all__ = ["GroupTerm"]


@dataclass(frozen=True)
class GroupTerm(Term):
    """g(b) = sum_G scale_G ||b_G|| + sum_j l1_j |b_j|; a group holds all K entries of its features.

    Attributes:
        scale: Shape (n_groups,).
        l1: Shape of the coefficients.
        group: Group number of each feature, int64, shape (p,).
    """

    scale: Tensor
    l1: Tensor
    group: Tensor

    def _norms(self, beta: Tensor) -> Tensor:
        squares = beta.square() if beta.ndim == 1 else beta.square().sum(-1)
        total = torch.zeros_like(self.scale).index_add(0, self.group, squares)
        positive = total > 0
        return torch.where(positive, torch.where(positive, total, torch.ones_like(total)).sqrt(), total)

    def _spread(self, per_group: Tensor, beta: Tensor) -> Tensor:
        per_feature = per_group[self.group]
        return per_feature if beta.ndim == 1 else per_feature[:, None].expand_as(beta)

    def value(self, beta: Tensor) -> Tensor:
        """Sum of scaled norms and of the l1 part."""
        return self.scale @ self._norms(beta) + (self.l1 * beta.abs()).sum()

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Soft thresholding of the entries, then of the groups' norms (Simon, Friedman, Hastie & Tibshirani 2013)."""
        inner = soft(v, step * self.l1)
        norms = self._norms(inner)
        shrink = torch.where(norms > step * self.scale, 1 - step * self.scale / norms, torch.zeros_like(norms))
        return inner * self._spread(shrink, inner)

    def support(self, beta: Tensor) -> Tensor:
        """Entries of nonzero groups, zeros of the l1 part excepted."""
        active = self._spread(self._norms(beta) > 0, beta)
        return active & ((beta != 0) | (self.l1 == 0))

    def slope(self, beta: Tensor) -> Tensor:
        """Scale b / ||b_G|| + l1 sign(b)."""
        norms = self._norms(beta)
        unit = torch.where(norms > 0, self.scale / torch.where(norms > 0, norms, torch.ones_like(norms)), 0)
        return self._spread(unit, beta) * beta + self.l1 * torch.sign(beta.detach())

    def curvature(self, beta: Tensor, index: Tensor) -> Tensor:
        """Scale (I - u u') / ||b_G|| per group, u = b_G / ||b_G||, dense of shape (s, s)."""
        outputs = 1 if beta.ndim == 1 else beta.shape[1]
        group = self.group[index // outputs]
        norms = self._norms(beta)[group]
        entries = beta.reshape(-1)[index] / norms
        weight = self.scale[group] / norms
        same = (group[:, None] == group[None, :]).to(beta.dtype)
        return torch.diag(weight) - same * weight[:, None] * entries[:, None] * entries[None, :]

    def violation(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """Entry-wise in active groups; excess of the group's norm over its scale in the others."""
        active = self._spread(self._norms(beta) > 0, beta)
        inside = torch.where(beta != 0, (gradient + self.slope(beta)).abs(), (gradient.abs() - self.l1).clamp_min(0))
        excess = (self._norms(soft(gradient, self.l1)) - self.scale).clamp_min(0)
        return torch.where(active, inside, self._spread(excess, beta))

    def slack(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """Distance of a zero group's norm, or of a zero entry of an active group, from its threshold."""
        active = self._spread(self._norms(beta) > 0, beta)
        margin = self._spread(self.scale - self._norms(soft(gradient, self.l1)), beta)
        entry = torch.where(self.support(beta), torch.full_like(beta, torch.inf), self.l1 - gradient.abs())
        return torch.where(active, entry, margin)

    def conjugate(self, v: Tensor) -> Tensor:
        """Zero where every group's thresholded norm is within its scale, else infinite."""
        excess = self._norms(soft(v, self.l1)) - self.scale * (1 + 1e-12)
        return torch.where((excess <= 0).all(), 0.0, torch.inf).to(v.dtype)

    def dual_scale(self, v: Tensor) -> Tensor:
        """Bisection on the scale: a group's thresholded norm grows with it."""
        low, high = torch.zeros_like(self.scale), torch.ones_like(self.scale)
        fits = self._norms(soft(v, self.l1)) <= self.scale
        for _ in range(60):
            middle = 0.5 * (low + high)
            inside = self._norms(soft(v * self._spread(middle, v), self.l1)) <= self.scale
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return torch.where(fits, torch.ones_like(low), low).min()

    def restrict(self, index: Tensor) -> GroupTerm:
        """The groups of these features, renumbered."""
        kept, group = torch.unique(self.group[index], return_inverse=True)
        return GroupTerm(self.scale[kept], self.l1.index_select(0, index), group)

    def whole(self, features: Tensor) -> Tensor:
        """All features of every group that has one in the mask."""
        chosen = torch.zeros(self.scale.shape, dtype=torch.bool, device=features.device)
        chosen[self.group[features]] = True
        return chosen[self.group]

"""Nonconvex terms that shrink large coefficients less: the minimax concave penalty and SCAD.

With them a solution is a stationary point, and derivatives are those of the stationary point that the solver returned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from conelayers.lasso.terms.base import Term, soft

__all__ = ["MCPTerm", "SCADTerm"]


@dataclass(frozen=True)
class _ConcaveTerm(Term):
    scale: Tensor  # threshold at zero, shape of the coefficients
    gamma: Tensor  # concavity, shape of the coefficients

    convex: ClassVar[bool] = False

    def support(self, beta: Tensor) -> Tensor:
        """Nonzero entries."""
        return beta != 0

    def violation(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """Stationarity entry by entry."""
        return torch.where(beta == 0, (gradient.abs() - self.scale).clamp_min(0), (gradient + self.slope(beta)).abs())

    def slack(self, beta: Tensor, gradient: Tensor) -> Tensor:
        """Distance of the gradient at a zero entry from the threshold."""
        return torch.where(beta == 0, self.scale - gradient.abs(), torch.inf)

    def conjugate(self, v: Tensor) -> Tensor:
        """Not defined: there is no duality gap."""
        return torch.full((), torch.nan, dtype=v.dtype, device=v.device)

    def dual_scale(self, v: Tensor) -> Tensor:
        """One."""
        return torch.ones((), dtype=v.dtype, device=v.device)

    def restrict(self, index: Tensor) -> _ConcaveTerm:
        """The same numbers on fewer features."""
        return type(self)(self.scale.index_select(0, index), self.gamma.index_select(0, index))


@dataclass(frozen=True)
class MCPTerm(_ConcaveTerm):
    """Derivative scale - |b| / gamma up to |b| = gamma scale, then 0 (Zhang 2010)."""

    def value(self, beta: Tensor) -> Tensor:
        """Sum of the concave pieces."""
        size = beta.abs()
        near = self.scale * size - size.square() / (2 * self.gamma)
        return torch.where(size <= self.gamma * self.scale, near, 0.5 * self.gamma * self.scale.square()).sum()

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """Firm thresholding, for step < gamma."""
        near = soft(v, step * self.scale) / (1 - step / self.gamma)
        return torch.where(v.abs() <= self.gamma * self.scale, near, v)

    def slope(self, beta: Tensor) -> Tensor:
        """Signed derivative."""
        near = self.scale * torch.sign(beta.detach()) - beta / self.gamma
        return torch.where(beta.abs() <= self.gamma * self.scale, near, torch.zeros_like(beta))

    def curvature(self, beta: Tensor, index: Tensor) -> Tensor:
        """-1 / gamma on the concave piece."""
        full = torch.where(beta.abs() <= self.gamma * self.scale, -1 / self.gamma, torch.zeros_like(beta))
        return full.reshape(-1)[index]

    def max_step(self) -> float:
        """Below gamma."""
        return 0.9 * float(self.gamma.min())


@dataclass(frozen=True)
class SCADTerm(_ConcaveTerm):
    """Derivative scale up to |b| = scale, then linear to 0 at |b| = gamma scale (Fan & Li 2001), gamma > 2."""

    def value(self, beta: Tensor) -> Tensor:
        """Sum of the three pieces."""
        size, lam, gamma = beta.abs(), self.scale, self.gamma
        middle = (2 * gamma * lam * size - size.square() - lam.square()) / (2 * (gamma - 1))
        far = 0.5 * lam.square() * (gamma + 1)
        return torch.where(size <= lam, lam * size, torch.where(size <= gamma * lam, middle, far)).sum()

    def prox(self, v: Tensor, step: Tensor | float) -> Tensor:
        """The three pieces of the thresholding, for step < gamma - 1."""
        size, lam, gamma = v.abs(), self.scale, self.gamma
        middle = ((gamma - 1) * v - torch.sign(v) * step * gamma * lam) / (gamma - 1 - step)
        near = soft(v, step * lam)
        return torch.where(size <= lam * (1 + step), near, torch.where(size <= gamma * lam, middle, v))

    def slope(self, beta: Tensor) -> Tensor:
        """Signed derivative."""
        size, sign = beta.abs(), torch.sign(beta.detach())
        middle = (self.gamma * self.scale * sign - beta) / (self.gamma - 1)
        far = torch.where(size <= self.gamma * self.scale, middle, torch.zeros_like(beta))
        return torch.where(size <= self.scale, self.scale * sign, far)

    def curvature(self, beta: Tensor, index: Tensor) -> Tensor:
        """-1 / (gamma - 1) on the middle piece."""
        middle = (beta.abs() > self.scale) & (beta.abs() <= self.gamma * self.scale)
        return torch.where(middle, -1 / (self.gamma - 1), torch.zeros_like(beta)).reshape(-1)[index]

    def max_step(self) -> float:
        """Below gamma - 1."""
        return 0.9 * (float(self.gamma.min()) - 1)

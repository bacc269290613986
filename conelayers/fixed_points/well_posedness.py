"""Sets of matrices A for which x = phi(A x + b) has exactly one solution, and projections onto them."""

from __future__ import annotations

import abc
import dataclasses

import torch
from torch import Tensor

from conelayers.fixed_points.certificates import perron_vector
from conelayers.settings import require_numbers

__all__ = ["InfinityNorm", "PerronFrobenius", "WellPosedness", "magnitude_radius", "project_rows"]


class WellPosedness(abc.ABC):
    """A set of matrices A for which x = phi(A x + b) has exactly one solution for every b, and how to get into it."""

    @abc.abstractmethod
    def project(self, A: Tensor) -> Tensor:
        """A matrix of the set, shape (n, n), close to A."""


@dataclasses.dataclass(frozen=True)
class InfinityNorm(WellPosedness):
    """||A||_inf <= kappa < 1: every absolute row sum at most kappa.

    Attributes:
        kappa: The bound, in (0, 1).
    """

    kappa: float = 0.95

    def __post_init__(self) -> None:
        require_numbers(self, kappa="(0, 1)")

    def project(self, A: Tensor) -> Tensor:
        """The Frobenius-nearest matrix of the set: each row projected onto the l1 ball of radius kappa."""
        return project_rows(A, torch.full_like(A[:, 0], self.kappa), torch.ones_like(A[0]))


@dataclasses.dataclass(frozen=True)
class PerronFrobenius(WellPosedness):
    """The spectral radius of |A| is at most kappa < 1.

    Weaker than the norm condition, and invariant under diagonal scaling. The set is not convex; `project` takes the
    nearest matrix of the convex subset {|A| s <= kappa s}, s the Perron vector of |A|, and leaves A alone where it
    is in the set.

    Attributes:
        kappa: The bound, in (0, 1).
    """

    kappa: float = 0.95

    def __post_init__(self) -> None:
        require_numbers(self, kappa="(0, 1)")

    def project(self, A: Tensor) -> Tensor:
        """Each row projected onto its weighted l1 ball sum_j s_j |a_ij| <= kappa s_i."""
        if magnitude_radius(A) <= self.kappa:
            return A.clone()
        vector, _ = perron_vector(A)
        return project_rows(A, self.kappa * vector, vector)


def magnitude_radius(A: Tensor) -> float:
    """The spectral radius of |A|; zero for no states."""
    return float(torch.linalg.eigvals(A.detach().abs().double()).abs().max()) if A.numel() else 0.0


def project_rows(A: Tensor, radius: Tensor, weights: Tensor) -> Tensor:
    """Euclidean projection of each row onto {a: sum_j w_j |a_j| <= r}, exact by sorting.

    The solution is sign(a) max(|a| - t w, 0) with the smallest t >= 0 that meets the constraint; over the k largest
    |a_j| / w_j, t = (sum w_j |a_j| - r) / sum w_j^2 (Duchi et al. 2008, with weights).

    Args:
        A: Shape (rows, n).
        radius: r >= 0 of each row, shape (rows,).
        weights: w > 0, shape (n,).
    """
    size = A.abs()
    inside = (size * weights).sum(1) <= radius
    breaks, order = (size / weights).sort(dim=1, descending=True)
    w = weights.expand_as(A).gather(1, order)
    excess = (w * size.gather(1, order)).cumsum(1) - radius[:, None]
    thresholds = excess / w.square().cumsum(1)
    # The active set is the longest prefix whose breakpoints exceed its threshold.
    count = (breaks > thresholds).sum(1, keepdim=True).clamp(min=1)
    t = thresholds.gather(1, count - 1).clamp(min=0)
    projected = A.sign() * (size - t * weights).clamp(min=0)
    return torch.where(inside[:, None], A, projected)

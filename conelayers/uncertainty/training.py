"""What a loop that trains a set needs besides the layer: CVaR of tensors, and a loss that holds it at a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conelayers.errors import InvalidArgument
from conelayers.settings import check_count, check_number

__all__ = ["AugmentedLagrangian", "cvar"]


def cvar(losses: Tensor, beta: float) -> Tensor:
    """Return the mean of the worst 1 - beta of the losses along the last axis, the value of `cp.cvar`.

    With k = (1 - beta) N it is the sum of the floor(k) largest losses and of the fraction k - floor(k) of the next,
    over k (Rockafellar & Uryasev 2000). Gradients go to these losses, a vertex of the subdifferential where losses tie.

    Args:
        losses: Shape (*batch, N).
        beta: Level in [0, 1).

    Returns:
        Shape (*batch,).

    Raises:
        InvalidArgument: If there are no losses, they are integers, or beta is outside of [0, 1).
    """
    check_number("beta", beta, "[0, 1)")
    if losses.dim() == 0 or losses.shape[-1] == 0 or not losses.is_floating_point():
        raise InvalidArgument(
            f"losses must be floating-point with a last axis of samples, got {losses.dtype} {tuple(losses.shape)}."
        )
    count = losses.shape[-1]
    tail = (1 - beta) * count
    ranks = torch.arange(count, dtype=losses.dtype, device=losses.device)
    weights = (tail - ranks).clamp(0, 1) / tail
    return losses.sort(dim=-1, descending=True).values @ weights


class AugmentedLagrangian(nn.Module):
    """The loss cost + [max(0, lambda + rho v)^2 - lambda^2] / 2 rho, which drives a violation v to v <= 0.

    Its minimisers over the set's parameters approach those of "minimise cost subject to v <= 0" as the multiplier
    lambda moves to max(0, lambda + rho v) (Rockafellar 1973), here once in `every` calls in training mode, with the
    mean v of these calls. The right multiplier is minus the slope of the best cost in the target: for v in the units of
    the cost about 1, which is where to start; from 0 the loop swings. Let the learning rate fall to 0 (a cosine).

    Args:
        penalty: rho > 0.
        multiplier: lambda >= 0 to start with.
        every: Calls between two updates of the multiplier.

    Raises:
        InvalidArgument: If a setting is outside of its range.
    """

    def __init__(self, penalty: float = 10.0, multiplier: float = 1.0, every: int = 10) -> None:
        super().__init__()
        check_number("AugmentedLagrangian: penalty", penalty, "(0, inf)")
        check_number("AugmentedLagrangian: multiplier", multiplier, "[0, inf)")
        check_count("AugmentedLagrangian: every", every)
        self.penalty, self.every = float(penalty), every
        self.register_buffer("multiplier", torch.tensor(float(multiplier), dtype=torch.float64))
        self.register_buffer("_seen", torch.zeros(2, dtype=torch.float64))  # calls, and the sum of their violations

    multiplier: Tensor
    _seen: Tensor

    def forward(self, cost: Tensor, violation: Tensor) -> Tensor:
        """Return the loss of a scalar cost and a scalar violation (<= 0 where the target is met).

        Raises:
            InvalidArgument: If one of them is not a scalar.
        """
        if cost.dim() or violation.dim():
            shapes = f"{tuple(cost.shape)} and {tuple(violation.shape)}"
            raise InvalidArgument(f"cost and violation must be scalars (take means), got shapes {shapes}.")
        multiplier = self.multiplier.to(violation.dtype, copy=True)
        shifted = (multiplier + self.penalty * violation).clamp_min(0)
        if self.training:
            self._count(violation.detach())
        return cost + (shifted.square() - multiplier.square()) / (2 * self.penalty)

    @torch.no_grad()
    def _count(self, violation: Tensor) -> None:
        self._seen += torch.stack([torch.ones_like(violation), violation]).to(self._seen)
        calls, total = self._seen.tolist()
        if calls >= self.every:
            self.multiplier.add_(self.penalty * total / calls).clamp_min_(0)
            self._seen.zero_()

    def extra_repr(self) -> str:
        """Settings, for `print`."""
        return f"penalty={self.penalty}, multiplier={float(self.multiplier):.4g}, every={self.every}"

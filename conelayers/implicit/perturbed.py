"""An informative gradient from a perturbed problem, for layers whose derivative is zero or undefined."""

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.implicit.mode import Derivative, ReverseMode

__all__ = ["LagrangianProximal"]

Side = Literal["lower", "upper", "both"]


@dataclasses.dataclass(frozen=True)
class LagrangianProximal(Derivative):
    """Lagrangian proximal gradient descent (LPGD; Paulus, Martius & Musil 2024, arXiv 2407.05920).

    A linear programme answers with a vertex, and a vertex does not move: the derivative is zero almost everywhere and
    tells a learner nothing. This mode asks instead which way the solution goes when the loss pulls on it. With the
    Lagrangian L(x, y; theta) of the programme and the loss's gradients (g_x, g_y) at the solution (x*, y*), it solves

        (x_t, y_t) = saddle point of  L(x, y; theta) + t (<g_x, x> + <g_y, y>) + (rho / 2) |x - x*|^2

    and returns the derivative in theta of [L(x_t, y_t; theta) - L(x*, y*; theta)] / t: the gradient of an envelope of
    the loss, exact as t -> 0 with rho = 0 where the problem is regular, and informative at a finite t where it is not.
    Costs one more solve per backward ("both": two).

    Attributes:
        tau: Size t of the perturbation, positive, in units of the objective per unit of loss. It must be large enough
            for the loss to move the solution: for a linear programme about the reduced costs over |g_x|.
        rho: Weight of the proximal term, which keeps x_t near x*; nonnegative.
        side: "lower" (t > 0), "upper" (t < 0), or "both": their mean, accurate to second order in t.
    """

    tau: float
    rho: float = 0.0
    side: Side = "lower"

    def __post_init__(self) -> None:
        if not self.tau > 0 or not self.rho >= 0:
            raise InvalidArgument(f"tau must be positive and rho nonnegative, got tau={self.tau}, rho={self.rho}.")
        if self.side not in ("lower", "upper", "both"):
            raise InvalidArgument(f'side must be "lower", "upper" or "both", got {self.side!r}.')

    @property
    def steps(self) -> tuple[float, ...]:
        """The signed perturbations whose results are averaged."""
        return {"lower": (self.tau,), "upper": (-self.tau,), "both": (self.tau, -self.tau)}[self.side]

    def pull(self, ways: ReverseMode) -> tuple[Tensor, ...]:
        """The mean over the signed perturbations."""
        found = [ways.perturbed(step, self.rho) for step in self.steps]
        return tuple(torch.stack(torch.broadcast_tensors(*parts)).mean(0) for parts in zip(*found, strict=True))

    def solve(self, linearization: Any, rhs: Any) -> Any:
        """Not available: this gradient belongs to the optimization problem, not to its linearization.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(
            "LagrangianProximal() gives gradients of cone programmes in reverse mode; for forward mode use Exact() or "
            "Smoothed(mu)."
        )

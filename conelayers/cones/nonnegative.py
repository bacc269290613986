"""The nonnegative orthant, and the diagonal derivative shared with the zero cone."""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from conelayers.cones.base import EXACT, BlockDerivative, Cone, Kink, check_count, expand_like
from conelayers.cones.spectral import Eigenvalues

__all__ = ["DiagonalDerivative", "Nonnegative"]


@dataclasses.dataclass(frozen=True, eq=False)
class DiagonalDerivative(BlockDerivative):
    """D = diag(values); `slope` is the derivative of each value along its own row (None: zero)."""

    values: Tensor  # shape: (*batch, d)
    slope: Tensor | None = None  # shape: (*batch, d)

    def apply(self, u: Tensor) -> Tensor:
        """D u."""
        return self.values * u

    def curvature(self, u: Tensor, w: Tensor) -> Tensor:
        """Gradient of <w, D(v) u>: zero for a piecewise linear projection."""
        slope = torch.zeros_like(self.values) if self.slope is None else self.slope
        return slope * u * w

    def spectrum(self) -> tuple[Tensor, Tensor]:
        """Unit vectors and the diagonal."""
        eye = torch.eye(self.values.shape[-1], dtype=self.values.dtype, device=self.values.device)
        return eye.expand(*self.values.shape, -1), self.values

    def matrix(self) -> Tensor:
        """diag(values)."""
        return torch.diag_embed(self.values)


@dataclasses.dataclass(frozen=True)
class Nonnegative(Cone):
    """The orthant {x >= 0} of R^dim, its own dual, with barrier -sum(log x).

    D = diag(1[v > 0]): a row at zero is a kink, where the smallest element has a zero and the largest a one.
    """

    dim: int
    polyhedral: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the dimension."""
        check_count("dim", self.dim)

    def dual(self) -> "Nonnegative":
        """The same cone."""
        return self

    def atoms(self) -> tuple[Cone, int]:
        """Rows are independent."""
        return Nonnegative(1), self.dim

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """max(v, 0); for mu the positive root of y - mu / y = v."""
        return v.clamp(min=0) if mu is None else Eigenvalues(v, expand_like(mu, v)).y

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> DiagonalDerivative:
        """diag(1[v > 0]); for mu diag(y / (y + s)) with y - s = v and y s = mu."""
        if mu is not None:
            parts = Eigenvalues(v, expand_like(mu, v))
            return DiagonalDerivative(parts.first(parts), 2 * parts.second(parts, parts))
        values = (v > 0).to(v.dtype)
        return DiagonalDerivative(torch.where(v.abs() <= expand_like(kink.radius, v), kink.value, values))

    def margin(self, v: Tensor) -> Tensor:
        """Least |v_i|, exactly (infinity for dim = 0)."""
        if v.shape[-1] == 0:
            return v.new_full(v.shape[:-1], torch.inf)
        return v.abs().amin(-1)

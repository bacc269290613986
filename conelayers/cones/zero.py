"""The zero cone {0} (equality constraints) and its dual, the whole space."""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from conelayers.cones.base import EXACT, Cone, Kink, check_count
from conelayers.cones.nonnegative import DiagonalDerivative

__all__ = ["Free", "Zero"]


@dataclasses.dataclass(frozen=True)
class Zero(Cone):
    """The cone {0} of R^dim; its dual is the whole space. No barrier: `mu` changes nothing."""

    dim: int
    polyhedral: ClassVar[bool] = True
    has_kinks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the dimension."""
        check_count("dim", self.dim)

    def dual(self) -> "Free":
        """The whole space."""
        return Free(self.dim)

    def atoms(self) -> tuple[Cone, int]:
        """Rows are independent."""
        return Zero(1), self.dim

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """Zero."""
        return torch.zeros_like(v)

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> DiagonalDerivative:
        """The zero matrix: the projection is linear and has no kinks."""
        return DiagonalDerivative(torch.zeros_like(v))

    def margin(self, v: Tensor) -> Tensor:
        """Infinity: there are no kinks."""
        return v.new_full(v.shape[:-1], torch.inf)


@dataclasses.dataclass(frozen=True)
class Free(Cone):
    """The whole space R^dim, dual of the zero cone. No barrier: `mu` changes nothing."""

    dim: int
    polyhedral: ClassVar[bool] = True
    has_kinks: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the dimension."""
        check_count("dim", self.dim)

    def dual(self) -> Zero:
        """The zero cone."""
        return Zero(self.dim)

    def atoms(self) -> tuple[Cone, int]:
        """Rows are independent."""
        return Free(1), self.dim

    def project(self, v: Tensor, *, mu: float | Tensor | None = None) -> Tensor:
        """The point itself."""
        return v.clone()

    def derivative(self, v: Tensor, *, mu: float | Tensor | None = None, kink: Kink = EXACT) -> DiagonalDerivative:
        """The identity: the projection is linear and has no kinks."""
        return DiagonalDerivative(torch.ones_like(v))

    def margin(self, v: Tensor) -> Tensor:
        """Infinity: there are no kinks."""
        return v.new_full(v.shape[:-1], torch.inf)

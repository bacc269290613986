"""l1 and elastic-net penalties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso.penalties.base import Penalty
from conelayers.lasso.terms import SeparableTerm, Term

__all__ = ["L1", "ElasticNet", "WeightedElasticNet", "WeightedL1"]


def _lower(nonnegative: bool, like: Tensor) -> Tensor | None:
    return like.new_zeros(()) if nonnegative else None


def _check_axes(axes: int) -> None:
    if axes not in (1, 2):
        raise InvalidArgument(f"axes must be 1 (per feature) or 2 (per feature and class); got {axes}")


@dataclass(frozen=True)
class L1(Penalty):
    """alpha ||b||_1 with one number alpha (Tibshirani 1996).

    Args:
        nonnegative: Also require b >= 0.
    """

    nonnegative: bool = False
    names: ClassVar[tuple[str, ...]] = ("alpha",)

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """The same threshold everywhere."""
        (alpha,) = hyperparameters
        return SeparableTerm.of(shape, like=alpha, l1=alpha, lower=_lower(self.nonnegative, alpha))


@dataclass(frozen=True)
class WeightedL1(Penalty):
    """sum_j alpha_j |b_j|: one number per feature, or per class (the adaptive Lasso, Zou 2006).

    Args:
        axes: 1 for alpha of shape (p,) on coefficients (p,); 2 for alpha of shape (p, 1), (1, K) or (p, K) on
            coefficients (p, K).
        nonnegative: Also require b >= 0.
    """

    axes: int = 1
    nonnegative: bool = False
    names: ClassVar[tuple[str, ...]] = ("alpha",)

    def __post_init__(self) -> None:
        _check_axes(self.axes)

    @property
    def event_dims(self) -> tuple[int, ...]:
        """The axes of alpha."""
        return (self.axes,)

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """Thresholds by entry."""
        (alpha,) = hyperparameters
        return SeparableTerm.of(shape, like=alpha, l1=alpha, lower=_lower(self.nonnegative, alpha))


@dataclass(frozen=True)
class ElasticNet(Penalty):
    """l1 ||b||_1 + l2 ||b||^2 / 2 (Zou & Hastie 2005).

    Scikit-learn's `alpha` and `l1_ratio` are l1 = alpha l1_ratio and l2 = alpha (1 - l1_ratio).
    """

    nonnegative: bool = False
    names: ClassVar[tuple[str, ...]] = ("l1", "l2")

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """The same thresholds and shrinkage everywhere."""
        l1, l2 = hyperparameters
        return SeparableTerm.of(shape, like=l1, l1=l1, l2=l2, lower=_lower(self.nonnegative, l1))


@dataclass(frozen=True)
class WeightedElasticNet(Penalty):
    """sum_j l1_j |b_j| + l2_j b_j^2 / 2 with numbers per feature.

    Args:
        axes: As in `WeightedL1`, for both hyperparameters.
        nonnegative: Also require b >= 0.
    """

    axes: int = 1
    nonnegative: bool = False
    names: ClassVar[tuple[str, ...]] = ("l1", "l2")

    def __post_init__(self) -> None:
        _check_axes(self.axes)

    @property
    def event_dims(self) -> tuple[int, ...]:
        """The axes of l1 and l2."""
        return (self.axes, self.axes)

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """Thresholds and shrinkage by entry."""
        l1, l2 = hyperparameters
        return SeparableTerm.of(shape, like=l1, l1=l1, l2=l2, lower=_lower(self.nonnegative, l1))

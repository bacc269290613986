"""Group penalties: group Lasso, sparse-group Lasso, and rows of a multitask model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso.penalties.base import Penalty
from conelayers.lasso.terms import GroupTerm, Term

__all__ = ["GroupLasso", "MultitaskL1", "SparseGroupLasso", "group_numbers"]


def group_numbers(groups: Sequence[int], p: int) -> np.ndarray:
    """The group of each of p features, int64, shape (p,).

    Raises:
        InvalidArgument: They are no numbers 0, 1, ... without gaps, one per feature.
    """
    group = np.asarray(groups)
    if group.shape != (p,):
        raise InvalidArgument(f"groups must hold one group number per feature ({p}); got {group.shape}")
    if group.dtype.kind not in "iu" or group.min() < 0 or np.unique(group).size != group.max() + 1:
        raise InvalidArgument("groups must number the groups 0, 1, ... without gaps, in integers")
    return group.astype(np.int64)


def _numbers(groups: Sequence[int], p: int, device: torch.device) -> Tensor:
    return torch.as_tensor(group_numbers(groups, p), device=device)


@dataclass(frozen=True)
class GroupLasso(Penalty):
    """sum_G alpha sqrt(|G|) ||b_G|| (Yuan & Lin 2006).

    Args:
        groups: Group number of each feature, 0, 1, ... without gaps.
        each: One alpha per group, shape (n_groups,), in place of one number.
    """

    groups: tuple[int, ...]
    each: bool = False
    names: ClassVar[tuple[str, ...]] = ("alpha",)

    @property
    def event_dims(self) -> tuple[int, ...]:
        """Scalar, or one axis of groups."""
        return (int(self.each),)

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """Norms scaled by the root of the group's size."""
        (alpha,) = hyperparameters
        group = _numbers(self.groups, shape[0], alpha.device)
        root = torch.bincount(group).to(alpha.dtype).sqrt()
        return GroupTerm(alpha * root, alpha.new_zeros(()).expand(shape), group)


@dataclass(frozen=True)
class SparseGroupLasso(Penalty):
    """sum_G group sqrt(|G|) ||b_G|| + l1 ||b||_1 (Simon, Friedman, Hastie & Tibshirani 2013).

    Args:
        groups: Group number of each feature, 0, 1, ... without gaps.
        each: One `group` hyperparameter per group, shape (n_groups,).
    """

    groups: tuple[int, ...]
    each: bool = False
    names: ClassVar[tuple[str, ...]] = ("group", "l1")

    @property
    def event_dims(self) -> tuple[int, ...]:
        """Scalars, or one axis of groups and a scalar."""
        return (int(self.each), 0)

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """Norms and a threshold inside the groups."""
        scale, l1 = hyperparameters
        group = _numbers(self.groups, shape[0], scale.device)
        root = torch.bincount(group).to(scale.dtype).sqrt()
        return GroupTerm(scale * root, l1.expand(shape), group)


@dataclass(frozen=True)
class MultitaskL1(Penalty):
    """alpha sum_j ||B_j||: a feature is used by all outputs or by none (Obozinski, Taskar & Jordan 2010).

    Args:
        each: One alpha per feature, shape (p,).
    """

    each: bool = False
    names: ClassVar[tuple[str, ...]] = ("alpha",)

    @property
    def event_dims(self) -> tuple[int, ...]:
        """Scalar, or one axis of features."""
        return (int(self.each),)

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """Each row a group."""
        (alpha,) = hyperparameters
        group = torch.arange(shape[0], device=alpha.device)
        return GroupTerm(alpha.expand(shape[:1]), alpha.new_zeros(()).expand(shape), group)

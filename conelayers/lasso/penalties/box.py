"""Box constraints with a linear part: duals of support vector machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from conelayers.lasso.penalties.base import Penalty
from conelayers.lasso.terms import SeparableTerm, Term

__all__ = ["Box", "EpsilonBox"]


@dataclass(frozen=True)
class Box(Penalty):
    """-sum(a) over 0 <= a <= C: the dual of the hinge loss."""

    names: ClassVar[tuple[str, ...]] = ("C",)

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """The linear part and the box."""
        (C,) = hyperparameters
        return SeparableTerm.of(shape, like=C, linear=-torch.ones_like(C), lower=torch.zeros_like(C), upper=C)


@dataclass(frozen=True)
class EpsilonBox(Penalty):
    """epsilon ||a||_1 - targets' a over |a| <= C: the dual of the epsilon-insensitive loss.

    Args:
        targets: The regression targets, shape (p,), p the number of samples of the primal problem.
    """

    targets: tuple[float, ...]
    names: ClassVar[tuple[str, ...]] = ("C", "epsilon")

    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """The linear part, the threshold and the box."""
        C, epsilon = hyperparameters
        linear = -torch.as_tensor(self.targets, dtype=C.dtype, device=C.device)
        return SeparableTerm.of(shape, like=C, linear=linear, l1=epsilon, lower=-C, upper=C)

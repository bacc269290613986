"""A penalty: a family of regularisers indexed by hyperparameters."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from conelayers.lasso.terms import Term

__all__ = ["Penalty"]


class Penalty(abc.ABC):
    """Maps hyperparameters to a `Term`, differentiably.

    A new penalty is one small class: name the hyperparameters, say how many axes each has, and return the term.
    """

    names: ClassVar[tuple[str, ...]]
    """Names of the hyperparameters, in the order in which models take them."""

    above: ClassVar[Mapping[str, float]] = {}
    """What hyperparameters must be larger than, where zero is not enough."""

    @property
    def event_dims(self) -> tuple[int, ...]:
        """Number of axes of each hyperparameter of one problem (leading axes are batch axes)."""
        return (0,) * len(self.names)

    @abc.abstractmethod
    def term(self, shape: tuple[int, ...], *hyperparameters: Tensor) -> Term:
        """The regulariser on coefficients of `shape`, (p,) or (p, K)."""

"""Criteria made of others: hyperparameters in common, and a prior on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from conelayers.errors import InvalidArgument
from conelayers.model_selection.criteria.base import Criterion, Evaluation
from conelayers.model_selection.space import LogSpace
from conelayers.settings import require_kinds, require_numbers

__all__ = ["Shared", "Shrunk"]


@dataclass(frozen=True)
class Shared(Criterion):
    """The same criterion where entries of the hyperparameters are held equal: one number per group of them.

    Args:
        criterion: A criterion of d scalars in all.
        index: Number of the shared hyperparameter that each of them takes, 0, 1, ... without gaps, shape (d,).
        name: Name of the shared hyperparameters.
    """

    criterion: Criterion
    index: np.ndarray
    name: str = "alpha"
    space: LogSpace = field(init=False)

    def __post_init__(self) -> None:
        require_kinds(self, criterion=Criterion)
        inner, index = self.criterion.space, np.asarray(self.index)
        if index.shape != (inner.size,) or index.dtype.kind not in "iu":
            raise InvalidArgument(f"index must hold {inner.size} integers, one per hyperparameter")
        size = int(index.max()) + 1
        if index.min() < 0 or np.unique(index).size != size:
            raise InvalidArgument("index must number the shared hyperparameters 0, 1, ... without gaps")
        lower, upper = np.full(size, -np.inf), np.full(size, np.inf)
        np.maximum.at(lower, index, inner.lower)
        np.minimum.at(upper, index, inner.upper)
        if (lower > upper).any():
            raise InvalidArgument("hyperparameters that are shared must have bounds that overlap")
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "space", LogSpace((self.name,), ((size,),), lower, upper))

    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """See `Criterion.evaluate`; the gradient sums over the entries that share a number."""
        out = self.criterion.evaluate(point[self.index], tol=tol, state=state, gradient=gradient)
        slope = out.gradient
        if slope is not None:
            slope = np.bincount(self.index, slope, self.space.size)
        return Evaluation(out.value, slope, out.state, out.unsolved, out.freedom)


@dataclass(frozen=True)
class Shrunk(Criterion):
    """A criterion plus strength ||x - center||^2 / 2, x the logarithms: a Gaussian prior around known hyperparameters.

    Many hyperparameters fit the validation data themselves; the prior lets those move for which the data speak.

    Args:
        criterion: What is minimised apart from the prior.
        center: Logarithms of the hyperparameters to shrink towards, shape (d,).
        strength: In units of the criterion.
    """

    criterion: Criterion
    center: np.ndarray
    strength: float

    def __post_init__(self) -> None:
        require_kinds(self, criterion=Criterion)
        require_numbers(self, strength="[0, inf)")
        center = np.asarray(self.center, dtype=float)
        if center.shape not in ((), self.space.lower.shape) or not np.isfinite(center).all():
            raise InvalidArgument(f"center must hold {self.space.size} logarithms, got {self.center!r}")
        object.__setattr__(self, "center", center)

    @property
    def space(self) -> LogSpace:  # type: ignore[override]
        """That of the criterion."""
        return self.criterion.space

    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """See `Criterion.evaluate`."""
        out = self.criterion.evaluate(point, tol=tol, state=state, gradient=gradient)
        away = point - self.center
        slope = None if out.gradient is None else out.gradient + self.strength * away
        return Evaluation(
            out.value + 0.5 * self.strength * float(away @ away), slope, out.state, out.unsolved, out.freedom
        )

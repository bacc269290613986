"""The record of a search, and its plot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from conelayers.model_selection.extras import optional
from conelayers.model_selection.space import LogSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["History", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One evaluation of the criterion.

    Attributes:
        point: Logarithms of the hyperparameters, shape (d,).
        value: The criterion.
        slope: Norm of its gradient in the logarithms, NaN where none was computed.
        tol: Inner tolerance asked for, NaN for the solver's own.
        seconds: Time since the search began.
    """

    point: np.ndarray
    value: float
    slope: float
    tol: float
    seconds: float


@dataclass
class History:
    """All evaluations of a search, in order.

    Attributes:
        space: The hyperparameters.
        trials: The evaluations.
    """

    space: LogSpace
    trials: list[Trial] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.trials)

    @property
    def values(self) -> np.ndarray:
        """Criterion values, shape (evaluations,)."""
        return np.array([trial.value for trial in self.trials])

    @property
    def seconds(self) -> np.ndarray:
        """Times since the beginning, shape (evaluations,)."""
        return np.array([trial.seconds for trial in self.trials])

    @property
    def points(self) -> np.ndarray:
        """Logarithms of the hyperparameters, shape (evaluations, d)."""
        return np.array([trial.point for trial in self.trials])

    @property
    def best(self) -> np.ndarray:
        """Best value so far at each evaluation."""
        return np.minimum.accumulate(self.values) if self.trials else np.array([])

    def hyperparameters(self, name: str) -> np.ndarray:
        """The values that one hyperparameter took, shape (evaluations, *shape)."""
        return np.array([self.space.values(trial.point)[name] for trial in self.trials])

    def plot(self, ax: Axes | None = None, **style: Any) -> Axes:
        """The path of the search: criterion against the hyperparameter (if there is one), else against evaluations.

        Args:
            ax: Axes to draw on; new ones by default.
            **style: Passed to `Axes.scatter`.
        """
        if ax is None:
            plt: Any = optional("matplotlib.pyplot", "plots", "History.plot")
            return self.plot(plt.subplots()[1], **style)
        order = np.arange(1, len(self) + 1)
        if self.space.size == 1:
            points = np.exp(self.points[:, 0])
            ax.plot(points, self.values, "-", color="0.8", linewidth=1, zorder=1)
            drawn = ax.scatter(points, self.values, c=order, cmap="viridis", zorder=2, **style)
            ax.set_xscale("log")
            ax.set_xlabel(self.space.names[0])
        elif self.space.size == 2 and len(self.space.names) == 2:
            points = np.exp(self.points)
            ax.plot(points[:, 0], points[:, 1], "-", color="0.8", linewidth=1, zorder=1)
            drawn = ax.scatter(points[:, 0], points[:, 1], c=self.values, cmap="viridis_r", zorder=2, **style)
            ax.set(xscale="log", yscale="log", xlabel=self.space.names[0], ylabel=self.space.names[1])
            ax.figure.colorbar(drawn, ax=ax, label="criterion")
            return ax
        else:
            ax.scatter(order, self.values, c=order, cmap="viridis", **style)
            ax.plot(order, self.best, "-", color="0.5", linewidth=1)
            ax.set_xlabel("evaluation")
        ax.set_ylabel("criterion")
        return ax

"""Gradient descent on approximate hypergradients, with inner accuracy that follows the progress."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conelayers.model_selection.searches.base import Objective, Search
from conelayers.settings import require_numbers

__all__ = ["GradientDescent"]


@dataclass(frozen=True)
class GradientDescent(Search):
    """Projected gradient descent with inexact inner solutions (HOAG, Pedregosa 2016).

    The inner tolerance starts loose and shrinks by `decrease` with every accepted step; the step size grows after a
    success and halves after a failure, a step counting as a success if it decreases the criterion by more than the
    inexactness can explain.

    Args:
        first_tol: Inner tolerance of the first evaluation.
        last_tol: Smallest inner tolerance.
        decrease: Factor of the tolerance per accepted step.
        first_step: Length of the first step in log space.
    """

    first_tol: float = 1e-2
    last_tol: float = 1e-8
    decrease: float = 0.3
    first_step: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        require_numbers(self, first_tol="(0, inf)", last_tol="[0, inf)", decrease="(0, 1)", first_step="(0, inf)")

    def minimize(self, objective: Objective, start: np.ndarray) -> str:
        """See `Search.minimize`."""
        tol, point = self.first_tol, start
        value, slope = objective(point, tol)
        size = self.first_step / max(float(np.linalg.norm(slope)), 1e-300)
        while True:
            descent = objective.projected(point, slope)
            if size * float(descent @ descent) <= self.rtol * abs(value) and tol <= 1e-4:
                return "the predicted improvement is below rtol"
            trial = objective.space.clip(point - size * descent)
            if np.array_equal(trial, point):
                return "the step is zero"
            new_value, new_slope = objective(trial, tol)
            if new_value <= value - 1e-4 * float(descent @ (point - trial)) + tol * abs(value):
                point, value, slope = trial, new_value, new_slope
                size *= 1.5
                tol = max(self.decrease * tol, self.last_tol)
            else:
                size *= 0.4
                if tol > 1e-4:
                    tol = max(self.decrease * tol, self.last_tol)

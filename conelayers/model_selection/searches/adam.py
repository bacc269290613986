"""Adam on log hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conelayers.model_selection.searches.base import Objective, Search
from conelayers.settings import require_counts, require_numbers

__all__ = ["Adam"]


@dataclass(frozen=True)
class Adam(Search):
    """Adam (Kingma & Ba 2015), projected on the bounds; keeps the best point it saw.

    Args:
        step: Step size: about the change of each logarithm per iteration.
        beta1: Decay of the gradient's mean.
        beta2: Decay of its square's mean.
        patience: Stop after this many iterations without a relative improvement of rtol.
    """

    step: float = 0.2
    beta1: float = 0.9
    beta2: float = 0.99
    patience: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, patience=1)
        require_numbers(self, step="(0, inf)", beta1="[0, 1)", beta2="[0, 1)")

    def minimize(self, objective: Objective, start: np.ndarray) -> str:
        """See `Search.minimize`."""
        point, mean, square = start, np.zeros_like(start), np.zeros_like(start)
        reference, waited = np.inf, 0
        for iteration in range(1, self.max_evaluations + 1):
            value, slope = objective(point)
            waited = 0 if value < reference * (1 - self.rtol * np.sign(reference)) else waited + 1
            reference = min(value, reference)
            if waited >= self.patience:
                return "no improvement"
            slope = objective.projected(point, np.nan_to_num(slope))
            mean = self.beta1 * mean + (1 - self.beta1) * slope
            square = self.beta2 * square + (1 - self.beta2) * slope**2
            direction = mean / (1 - self.beta1**iteration)
            size = np.sqrt(square / (1 - self.beta2**iteration))
            point = objective.space.clip(point - self.step * direction / (size + 1e-12 * size.max() + 1e-300))
        return "the budget of evaluations is spent"

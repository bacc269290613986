"""Limited-memory BFGS within bounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from conelayers.model_selection.searches.base import Objective, Search
from conelayers.settings import require_counts

__all__ = ["LBFGS"]


@dataclass(frozen=True)
class LBFGS(Search):
    """SciPy's L-BFGS-B (Byrd, Lu, Nocedal & Zhu 1995); the first step has length about one in log space.

    Args:
        memory: Pairs of steps and gradient differences kept.
    """

    memory: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, memory=1)

    def minimize(self, objective: Objective, start: np.ndarray) -> str:
        """See `Search.minimize`."""
        value, slope = objective(start)
        # L-BFGS-B's first step is the gradient: rescaled, so that it moves hyperparameters by a sensible factor
        scale = max(float(np.linalg.norm(objective.projected(start, slope))), 1e-300)
        known = {start.tobytes(): (value, slope)}

        def function(point: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = known.pop(point.tobytes(), None) or objective(point)
            if not np.isfinite(value):
                return 1e300, np.zeros_like(point)
            return value / scale, slope / scale

        bounds = np.column_stack([objective.space.lower, objective.space.upper])
        options = {
            "maxcor": self.memory,
            "ftol": self.rtol * abs(value) / scale / max(abs(value) / scale, 1.0),
            "gtol": 0.0,
            "maxiter": self.max_evaluations,
            "maxfun": 10 * self.max_evaluations,
        }
        out = minimize(function, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return str(out.message)

"""What the batched backends say of their items, and what they hand over where there is no solution."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from conelayers.program import ConeSolution, Status

__all__ = ["report", "without_certificates"]


def without_certificates(solution: ConeSolution) -> ConeSolution:
    """Zeros, and infinite residuals, in the items that have no point; one batch axis.

    Those that were stopped by a limit keep their last iterate and its residuals.
    """
    there = solution.has_solution | (solution.status_code == int(Status.ITERATION_LIMIT))
    points = {name: torch.where(there[:, None], getattr(solution, name), 0.0) for name in ("x", "y", "s")}
    residuals: dict[str, Tensor] = {
        name: torch.where(there, getattr(solution, name), torch.inf)
        for name in ("primal_residual", "dual_residual", "gap")
    }
    return dataclasses.replace(solution, **points, **residuals)


def report(name: str, status: np.ndarray, iterations: np.ndarray) -> None:
    """Print the number of items, iterations and outcomes of a call."""
    outcomes = ", ".join(f"{int((status == code).sum())} {code.name}" for code in Status if (status == code).any())
    print(f"{name}: {len(status)} items, at most {iterations.max(initial=0)} iterations; {outcomes}")

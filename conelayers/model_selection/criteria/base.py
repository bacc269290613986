"""Selection criteria: what a search minimises over hyperparameters."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.bilevel.functions import gradients, recorded, scalar
from conelayers.model_selection.space import LogSpace

__all__ = ["Criterion", "Evaluation", "TorchCriterion", "squared_error"]


@dataclass(frozen=True)
class Evaluation:
    """A criterion at one point.

    Attributes:
        value: The criterion.
        gradient: In the logarithms of the hyperparameters, shape (d,); None if not asked for.
        state: What warm-starts the next evaluation.
        unsolved: Violations of the inner problems that were left short of their tolerance.
        freedom: Degrees of freedom of the models over training samples: 0 where not known, 1 for what interpolates.
    """

    value: float
    gradient: np.ndarray | None
    state: Any
    unsolved: Sequence[float] = ()
    freedom: float = 0.0


class Criterion(abc.ABC):
    """A function of log hyperparameters with a gradient; holds data and model, but no state between calls."""

    space: LogSpace

    @abc.abstractmethod
    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """Value and gradient.

        Args:
            point: Logarithms of the hyperparameters, shape (d,).
            tol: Accuracy of inner solutions; by default that of the model's solver.
            state: State of a previous evaluation.
            gradient: Whether the gradient is wanted.
        """


def evaluate_torch(
    function: Callable[[Tensor], tuple[Tensor, Any, Sequence[float]]], point: np.ndarray, gradient: bool
) -> Evaluation:
    """Evaluate a torch function of the point that returns (value, state, violations of what was left unsolved)."""
    x = torch.tensor(point, dtype=torch.float64, requires_grad=gradient)
    with torch.set_grad_enabled(gradient):
        value, state, unsolved = function(x)
    value = (recorded if gradient else scalar)("the criterion's function", value)
    slope = gradients((value,), (x,))[0].cpu().numpy() if gradient else None
    return Evaluation(float(value.detach()), slope, state, unsolved)


@dataclass(frozen=True)
class TorchCriterion(Criterion):
    """Any scalar torch function of the hyperparameters.

    Args:
        function: Called with one tensor per hyperparameter; returns a scalar tensor.
        space: Names, shapes and bounds.
    """

    function: Callable[..., Tensor]
    space: LogSpace

    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """See `Criterion.evaluate`; the tolerance is the function's own business."""
        return evaluate_torch(lambda x: (self.function(*self.space.unpack(x)), None, ()), point, gradient)


def squared_error(prediction: Tensor, y: Tensor) -> Tensor:
    """Squared error by sample, summed over outputs."""
    error = (prediction - y).square()
    return error if error.ndim == 1 else error.sum(-1)

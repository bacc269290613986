"""Criteria that need no held-out data: Stein's unbiased risk estimate and generalised cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.lasso import ProximalModel, as_design
from conelayers.lasso.designs import as_values
from conelayers.model_selection.criteria.base import Criterion, Evaluation, evaluate_torch
from conelayers.model_selection.space import LogSpace
from conelayers.settings import require_counts, require_kinds, require_numbers

__all__ = ["GCV", "SURE"]


@dataclass(frozen=True)
class _RiskEstimate(Criterion):
    model: ProximalModel
    space: LogSpace
    X: Any
    y: Any
    sigma: float | None
    probes: int = 1
    epsilon: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_kinds(self, model=ProximalModel, space=LogSpace)
        require_counts(self, probes=1, seed=0)
        if self.sigma is not None:
            require_numbers(self, sigma="(0, inf)")
        if self.epsilon is not None:
            require_numbers(self, epsilon="(0, inf)")
        object.__setattr__(self, "X", as_design(self.X))
        y = as_values(self.y, self.X.device, "y").to(torch.float64)
        object.__setattr__(self, "y", y)

    def _probe_step(self) -> float:
        # 2 sigma / n^0.3: the step of Deledalle, Vaiter, Fadili & Peyre (2014)
        if self.epsilon is not None:
            return self.epsilon
        spread = self.sigma or float((self.y - self.y.mean(0)).square().mean().sqrt()) or 1.0
        return 2 * spread / self.y.shape[0] ** 0.3

    def _fit(
        self, model: ProximalModel, theta: tuple[Tensor, ...], y: Tensor, start: Any, unsolved: list[float]
    ) -> tuple[Tensor, Any]:
        coef, intercept, left = model.solution(self.X, y, *theta, start=start)
        unsolved.extend(left)
        with torch.no_grad():
            used = torch.nonzero(coef if coef.ndim == 1 else (coef != 0).any(-1)).flatten()
        prediction = self.X.columns(used).matmul(coef[used]) + intercept
        return prediction, (coef.detach(), intercept.detach())

    def _residual_and_freedom(
        self, x: Tensor, tol: float | None, state: Any
    ) -> tuple[Tensor, Tensor, list, list[float]]:
        """Squared residual norm and the finite-difference Monte Carlo estimate of the degrees of freedom."""
        model = self.model if tol is None else self.model.with_tolerance(tol)
        theta = tuple(t.to(self.X.device) for t in self.space.unpack(x))
        states = [None] * (self.probes + 1) if state is None else state
        unsolved: list[float] = []
        prediction, first = self._fit(model, theta, self.y, states[0], unsolved)
        generator = torch.Generator().manual_seed(self.seed)
        step, freedom, kept = self._probe_step(), prediction.new_zeros(()), [first]
        for i in range(self.probes):
            delta = torch.randn(self.y.shape, generator=generator, dtype=torch.float64).to(self.y)
            start = states[i + 1] if state is not None else first
            moved, last = self._fit(model, theta, self.y + step * delta, start, unsolved)
            freedom = freedom + (delta * (moved - prediction)).sum() / (step * self.probes)
            kept.append(last)
        return (self.y - prediction).square().sum(), freedom, kept, unsolved


@dataclass(frozen=True)
class SURE(_RiskEstimate):
    """Stein's unbiased estimate of the prediction risk E ||X b - mu||^2 / n for y = mu + sigma N(0, I).

    ||y - X b||^2 / n - sigma^2 + 2 sigma^2 df / n, the degrees of freedom df estimated by finite differences along
    random probes (Deledalle, Vaiter, Fadili & Peyre 2014), which keeps the criterion differentiable. With several
    outputs n counts the entries of y.

    Args:
        model: A least-squares model.
        space: Names, shapes and bounds of its hyperparameters.
        X: Design matrix.
        y: Targets, shape (n,), or (samples, outputs) for a model of several.
        sigma: Standard deviation of the noise.
        probes: Number of random probes.
        epsilon: Step of the finite difference, by default 2 sigma / n^0.3.
        seed: Seed of the probes, fixed for the whole search.
    """

    sigma: float

    def __post_init__(self) -> None:
        require_numbers(self, sigma="(0, inf)")
        super().__post_init__()

    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """See `Criterion.evaluate`; the state is the solutions for y and for its perturbations."""
        n = self.y.numel()

        def function(x: Tensor) -> tuple[Tensor, Any, list[float]]:
            residual, freedom, kept, unsolved = self._residual_and_freedom(x, tol, state)
            return residual / n - self.sigma**2 + 2 * self.sigma**2 * freedom / n, kept, unsolved

        return evaluate_torch(function, point, gradient)


@dataclass(frozen=True)
class GCV(_RiskEstimate):
    """Generalised cross-validation (Golub, Heath & Wahba 1979): (||y - X b||^2 / n) / (1 - df / n)^2.

    The degrees of freedom are estimated as in `SURE`, so the criterion is differentiable; `sigma` only sets the step,
    and is the spread of the targets if it is left out.
    """

    sigma: float | None = None

    def evaluate(
        self, point: np.ndarray, *, tol: float | None = None, state: Any = None, gradient: bool = True
    ) -> Evaluation:
        """See `Criterion.evaluate`; the state is the solutions for y and for its perturbations."""
        n = self.y.numel()

        def function(x: Tensor) -> tuple[Tensor, Any, list[float]]:
            residual, freedom, kept, unsolved = self._residual_and_freedom(x, tol, state)
            # beyond n degrees of freedom the ratio turns around; it is kept large there
            room = torch.clamp(1 - freedom / n, min=1e-3)
            return residual / n / room.square(), kept, unsolved

        return evaluate_torch(function, point, gradient)

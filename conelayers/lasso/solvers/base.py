"""The interface of inner solvers, and the Newton step that they share."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.lasso.problem import FitResult, Problem
from conelayers.lasso.support import Support, SupportSystem
from conelayers.settings import require_counts, require_numbers

__all__ = ["Solver", "newton_polish", "newton_step"]


@dataclass(frozen=True)
class Solver(abc.ABC):
    """Settings of an inner solver; instances hold no state.

    Args:
        tol: Stop when the violation of optimality is below tol times the gradient at zero coefficients.
        max_iter: Most outer iterations.
    """

    tol: float = 1e-8
    max_iter: int = 200

    def __post_init__(self) -> None:
        require_numbers(self, tol="[0, inf)")
        require_counts(self, max_iter=0)

    @abc.abstractmethod
    def solve(self, problem: Problem, start: tuple[Tensor, Tensor] | None = None) -> FitResult:
        """Solve from (coef, intercept), by default zero; a result is returned whatever its accuracy."""


def newton_step(problem: Problem, coef: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
    """One Newton step on the generalised support, for the smooth equations that hold there."""
    support = Support.of(problem.term, coef)
    sub = problem.restrict(support.features)
    local = coef[support.features]
    eta = sub.predictions(local, intercept)
    hessian = problem.datafit.hessian(eta, problem.y, problem.weights)
    system = SupportSystem(
        sub.design, hessian, sub.term, local, support.entries, problem.fit_intercept, problem.datafit
    )
    gradient, slope = sub.gradients(eta)
    residual = (gradient + sub.term.slope(local)).flatten()[support.entries]
    if problem.fit_intercept:
        residual = torch.cat([residual, slope.reshape(-1)])
    step = system.solve(residual, warn=False)
    moved = local.flatten().index_add(0, support.entries, -step[: support.entries.numel()])
    out = coef.index_copy(0, support.features, moved.reshape(local.shape))
    if problem.fit_intercept:
        intercept = intercept - step[support.entries.numel() :].reshape(intercept.shape)
    return out, intercept


def newton_polish(
    problem: Problem, coef: Tensor, intercept: Tensor, violation: float, target: float, most: int = 5
) -> tuple[Tensor, Tensor, float]:
    """Newton steps for as long as the support stays and the violation falls; never a worse point than given."""
    for _ in range(most):
        if violation <= target:
            break
        trial, shift = newton_step(problem, coef, intercept)
        # An entry that changes sign has left the piece on which the step was computed.
        kept = torch.equal(problem.term.support(trial), problem.term.support(coef))
        if not kept or bool((torch.sign(trial) * torch.sign(coef) < 0).any()) or not bool(trial.isfinite().all()):
            break
        worst = problem.worst(trial, shift)
        if not worst < 0.5 * violation:
            if worst < violation:
                return trial, shift, worst
            break
        coef, intercept, violation = trial, shift, worst
    return coef, intercept, violation

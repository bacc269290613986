"""Accelerated proximal gradient in torch, on any device, finished by Newton steps on the support."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.lasso.problem import FitResult, Problem
from conelayers.lasso.solvers.base import Solver, newton_polish
from conelayers.settings import require_counts

__all__ = ["ProximalGradient"]


def _intercept_unit(problem: Problem) -> float:
    """Size of the largest column of X: with the intercept in its units one step length suits all unknowns."""
    squared = problem.design.squared_norms(problem.weights)
    largest = float(squared.max() / problem.weights.sum()) if squared.numel() else 0.0
    return math.sqrt(largest) if 0 < largest < math.inf else 1.0


def _lipschitz(problem: Problem, unit: float, iterations: int = 30) -> float:
    """Upper estimate of the largest eigenvalue of the Hessian in (coef, intercept / unit), by power iteration."""
    generator = torch.Generator().manual_seed(0)
    n, p = problem.design.shape
    v = torch.randn(p, generator=generator, dtype=torch.float64).to(problem.weights)
    c = v.new_ones(()) if problem.fit_intercept else v.new_zeros(())
    size = v.new_ones(())
    for _ in range(iterations):
        norm = (v.square().sum() + c.square()).sqrt().clamp_min(1e-300)
        eta = problem.weights * (problem.design.matmul(v / norm) + unit * c / norm)
        v = problem.design.rmatmul(eta)
        c = unit * eta.sum() if problem.fit_intercept else torch.zeros_like(c)
        size = (v.square().sum() + c.square()).sqrt()
    return 1.05 * float(size) * problem.datafit.curvature


@dataclass(frozen=True)
class ProximalGradient(Solver):
    """FISTA (Beck & Teboulle 2009) with restarts (O'Donoghue & Candes 2015), then Newton on the support.

    Every `check` iterations the violation is measured and, where the support has settled, Newton's method is tried on
    the smooth equations of the support; a trial that does not reduce the violation is dropped.

    Args:
        check: Iterations between two checks.
        newton: Whether to try Newton steps (off: the plain method).
    """

    max_iter: int = 20_000
    check: int = 20
    newton: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, check=1)

    def solve(self, problem: Problem, start: tuple[Tensor, Tensor] | None = None) -> FitResult:
        """See `Solver.solve`."""
        coef, intercept = start if start is not None else problem.null_model()
        problem, scale = problem.measured()
        coef, intercept, iterations = self.descend(problem, coef, intercept, self.tol * scale)
        return problem.result(coef, intercept, iterations, self.tol)

    def descend(self, problem: Problem, coef: Tensor, intercept: Tensor, target: float) -> tuple[Tensor, Tensor, int]:
        """Iterate until the violation is at most `target`."""
        coef, intercept, worst = self._polish(problem, coef, intercept, target)
        if worst <= target:
            return coef, intercept, 0
        unit = _intercept_unit(problem)
        step = min(1 / max(_lipschitz(problem, unit), 1e-300), problem.term.max_step())
        ahead, shift, momentum = coef, intercept, 1.0
        for iteration in range(1, self.max_iter + 1):
            gradient, slope = problem.gradients(problem.predictions(ahead, shift))
            new, new_intercept = problem.term.prox(ahead - step * gradient, step), shift - step * unit**2 * slope
            # restart when the momentum points uphill
            uphill = ((ahead - new) * (new - coef)).sum() + (
                (shift - new_intercept) * (new_intercept - intercept)
            ).sum() / unit**2
            if float(uphill) > 0:
                momentum = 1.0
            following = 0.5 * (1 + math.sqrt(1 + 4 * momentum**2))
            weight = (momentum - 1) / following
            ahead, shift = new + weight * (new - coef), new_intercept + weight * (new_intercept - intercept)
            coef, intercept, momentum = new, new_intercept, following
            if iteration % self.check == 0:
                coef, intercept, worst = self._polish(problem, coef, intercept, target)
                if worst <= target:
                    return coef, intercept, iteration
        return coef, intercept, self.max_iter

    def _polish(self, problem: Problem, coef: Tensor, intercept: Tensor, target: float) -> tuple[Tensor, Tensor, float]:
        worst = problem.worst(coef, intercept)
        if worst <= target or not self.newton:
            return coef, intercept, worst
        size = int(problem.term.support(coef).sum())
        if size > min(problem.design.shape[0] * max(coef.shape[-1] if coef.ndim == 2 else 1, 1), 3000):
            return coef, intercept, worst
        trial = newton_polish(problem, coef, intercept, worst, target)
        return trial if trial[2] <= target else (coef, intercept, worst)

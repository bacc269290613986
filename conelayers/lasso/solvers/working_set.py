"""Working sets: solve on few features, look at all gradients, add the worst violators, repeat."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from conelayers.lasso.problem import FitResult, Problem
from conelayers.lasso.solvers.base import Solver, newton_polish
from conelayers.lasso.solvers.proximal_gradient import ProximalGradient
from conelayers.lasso.solvers.quadratic_model import minimize_model, supported
from conelayers.settings import require_counts, require_kinds

__all__ = ["WorkingSet"]

_Point = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class WorkingSet(Solver):
    """Working sets around coordinate descent, finished by Newton steps on the support.

    One full product with X per outer iteration; everything else happens on the working set. There the datafit is
    replaced by a quadratic (exact for least squares, a Newton model with line search for other losses), minimised by
    coordinate descent, over groups where the term has groups; nonconvex terms and other devices use `inner`.

    Args:
        first: Size of the first working set.
        inner: Solver on the working set for nonconvex terms, on other devices, and where the engine is not compiled.
    """

    first: int = 20
    inner: ProximalGradient = field(default_factory=ProximalGradient)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_counts(self, first=1)
        require_kinds(self, inner=ProximalGradient)

    def solve(self, problem: Problem, start: _Point | None = None) -> FitResult:
        """See `Solver.solve`."""
        coef, intercept = start if start is not None else problem.null_model()
        problem, scale = problem.measured()
        iteration, least, stalled, target = 0, float("inf"), 0, self.tol * scale
        while True:
            entries, slope = problem.violations(coef, problem.predictions(coef, intercept))
            worst = max(float(entries.max()), float(slope.max()))
            # rounding errors set a floor; below it there is no progress to wait for
            stalled = 0 if worst < 0.9 * least else stalled + 1
            least = min(least, worst)
            if worst <= target or iteration >= self.max_iter or stalled > 10:
                return FitResult(coef, intercept, worst / scale, iteration, problem, tol=self.tol)
            iteration += 1
            features = self._choose(problem, coef, entries)
            everything = features.numel() == coef.shape[0]
            sub = problem if everything else problem.restrict(features)
            # looser than needed while new features keep coming in
            within = 0.5 * target if everything else max(0.5 * target, 0.01 * worst)
            local, intercept = self._subproblem(sub, coef[features], intercept, worst, within)
            coef = local if everything else torch.zeros_like(coef).index_copy(0, features, local)

    def _choose(self, problem: Problem, coef: Tensor, entries: Tensor) -> Tensor:
        """Features in use, and as many again of the worst violators."""
        used = (problem.term.support(coef) & (entries > 0)) | (coef != 0)
        score = entries
        if coef.ndim == 2:
            used, score = used.any(-1), score.max(-1).values
        count = min(max(self.first, int(used.sum())), score.numel())
        score = torch.where(used, torch.zeros_like(score), score)
        values, best = torch.topk(score, count)
        mask = used.clone()
        mask[best[values > 0]] = True
        return torch.nonzero(problem.term.whole(mask)).flatten()

    def _subproblem(self, sub: Problem, coef: Tensor, intercept: Tensor, worst: float, target: float) -> _Point:
        if not supported(sub):
            coef, intercept, _ = self.inner.descend(sub, coef, intercept, target)
            return coef, intercept
        floor = 1e-10
        for _ in range(50):
            if worst <= target:
                break
            eta = sub.predictions(coef, intercept)
            # loose rounds: Newton's method finishes as soon as the support is right
            trial, step = minimize_model(sub, coef, intercept, eta, max(target, 0.03 * worst), floor), 1.0
            if not sub.datafit.quadratic:
                trial, step = _line_search(sub, coef, intercept, eta, trial)
            if step == 0 and floor == 1:
                break
            # short steps: the model is too flat
            floor = min(max(100 * floor, 1e-6), 1.0) if step < 0.1 else max(0.1 * floor, 1e-10)
            coef, intercept = trial
            worst = sub.worst(coef, intercept)
            coef, intercept, worst = newton_polish(sub, coef, intercept, worst, target)
        return coef, intercept


def _line_search(sub: Problem, coef: Tensor, intercept: Tensor, eta: Tensor, trial: _Point) -> tuple[_Point, float]:
    """Backtrack from the model's minimiser until the objective falls; zero is the step that never did."""
    value = float(sub.objective(coef, eta))
    direction, shift = trial[0] - coef, trial[1] - intercept
    along = sub.design.matmul(direction) + shift
    step = 1.0
    for _ in range(30):
        if float(sub.objective(coef + step * direction, eta + step * along)) <= value:
            return (coef + step * direction if step < 1 else trial[0], intercept + step * shift), step
        step *= 0.5
    return (coef, intercept), 0.0

"""One convex problem with all numbers in place, and its optimality measures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from conelayers.errors import InaccurateWarning
from conelayers.lasso.datafits import Datafit
from conelayers.lasso.designs import Design
from conelayers.lasso.terms import Term

__all__ = ["FitResult", "Problem", "warn_unsolved"]

_UNITS = 100 * torch.finfo(torch.float64).eps  # rounding of a sum of products, in units of their size
_NOISE = 1e-7  # what is left of a gradient after more than these digits cancel is not worth solving for


@dataclass(frozen=True)
class FitResult:
    """What an inner solver returns.

    Attributes:
        coef: Coefficients, shape (p,) or (p, K).
        intercept: Shape () or (K,); zero where none is fitted.
        violation: Largest distance of zero from the subdifferential, relative to the gradient at zero coefficients.
        iterations: Outer iterations of the solver.
        problem: What was solved.
        dual: Derivatives of the fit in the targets, shape (n,), where the loss has a corner and they are unknowns.
        tol: The violation at which the solver would have stopped.
    """

    coef: Tensor
    intercept: Tensor
    violation: float
    iterations: int
    problem: Problem = field(repr=False)
    dual: Tensor | None = field(default=None, repr=False)
    tol: float = math.inf

    @cached_property
    def converged(self) -> bool:
        """Whether the violation is at most `tol`, or what rounding leaves of the terms that it is a sum of."""
        return self.violation <= self.tol or self.violation <= self.problem.rounding(self.coef, self.intercept)

    @cached_property
    def gap(self) -> float:
        """Duality gap in units of the objective (NaN for nonconvex penalties), computed when asked for."""
        return self.problem.gap(self.coef, self.problem.predictions(self.coef, self.intercept), self.dual)


@dataclass(frozen=True)
class Problem:
    """minimise datafit(X b + intercept) + term(b).

    Attributes:
        design: X, n x p.
        y: Targets in the form of `Datafit.targets`.
        weights: Sample weights, shape (n,), normalised.
        fit_intercept: Whether the intercept is an unknown (never penalised).
        slope_unit: What a unit of the intercept's slope counts among violations, see `measured`.
    """

    design: Design
    y: Tensor
    weights: Tensor
    datafit: Datafit
    term: Term
    fit_intercept: bool
    slope_unit: float = 1.0

    @property
    def coef_shape(self) -> tuple[int, ...]:
        """Shape of the coefficients."""
        return self.datafit.coef_shape(self.design.shape[1], self.y)

    def null_model(self) -> tuple[Tensor, Tensor]:
        """Zero coefficients, and the intercept that fits best without features."""
        coef = self.weights.new_zeros(self.coef_shape)
        if not self.fit_intercept:
            return coef, coef.new_zeros(coef.shape[1:])
        return coef, self.datafit.constant(self.y, self.weights)

    def predictions(self, coef: Tensor, intercept: Tensor) -> Tensor:
        """X b + intercept, shape (n,) or (n, K)."""
        return self.design.matmul(coef) + intercept

    def objective(self, coef: Tensor, eta: Tensor) -> Tensor:
        """Value at coefficients whose predictions are eta."""
        return self.datafit.value(eta, self.y, self.weights) + self.term.value(coef)

    def gradients(self, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the datafit in the coefficients and in the intercept (zero where none is fitted)."""
        residual = self.datafit.gradient(eta, self.y, self.weights)
        total = residual.sum(0)
        return self.design.rmatmul(residual), total if self.fit_intercept else torch.zeros_like(total)

    def violations(self, coef: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
        """Distance from optimality by entry of the coefficients, and of the intercept."""
        gradient, slope = self.gradients(eta)
        return self.term.violation(coef, gradient), self.slope_unit * slope.abs()

    def scale(self) -> float:
        """Size of the gradient and of the losses' slopes at zero coefficients."""
        return max(*self._sizes(), torch.finfo(torch.float64).tiny)

    def measured(self) -> tuple[Problem, float]:
        """The problem with a slope unit, and the size of the gradient, which violations are measured against.

        Features of size 1e-6 have gradients of size 1e-6 beside slopes of the losses of size one. The intercept's slope
        counts in units of the gradient, for otherwise an accuracy of 1e-8 relative to it would leave two digits in the
        coefficients.
        """
        gradient, slope = self._sizes()
        unit = gradient / slope if gradient > 0 and slope > 0 else 1.0
        # features that are zero throughout have no gradient: the intercept is all there is
        return replace(self, slope_unit=unit), max(gradient or slope, torch.finfo(torch.float64).tiny)

    def rounding(self, coef: Tensor, intercept: Tensor) -> float:
        """Violation, in units of the gradient, below which there is only the rounding of products with X and X'."""
        problem, scale = self.measured()
        weights, largest = self.weights, float(self.design.squared_norms(self.weights).max()) ** 0.5
        slopes, offset = self.datafit.slope(self.predictions(coef, intercept), self.y), intercept.abs().max()

        def size(values: Tensor) -> float:
            squares = values.square() if values.ndim == 1 else values.square().sum(-1)
            return float(weights @ squares) ** 0.5

        reach = size(self.y) + float(weights.sum()) ** 0.5 * float(offset) + largest * float(coef.abs().sum())
        terms = size(slopes) + self.datafit.curvature * reach if self.datafit.smooth else size(slopes) + reach
        unit = max(largest, problem.slope_unit * float(weights.sum()) ** 0.5)
        return _UNITS * unit * terms / scale

    def _sizes(self) -> tuple[float, float]:
        """The gradient in the coefficients and the sum of the losses' slopes, at zero coefficients.

        The intercept is the best one there. Without it targets of mean 1e6 would count for 1e6, though the intercept
        takes that away, and nothing that the features explain would be seen beside it. Where it takes away almost all,
        what is left is rounding.
        """
        coef, intercept = self.null_model()
        entries, slope = self._sizes_at(coef, intercept)
        if not self.fit_intercept:
            return entries, slope
        whole, whole_slope = self._sizes_at(coef, torch.zeros_like(intercept))
        return max(entries, _NOISE * whole), max(slope, _NOISE * whole_slope)

    def _sizes_at(self, zero: Tensor, intercept: Tensor) -> tuple[float, float]:
        eta = intercept.expand(self.weights.shape + intercept.shape)
        slopes = self.datafit.gradient(eta, self.y, self.weights)
        gradient = self.design.rmatmul(slopes)
        entries = max(float(gradient.abs().max()), float(self.term.violation(zero, gradient).max()))
        return entries, float(slopes.abs().sum(0).max())

    def gap(self, coef: Tensor, eta: Tensor, dual: Tensor | None = None) -> float:
        """Duality gap at the dual point obtained by scaling the slopes of the losses.

        From Fenchel's inequality: D(u) = -sum_i w_i l*(u_i) - g*(-X'(w u)), sum_i w_i u_i = 0 with an intercept.
        """
        if not self.term.convex:
            return float("nan")
        slopes = self.datafit.slope(eta, self.y)
        if dual is not None:
            slopes = torch.where(self.weights > 0, -dual / self.weights.clamp_min(1e-300), slopes)
        if self.fit_intercept:
            slopes = slopes - (self.weights @ slopes) / self.weights.sum()
        weighted = slopes * (self.weights if slopes.ndim == 1 else self.weights[:, None])
        correlation = -self.design.rmatmul(weighted)
        shrink = self.term.dual_scale(correlation)
        losses = self.datafit.conjugate(shrink * slopes, self.y)
        dual = -(self.weights * losses)[self.weights > 0].sum() - self.term.conjugate(shrink * correlation)
        return max(float(self.objective(coef, eta) - dual), 0.0)

    def restrict(self, features: Tensor) -> Problem:
        """The same problem on some features (whole groups), the others being zero."""
        return replace(self, design=self.design.columns(features), term=self.term.restrict(features))

    def worst(self, coef: Tensor, intercept: Tensor) -> float:
        """Largest violation, in units of the gradient."""
        entries, slope = self.violations(coef, self.predictions(coef, intercept))
        return max(float(entries.max()) if entries.numel() else 0.0, float(slope.max()))

    def result(self, coef: Tensor, intercept: Tensor, iterations: int, tol: float = math.inf) -> FitResult:
        """A solution with its accuracy."""
        problem, scale = self.measured()
        return FitResult(coef, intercept, problem.worst(coef, intercept) / scale, iterations, self, tol=tol)


def warn_unsolved(violations: Sequence[float], where: str, stacklevel: int) -> None:
    """Say once that inner problems were left unsolved; nothing where there are none.

    Warns:
        InaccurateWarning: `violations` holds the accuracies of some.
    """
    if violations:
        warnings.warn(
            f"{where}: the solver stopped before it reached its tolerance, at a violation of optimality of up to "
            f"{max(violations):.1e} of the gradient at zero coefficients. Raise max_iter, or bring the features to "
            "like units.",
            InaccurateWarning,
            stacklevel=stacklevel + 1,
        )

"""Models with the exact quantile loss: solved to the point, differentiated where they interpolate samples.

With lambda_i = w_i u_i, u_i in [q - 1, q] the slope of the loss in the residual r = y - X b - c, optimality says

    g'(b)_S - X_S' lambda = 0,      sum_i lambda_i = 0 (with an intercept),
    r_i = 0 where q - 1 < u_i < q (the set Z of interpolated samples),      u_i = q or q - 1 elsewhere.

In (b_S, c, lambda_Z) its Jacobian is J = [[g''_S, 0, -X_ZS'], [0, 0, -1'], [-X_ZS, -1, 0]]. Under an l1 term alone a
solution is a vertex of a linear programme: it stays put while the penalty changes a little, and moves with y.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from conelayers.implicit.itemwise import against, along
from conelayers.lasso.datafits import Quantile
from conelayers.lasso.designs import Design
from conelayers.lasso.equation import SupportEquation
from conelayers.lasso.problem import FitResult, Problem
from conelayers.lasso.solvers import Solver
from conelayers.lasso.support import Support, solve_symmetric

__all__ = ["InterpolationEquation", "solve_exactly"]


@dataclass(frozen=True)
class _Vertex:
    """A solution restricted to the features in use, with its Jacobian."""

    support: Support
    held: Tensor  # interpolated samples
    design: Design  # of the features in use, all samples
    through: Tensor  # X of the interpolated samples and features in use, dense
    coef: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, problem: Problem, coef: Tensor, dual: Tensor) -> _Vertex:
        with torch.no_grad():
            support = Support.of(problem.term, coef.detach())
            held = torch.nonzero(_inside(problem, dual)).flatten()
        sub, local = problem.restrict(support.features), coef[support.features]
        through = sub.design.rows(held).dense()
        curvature = sub.term.curvature(local, support.entries)
        block = torch.diag(curvature) if curvature.ndim == 1 else curvature
        rows = through[:, support.entries]
        if problem.fit_intercept:
            rows = torch.cat([rows, rows.new_ones(rows.shape[0], 1)], 1)
            block = torch.nn.functional.pad(block, (0, 1, 0, 1))
        zero = rows.new_zeros(rows.shape[0], rows.shape[0])
        matrix = torch.cat([torch.cat([block, -rows.mT], 1), torch.cat([-rows, zero], 1)])
        return cls(support, held, sub.design, through, local, matrix)

    def pack(self, coef: Tensor, intercept: Tensor, dual: Tensor, fit_intercept: bool) -> Tensor:
        """Entries of the features in use, intercept and all duals as a vector of the system."""
        shift = [intercept.reshape(1)] if fit_intercept else []
        return torch.cat([coef[self.support.entries], *shift, dual[self.held]])

    def unpack(self, vector: Tensor, like: Tensor, fit_intercept: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The inverse of `pack`, zero elsewhere; `like` has the shape of the duals."""
        size = self.support.entries.numel()
        local = torch.zeros_like(self.coef.detach()).index_copy(0, self.support.entries, vector[:size])
        shift = vector[size] if fit_intercept else vector.new_zeros(())
        dual = torch.zeros_like(like.detach()).index_copy(0, self.held, vector[size + int(fit_intercept) :])
        return local, shift, dual


def _inside(problem: Problem, dual: Tensor) -> Tensor:
    level = problem.datafit.level  # type: ignore[attr-defined]
    return (dual != level * problem.weights) & (dual != (level - 1) * problem.weights)


def _worst(problem: Problem, coef: Tensor, intercept: Tensor, dual: Tensor, spread: float) -> float:
    """Largest violation of the optimality conditions, relative to the gradient at zero and to the targets' spread."""
    level = problem.datafit.level  # type: ignore[attr-defined]
    r = problem.y - problem.predictions(coef, intercept)
    wrong = torch.where(_inside(problem, dual), r.abs(), torch.where(dual == level * problem.weights, -r, r))
    wrong = torch.where(problem.weights > 0, wrong, torch.zeros_like(wrong)).clamp_min(0)
    entries = problem.term.violation(coef, -problem.design.rmatmul(dual))
    beyond = torch.maximum(dual - level * problem.weights, (level - 1) * problem.weights - dual).clamp_min(0)
    total = float(dual.sum().abs()) if problem.fit_intercept else 0.0
    slopes = max(float(entries.max()) if entries.numel() else 0.0, total, float(beyond.max()))
    return max(slopes / problem.scale(), float(wrong.max()) / spread)


def _newton(problem: Problem, coef: Tensor, intercept: Tensor, dual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Solve the optimality conditions for the current sets."""
    vertex = _Vertex.of(problem, coef, dual)
    features, term = vertex.support.features, problem.term.restrict(vertex.support.features)
    first = term.slope(vertex.coef) - vertex.design.rmatmul(dual)
    r = problem.y - vertex.design.matmul(vertex.coef) - intercept
    residual = vertex.pack(first, -dual.sum(), r, problem.fit_intercept)
    step = solve_symmetric(vertex.matrix, -residual, warn=False)
    local, shift, moved = vertex.unpack(step, dual, problem.fit_intercept)
    return coef.index_add(0, features, local), intercept + shift, dual + moved


def solve_exactly(solver: Solver, problem: Problem, start: tuple[Tensor, ...] | None = None) -> FitResult:
    """The method of multipliers on smoothed problems (finite for linear programmes), finished by Newton's method.

    If u solves the dual, the problem smoothed over residuals of size mu has the exact solution when its targets are
    y + mu u. So: solve, read u off, shift, repeat (Rockafellar 1976).

    Args:
        solver: For the smoothed problems.
        problem: With a `Quantile` datafit of zero smoothing.
        start: (coef, intercept), by default zero.
    """
    datafit, y = problem.datafit, problem.y
    assert isinstance(datafit, Quantile)
    coef, intercept = (start[0], start[1]) if start is not None else problem.null_model()
    spread = max(float((y - y.median()).abs().mean()), 1e-12 * float(y.abs().max()), torch.finfo(y.dtype).tiny)
    size, u = 0.1 * spread, torch.zeros_like(y)
    answer, iteration = (float("inf"), coef, intercept, u), 0
    while answer[0] > solver.tol and iteration < 100:
        iteration += 1
        smooth = replace(datafit, smoothing=size)
        shifted = replace(problem, datafit=smooth, y=y + size * u)
        result = solver.solve(shifted, (coef, intercept))
        coef, intercept = result.coef, result.intercept
        u = -smooth.slope(problem.predictions(coef, intercept), shifted.y)
        dual = torch.where(u == datafit.level, datafit.level * problem.weights, problem.weights * u)
        dual = torch.where(u == datafit.level - 1, (datafit.level - 1) * problem.weights, dual)
        for candidate in ((coef, intercept, dual), _newton(problem, coef, intercept, dual)):
            answer = min(answer, (_worst(problem, *candidate, spread), *candidate), key=lambda entry: entry[0])
        size = max(0.5 * size, 1e-3 * spread)
    worst, coef, intercept, dual = answer
    return FitResult(coef, intercept, worst, iteration, problem, dual, solver.tol)


@dataclass(frozen=True, eq=False)
class InterpolationEquation(SupportEquation):
    """Outputs (coef, intercept, lambda) of a model with the exact quantile loss."""

    @property
    def output_dims(self) -> tuple[int, ...]:
        """Axes of coef, intercept and the duals."""
        return (1, 0, 1)

    def _event_shapes(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], ...]:
        """Those of a smooth model, and one dual per sample."""
        return *super()._event_shapes(inputs), inputs[int(self.design is None)].shape[-1:]

    def _solve_one(self, problem: Problem, start: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        result = solve_exactly(self.solver, problem, start)
        self._note(result)
        assert result.dual is not None
        return result.coef, result.intercept, result.dual

    def _ends(self, problem: Problem, dual: Tensor) -> Tensor:
        """Slopes u of the samples that are not interpolated, zero for the others: what weights multiply."""
        level = self.datafit.level  # type: ignore[attr-defined]
        ends = torch.where(dual == level * problem.weights, level, level - 1.0).to(dual)
        return torch.where(_inside(problem, dual), torch.zeros_like(ends), ends)

    def _pull(self, inputs, outputs, cotangents, needed) -> list[Tensor | None]:
        coef, intercept, dual = outputs
        problem, theta = self.problem(inputs), self._split(inputs)[3]
        vertex = _Vertex.of(problem, coef, dual)
        g_local = cotangents[0][vertex.support.features]
        rhs = vertex.pack(g_local, cotangents[1], cotangents[2], self.fit_intercept)
        p, shift, v = vertex.unpack(solve_symmetric(vertex.matrix, rhs), dual, self.fit_intercept)
        grads: list[Tensor | None] = [None] * len(inputs)
        offset = len(inputs) - len(theta) - 2
        if offset and needed[0]:
            used = dual[:, None] * p + v[:, None] * vertex.coef
            grads[0] = torch.zeros_like(inputs[0]).index_copy(1, vertex.support.features, used)
        grads[offset] = -v
        ends = self._ends(problem, dual)
        grads[offset + 1] = ends * (vertex.design.matmul(p) + shift + cotangents[2])
        if any(needed[offset + 2 :]):
            off = torch.ones_like(vertex.coef.detach()).index_fill(0, vertex.support.entries, 0.0)
            fixed = (g_local + vertex.design.rmatmul(v)) * off
            parts = self._parts(vertex.support.features, vertex.coef, tuple(coef.shape))
            grads[offset + 2 :] = against(parts, theta, (-p, fixed))
        return grads

    def _push(self, inputs, outputs, tangents) -> tuple[Tensor, ...]:
        coef, intercept, dual = outputs
        problem, theta = self.problem(inputs), self._split(inputs)[3]
        *dX, dy, dweights = tangents[: len(inputs) - len(theta)]
        vertex = _Vertex.of(problem, coef, dual)
        features = vertex.support.features
        parts = self._parts(features, vertex.coef, tuple(coef.shape))
        dslope, fixed = along(parts, theta, tuple(tangents[len(inputs) - len(theta) :]))
        ends = self._ends(problem, dual) * dweights
        first, through = dslope - vertex.design.rmatmul(ends), dy - vertex.design.matmul(fixed)
        if dX:
            columns = dX[0].index_select(1, features)
            first, through = first - columns.mT @ dual, through - columns @ vertex.coef
        rhs = vertex.pack(first, -ends.sum(), through, self.fit_intercept)
        p, shift, v = vertex.unpack(solve_symmetric(vertex.matrix, -rhs), dual, self.fit_intercept)
        return torch.zeros_like(coef).index_copy(0, features, p + fixed), shift, v + ends

"""The optimality conditions of a model as an equation, with a Jacobian that lives on the generalised support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.implicit import Equation, Itemwise, implicit, item_by_item, zeros_for_none
from conelayers.implicit.itemwise import against, along
from conelayers.lasso.datafits import Datafit
from conelayers.lasso.designs import DenseDesign, Design
from conelayers.lasso.penalties import Penalty
from conelayers.lasso.problem import FitResult, Problem
from conelayers.lasso.solvers import Solver
from conelayers.lasso.support import Support, SupportSystem
from conelayers.lasso.terms import Term

__all__ = ["SupportEquation", "check_hyperparameters", "filled"]


@dataclass(frozen=True)
class _Point:
    """One problem of a batch at its solution, restricted to the features in use."""

    design: Design
    features: Tensor
    entries: Tensor
    coef: Tensor
    eta: Tensor
    hessian: Tensor
    system: SupportSystem


def check_hyperparameters(penalty: Penalty, theta: Sequence[Tensor]) -> None:
    """Hyperparameters are numbers at or above zero.

    Raises:
        InvalidArgument: One is out of its range or NaN; the message names it.
    """
    for name, value in zip(penalty.names, theta, strict=True):
        least = penalty.above.get(name)
        if least is not None and not bool((value > least).all()):
            raise InvalidArgument(f"{name} must be larger than {least:g} (and not NaN)")
        if not bool((value >= 0).all()):
            raise InvalidArgument(f"{name} must be nonnegative (and not NaN)")


def filled(penalty: Penalty, shape: tuple[int, ...], theta: Sequence[Tensor]) -> Term:
    """The penalty's term on coefficients of a shape.

    Raises:
        InvalidArgument: A hyperparameter has a shape that does not fit.
    """
    try:
        return penalty.term(shape, *theta)
    except RuntimeError as error:
        shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in zip(penalty.names, theta, strict=True))
        raise InvalidArgument(f"hyperparameters do not fit coefficients of shape {shape}: {shapes}") from error


def _stack(items: Sequence[tuple[Tensor, ...]], batch: torch.Size) -> tuple[Tensor, ...]:
    """Results of the items of a batch as tensors with its axes."""
    columns = [torch.stack(column) for column in zip(*items, strict=True)]
    return tuple(column.reshape((*batch, *column.shape[1:])) for column in columns)


def _by_output(values: Tensor) -> Tensor:
    """Values by sample or feature as columns, one per output; there may be none of them."""
    return values if values.ndim == 2 else values[:, None]


@dataclass(frozen=True, eq=False)
class SupportEquation(Equation):
    """Outputs (coef, intercept) of a proximal model, inputs ([X], y, weights, *hyperparameters).

    Implicit differentiation on the support (Bertrand, Klopfenstein, Massias, Blondel, Vaiter, Gramfort & Salmon 2022):
    entries off it stay at their kink or bound, and the others solve smooth equations. Where entries are weakly active
    the derivative is that of the piece on which they stay put, an element of a conservative Jacobian if the matrix of
    `regularity` is invertible.

    Attributes:
        design: The design matrix, or None where X is the first input (dense).
        start: A point (coef, intercept) from which the solver starts, with the batch axes of the outputs.
        unsolved: Takes the violations of the items that the solver left unsolved; a list of one call.
    """

    datafit: Datafit
    penalty: Penalty
    solver: Solver
    fit_intercept: bool
    design: Design | None
    target_dims: int
    start: tuple[Tensor, Tensor] | None = None
    unsolved: list[float] = field(default_factory=list)

    @property
    def output_dims(self) -> tuple[int, ...]:
        """Axes of coef and intercept."""
        return (self.target_dims, self.target_dims - 1)

    @property
    def event_dims(self) -> Sequence[int]:
        """X (if an input), targets, weights, hyperparameters."""
        own = (2,) if self.design is None else ()
        return (*own, self.target_dims, 1, *self.penalty.event_dims)

    def batch(self, tensors: Sequence[Tensor], dims: Sequence[int]) -> torch.Size:
        """Batch axes that tensors with so many axes of their own have together."""
        return torch.broadcast_shapes(*(x.shape[: x.ndim - d] for x, d in zip(tensors, dims, strict=True)))

    def _items(self, tensors: Sequence[Tensor], dims: Sequence[int], batch: torch.Size) -> list[tuple[Tensor, ...]]:
        flat = [
            x.expand((*batch, *x.shape[x.ndim - d :])).reshape((-1, *x.shape[x.ndim - d :]))
            for x, d in zip(tensors, dims, strict=True)
        ]
        return list(zip(*flat, strict=True)) if flat else [()]

    def _split(self, inputs: tuple[Tensor, ...]) -> tuple[Design, Tensor, Tensor, tuple[Tensor, ...]]:
        if self.design is not None:
            return self.design, inputs[0], inputs[1], inputs[2:]
        return DenseDesign(inputs[0]), inputs[1], inputs[2], inputs[3:]

    def problem(self, inputs: tuple[Tensor, ...]) -> Problem:
        """The problem of one item."""
        design, y, weights, theta = self._split(inputs)
        term = filled(self.penalty, self.datafit.coef_shape(design.shape[1], y), theta)
        return Problem(design, y, weights, self.datafit, term, self.fit_intercept)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Solve every item with the inner solver."""
        check_hyperparameters(self.penalty, inputs[len(inputs) - len(self.penalty.names) :])
        batch = self.batch(inputs, self.event_dims)
        if 0 in batch:
            return self._nothing(inputs, batch)
        items = self._items(inputs, self.event_dims, batch)
        starts: Sequence[tuple[Tensor, ...] | None] = [None] * len(items)
        if self.start is not None:
            starts = self._items(self.start, self.output_dims[:2], batch)
        results = [self._solve_one(self.problem(item), start) for item, start in zip(items, starts, strict=True)]
        return _stack(results, batch)

    def _event_shapes(self, inputs: tuple[Tensor, ...]) -> tuple[tuple[int, ...], ...]:
        """Shapes of the outputs of one item."""
        features = inputs[0].shape[-1] if self.design is None else self.design.shape[1]
        y = inputs[int(self.design is None)]
        shape = self.datafit.coef_shape(features, y.new_empty(y.shape[y.ndim - self.target_dims :]))
        return shape, shape[1:]

    def _nothing(self, inputs: tuple[Tensor, ...], batch: torch.Size) -> tuple[Tensor, ...]:
        """The outputs of an empty batch."""
        return tuple(inputs[-1].new_zeros((*batch, *shape)) for shape in self._event_shapes(inputs))

    def _solve_one(self, problem: Problem, start: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
        result = self.solver.solve(problem, start)  # type: ignore[arg-type]
        self._note(result)
        return result.coef, result.intercept

    def _note(self, result: FitResult) -> None:
        if not result.converged:
            self.unsolved.append(result.violation)

    def _linearize(self, inputs: tuple[Tensor, ...], coef: Tensor, intercept: Tensor) -> _Point:
        problem = self.problem(inputs)
        with torch.no_grad():
            support = Support.of(problem.term, coef.detach())
        sub = problem.restrict(support.features)
        local = coef[support.features]
        eta = sub.predictions(local, intercept)
        hessian = self.datafit.hessian(eta, problem.y, problem.weights)
        system = SupportSystem(sub.design, hessian, sub.term, local, support.entries, self.fit_intercept, self.datafit)
        return _Point(sub.design, support.features, support.entries, local, eta, hessian, system)

    def _expand(self, point: _Point, solution: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
        """A vector of the support's system as (entries of the features in use, intercept)."""
        size = point.entries.numel()
        flat = torch.zeros_like(point.coef.detach()).flatten()
        local = flat.index_copy(0, point.entries, solution[:size]).reshape(point.coef.shape)
        if not self.fit_intercept:
            return local, torch.zeros_like(intercept)
        return local, solution[size:].reshape(intercept.shape)

    def _parts(self, features: Tensor, local: Tensor, shape: tuple[int, ...]):
        """Hyperparameters -> (slope of the term, values of the entries at bounds) on the features in use."""

        def parts(*theta: Tensor) -> tuple[Tensor, Tensor]:
            term = self.penalty.term(shape, *theta).restrict(features)
            return term.slope(local), term.pinned(local)

        return parts

    def _pull(self, inputs, outputs, cotangents, needed) -> list[Tensor | None]:
        coef, intercept = outputs
        design, y, weights, theta = self._split(inputs)
        point = self._linearize(inputs, coef, intercept)
        g_local, g_intercept = cotangents[0][point.features], cotangents[1]
        rhs = g_local.flatten()[point.entries]
        if self.fit_intercept:
            rhs = torch.cat([rhs, g_intercept.reshape(-1)])
        u, shift = self._expand(point, point.system.solve(rhs), intercept)
        q = point.design.matmul(u) + shift  # shape: that of eta
        curved = self.datafit.times_hessian(point.hessian, q)
        grads: list[Tensor | None] = [None] * len(inputs)
        offset = len(inputs) - len(theta) - 2
        if offset and needed[0]:
            slope = self.datafit.gradient(point.eta, y, weights)
            used = -(_by_output(slope) @ _by_output(u).mT) - _by_output(curved) @ _by_output(point.coef).mT
            grads[0] = torch.zeros_like(inputs[0]).index_copy(1, point.features, used)
        if needed[offset] or needed[offset + 1]:
            slopes = against(lambda t, w: (self.datafit.gradient(point.eta, t, w),), (y, weights), (-q,))
            grads[offset], grads[offset + 1] = slopes
        if any(needed[offset + 2 :]):
            off = torch.ones_like(point.coef.detach()).flatten().index_fill(0, point.entries, 0.0)
            held = (g_local - point.design.rmatmul(curved)) * off.reshape(point.coef.shape)
            parts = self._parts(point.features, point.coef, tuple(coef.shape))
            grads[offset + 2 :] = against(parts, theta, (-u, held))
        return grads

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """One symmetric solve on the support per item, then products with it."""
        if 0 in outputs[0].shape[: -self.output_dims[0]]:
            return tuple(torch.zeros_like(x) if use else None for x, use in zip(inputs, needed, strict=True))
        first, point = len(inputs), len(inputs) + len(outputs)

        def pull(*values: Tensor) -> tuple[Tensor, ...]:
            grads = self._pull(values[:first], values[first:point], values[point:], needed)
            return tuple(g for g, use in zip(grads, needed, strict=True) if use and g is not None)

        dims = tuple(self.event_dims)
        found = tuple(event for event, use in zip(dims, needed, strict=True) if use)
        adjoint = Itemwise(pull, point, dims + self.output_dims * 2, found)
        grads = iter(implicit(adjoint, *inputs, *outputs, *zeros_for_none(cotangents, outputs)))
        return tuple(next(grads) if use else None for use in needed)

    def _push(self, inputs, outputs, tangents) -> tuple[Tensor, ...]:
        coef, intercept = outputs
        design, y, weights, theta = self._split(inputs)
        *dX, dy, dweights = tangents[: len(inputs) - len(theta)]
        point = self._linearize(inputs, coef, intercept)
        parts = self._parts(point.features, point.coef, tuple(coef.shape))
        dslope, held = along(parts, theta, tuple(tangents[len(inputs) - len(theta) :]))
        (moved,) = along(lambda t, w: (self.datafit.gradient(point.eta, t, w),), (y, weights), (dy, dweights))
        deta = point.design.matmul(held)
        lift = torch.zeros_like(point.coef)
        if dX:
            columns = dX[0].index_select(1, point.features)
            deta = deta + columns @ point.coef
            lift = columns.mT @ self.datafit.gradient(point.eta, y, weights)
        moved = moved + self.datafit.times_hessian(point.hessian, deta)
        rhs = (point.design.rmatmul(moved) + lift + dslope).flatten()[point.entries]
        if self.fit_intercept:
            rhs = torch.cat([rhs, moved.sum(0).reshape(-1)])
        u, shift = self._expand(point, point.system.solve(-rhs), intercept)
        return torch.zeros_like(coef).index_copy(0, point.features, u + held), shift

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The same system, from the other side."""
        if 0 in outputs[0].shape[: -self.output_dims[0]]:
            return tuple(torch.zeros_like(z) for z in outputs)
        first, point = len(inputs), len(inputs) + len(outputs)

        def push(*values: Tensor) -> tuple[Tensor, ...]:
            return self._push(values[:first], values[first:point], values[point:])

        dims, values = tuple(self.event_dims), (*inputs, *outputs, *zeros_for_none(tangents, inputs))
        return item_by_item(push, point, dims + self.output_dims + dims, self.output_dims, values)

    def align(self, in_dims, inputs):
        """A stored start does not know the new axis, so it is dropped."""
        _, aligned = super().align(in_dims, inputs)
        return replace(self, start=None), aligned

"""Sparse models: a datafit, a penalty and an inner solver, as a differentiable function of data and hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.implicit import implicit
from conelayers.lasso.certificate import SupportCertificate, certify
from conelayers.lasso.datafits import Datafit
from conelayers.lasso.designs import DenseDesign, as_design, as_values, plain_array, require_finite
from conelayers.lasso.equation import SupportEquation, check_hyperparameters, filled
from conelayers.lasso.interpolation import InterpolationEquation, solve_exactly
from conelayers.lasso.penalties import Penalty
from conelayers.lasso.problem import FitResult, Problem, warn_unsolved
from conelayers.lasso.solvers import Solver, WorkingSet
from conelayers.layers._compile import outside_graphs
from conelayers.settings import check_kind, check_number

__all__ = ["ProximalModel"]


@dataclass(frozen=True)
class ProximalModel:
    """minimise over (b, c): sum_i w_i l(x_i'b + c, y_i) + penalty(b; hyperparameters), w normalised to sum to one.

    A solution is a fixed point of the proximal gradient map, b = prox(b - t X'f'(Xb + c)), and differentiated as one.

    Args:
        datafit: The losses.
        penalty: The family of regularisers; its `names` are the hyperparameters.
        fit_intercept: Whether c is an unknown.
        solver: How the problem is solved.
        average: Normalise weights to sum to one; otherwise they are used as given (one each by default).

    Example:
        >>> model = ProximalModel(Quadratic(), L1())
        >>> coef, intercept = model(X, y, alpha)        # differentiable in X (dense tensors), y, sample_weight, alpha
    """

    datafit: Datafit
    penalty: Penalty
    fit_intercept: bool = True
    solver: Solver = field(default_factory=WorkingSet)
    average: bool = True

    def __post_init__(self) -> None:
        check_kind("datafit", self.datafit, Datafit)
        check_kind("penalty", self.penalty, Penalty)
        check_kind("solver", self.solver, Solver)

    def _hyperparameters(self, values: tuple[Any, ...], device: torch.device) -> tuple[Tensor, ...]:
        names = self.penalty.names
        if len(values) != len(names):
            raise InvalidArgument(f"expected the hyperparameters {', '.join(names)}; got {len(values)} values")
        out = []
        for name, value, dims in zip(names, values, self.penalty.event_dims, strict=True):
            tensor = as_values(value, device, name)
            tensor = tensor if tensor.is_floating_point() else tensor.to(torch.float64)
            if tensor.ndim < dims:
                raise InvalidArgument(f"{name} must have at least {dims} axes; got shape {tuple(tensor.shape)}")
            out.append(tensor)
        return tuple(out)

    def _prepare(self, X: Any, y: Any, values: tuple[Any, ...], sample_weight: Any):
        design = as_design(X)
        if 0 in design.shape:
            raise InvalidArgument(f"X must have a sample and a feature; its shape is {tuple(design.shape)}")
        theta = self._hyperparameters(values, design.device)
        target = self.datafit.targets(as_values(y, design.device, "y"))
        require_finite("y", target)
        if target.shape[0] != design.shape[0]:
            raise InvalidArgument(f"y has {target.shape[0]} samples and X has {design.shape[0]}")
        ones = torch.ones(design.shape[0], dtype=torch.float64, device=design.device)
        weights = ones if sample_weight is None else as_values(sample_weight, design.device, "sample_weight").to(ones)
        if weights.shape[-1:] != ones.shape:
            raise InvalidArgument(f"sample_weight must have {design.shape[0]} entries; got {tuple(weights.shape)}")
        require_finite("sample_weight", weights)
        known = plain_array(weights.detach())
        if known is not None and not ((known >= 0).all() and (known.sum(-1) > 0).all()):
            raise InvalidArgument("sample_weight must be nonnegative and not zero everywhere")
        if self.average:
            weights = weights / weights.sum(-1, keepdim=True)
        return design, target, weights, theta

    def problem(self, X: Any, y: Any, *hyperparameters: Any, sample_weight: Any = None) -> Problem:
        """The problem with all numbers in place, without derivatives; no batch axes."""
        with torch.no_grad():
            design, target, weights, theta = self._prepare(X, y, hyperparameters, sample_weight)
            theta = tuple(t.detach().to(torch.float64) for t in theta)
            check_hyperparameters(self.penalty, theta)
            term = filled(self.penalty, self.datafit.coef_shape(design.shape[1], target), theta)
            return Problem(design, target, weights, self.datafit, term, self.fit_intercept)

    def fit(
        self,
        X: Any,
        y: Any,
        *hyperparameters: Any,
        sample_weight: Any = None,
        start: tuple[Tensor, Tensor] | None = None,
    ) -> FitResult:
        """Solve without derivatives; says how accurate the solution is.

        Args:
            X: Design matrix, see `as_design`.
            y: Targets, as the datafit takes them.
            *hyperparameters: Numbers or tensors, in the order of `penalty.names`.
            sample_weight: Shape (n,).
            start: A point (coef, intercept) to start from.

        Warns:
            InaccurateWarning: The solver stopped before it reached its tolerance.
        """
        with torch.no_grad():
            problem = self.problem(X, y, *hyperparameters, sample_weight=sample_weight)
            design = problem.design
            start = None if start is None else _start(start, problem.coef_shape, torch.Size(), design.device)
            solver = self.solver
            result = solver.solve(problem, start) if self.datafit.smooth else solve_exactly(solver, problem, start)
            warn_unsolved([] if result.converged else [result.violation], "ProximalModel.fit", 2)
            return result

    @outside_graphs
    def __call__(
        self,
        X: Any,
        y: Any,
        *hyperparameters: Any,
        sample_weight: Any = None,
        start: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Coefficients and intercept, differentiable in the hyperparameters, y, sample_weight and a dense tensor X.

        Args:
            X: Design matrix, see `as_design`; a dense tensor may require a gradient.
            y: Targets, as the datafit takes them.
            *hyperparameters: Shape (*batch, *event), in the order of `penalty.names`; batch axes broadcast.
            sample_weight: Shape (*batch, n).
            start: A point to start from, with the batch axes of the result.

        Returns:
            coef, shape (*batch, p) or (*batch, p, K), and intercept, shape (*batch,) or (*batch, K), in the dtype that
            the hyperparameters and a tensor X promote to.

        Warns:
            InaccurateWarning: The solver stopped before it reached its tolerance, for some items of a batch.
        """
        coef, intercept, unsolved = self.solution(X, y, *hyperparameters, sample_weight=sample_weight, start=start)
        warn_unsolved(unsolved, "ProximalModel", 3)
        return coef, intercept

    def solution(
        self,
        X: Any,
        y: Any,
        *hyperparameters: Any,
        sample_weight: Any = None,
        start: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, list[float]]:
        """What a call returns, and the violations of the items that were left unsolved in place of a warning."""
        design, target, weights, theta = self._prepare(X, y, hyperparameters, sample_weight)
        given = [*theta, X] if isinstance(X, Tensor) and X.is_floating_point() else list(theta)
        dtype = given[0].dtype
        for tensor in given[1:]:
            dtype = torch.promote_types(dtype, tensor.dtype)
        inputs = [target, weights, *(t.to(torch.float64) for t in theta)]
        kind = SupportEquation if self.datafit.smooth else InterpolationEquation
        equation = kind(self.datafit, self.penalty, self.solver, self.fit_intercept, design, target.ndim)
        if start is not None:
            batch = equation.batch(inputs, equation.event_dims)
            shape = self.datafit.coef_shape(design.shape[1], target)
            equation = replace(equation, start=_start(start, shape, batch, design.device))
        if isinstance(design, DenseDesign) and isinstance(X, Tensor) and design.matrix.dtype == torch.float64:
            equation = replace(equation, design=None)
            inputs = [design.matrix, *inputs]
        coef, intercept = implicit(equation, *inputs)[:2]
        return coef.to(dtype), intercept.to(dtype), equation.unsolved

    def regularity(
        self,
        X: Any,
        y: Any,
        *hyperparameters: Any,
        coef: Tensor,
        intercept: Tensor,
        sample_weight: Any = None,
        radius: float = 1e-8,
    ) -> SupportCertificate:
        """Certificate of the implicit function theorem at a solution, see `SupportCertificate`.

        Raises:
            UnsupportedError: The loss has a corner (the exact quantile loss).
        """
        if not self.datafit.smooth:
            raise UnsupportedError("regularity needs a differentiable loss; give Quantile a positive smoothing")
        problem = self.problem(X, y, *hyperparameters, sample_weight=sample_weight)
        check_number("radius", radius, "[0, inf)")
        point = _start((coef, intercept), problem.coef_shape, torch.Size(), problem.design.device, "the solution")
        return certify(problem, *point, radius)

    def residual(self, problem: Problem, step: float):
        """The fixed-point map (coef, intercept) -> prox(coef - step gradient), intercept - step slope.

        With `FixedPoint` iterations or the generic fixed-point adapter it defines the same solution and derivative.
        """

        def update(coef: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
            gradient, slope = problem.gradients(problem.predictions(coef, intercept))
            return problem.term.prox(coef - step * gradient, step), intercept - step * slope

        return update

    def with_tolerance(self, tol: float) -> ProximalModel:
        """The same model solved to another tolerance."""
        return replace(self, solver=replace(self.solver, tol=tol))


def _start(
    start: Any, shape: tuple[int, ...], batch: torch.Size, device: torch.device, name: str = "start"
) -> tuple[Tensor, Tensor]:
    """The point to start from in double precision: coefficients (*batch, *shape) and intercepts, or what broadcasts."""
    shapes = (shape, shape[1:])
    if not isinstance(start, tuple | list) or len(start) != 2:
        raise _no_start(name, shapes, batch, start)
    found = [as_values(part, device, name).detach().to(torch.float64) for part in start]
    for part, own in zip(found, shapes, strict=True):
        lead = part.shape[: max(part.ndim - len(own), 0)]
        if part.shape[len(lead) :] != own or not _broadcasts(lead, batch):
            raise _no_start(name, shapes, batch, start)
    return found[0], found[1]


def _no_start(name: str, shapes: tuple[tuple[int, ...], ...], batch: torch.Size, start: Any) -> InvalidArgument:
    wanted = " and ".join(str((*batch, *shape)) for shape in shapes)
    return InvalidArgument(f"{name} must be a pair (coef, intercept) of shapes {wanted}; got {start!r}")


def _broadcasts(lead: torch.Size, batch: torch.Size) -> bool:
    """Whether tensors with leading axes `lead` expand to `batch`."""
    return len(lead) <= len(batch) and all(a in (1, b) for a, b in zip(reversed(lead), reversed(batch)))

"""A problem declared in CVXPY as a PyTorch module."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cvxpy as cp
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from conelayers.backends import Backend, default_backend
from conelayers.canonicalize import ParametricProgram
from conelayers.errors import ArgumentIgnoredWarning, InvalidArgument, SolveError, UnsupportedError
from conelayers.implicit import Derivative
from conelayers.layers._arguments import by_name, check_on_failure, derivative_mode, result_type
from conelayers.layers._compile import outside_graphs
from conelayers.layers.failures import explain_failures
from conelayers.layers.guess import point_from_guess
from conelayers.layers.parametric import ParametricSolution
from conelayers.layers.solution import LayerSolution
from conelayers.layers.solver_args import configure, named_backend
from conelayers.layers.value import optimal_value
from conelayers.program import ConeProgram, ConeSolution, Status
from conelayers.regularity.policy import RegularityPolicy, enforce
from conelayers.regularity.report import Labels, RegularityReport, examine_problem
from conelayers.residual import ConicConditions, OnFailure
from conelayers.warned import warn_user

__all__ = ["CvxpyLayer"]

_NO_VERSIONS: list[int] = []
_INACCURATE = int(Status.INACCURATE)

WarmStart = bool | ConeSolution | LayerSolution | Mapping[Any, Any]
SolutionHook = Callable[[ConeProgram, ConeSolution], None]


class CvxpyLayer(nn.Module):
    """A parametrised CVXPY problem whose solution is a differentiable function of its parameters.

    The problem is mapped once to the cone programme  minimise 1/2 x'Px + q'x  subject to  Ax + s = b, s in K,  with
    data that are affine in the parameters. Each call solves a batch of them and differentiates the solutions by the
    implicit function theorem, with elements of the Clarke Jacobians of the cone projections (Bolte, Le, Pauwels &
    Silveti-Falls 2021, arXiv 2106.04350).

    Example:
        >>> import cvxpy as cp, torch
        >>> from conelayers import CvxpyLayer
        >>> x, a = cp.Variable(2), cp.Parameter(2)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) == 1, x >= 0])
        >>> layer = CvxpyLayer(problem, parameters=[a], variables=[x])
        >>> (solution,) = layer(torch.tensor([[0.3, 0.1], [2.0, 0.0]], requires_grad=True))
        >>> solution.shape
        torch.Size([2, 2])

    Args:
        problem: A disciplined parametrised programme (`problem.is_dpp()`; `is_dgp(dpp=True)` with `gp=True`).
        parameters: All parameters of the problem, in the order of the tensors of a call; see `fix_unlisted` for those
            that are to stay as they are.
        variables: What a call returns: variables of the problem, dual variables of its constraints
            (`constraint.dual_variables[0]`), and expressions of these and of the parameters, affine or not
            (`mu @ w`, `A @ x - b`, `cp.norm(w)`).
        solver: A backend's name as CVXPY spells it ("CLARABEL", "SCS", "DIFFCP"), "BATCHED" for the compiled engine, a
            backend instance, or None to choose by size.
        gp: The problem is a geometric programme.
        verbose: Print the solver's output.
        canon_backend: CVXPY's canonicalization backend ("CPP", "SCIPY", ...), or None for CVXPY's choice.
        solver_args: Options for every call, see `forward`.
        derivative: How solutions are differentiated: `Exact()`, `Smoothed(mu)` or `LeastSquares()`.
        on_failure: "raise" an error that names the items without a solution, or "nan": return NaN for these items,
            correct values for the others, and no gradient from the failed ones; or "keep": as "nan", but the last
            iterate of items that the limit of iterations stopped (no gradient comes from these either).
        regularity: Whether to check at every call that derivatives can be trusted: "ignore", "warn" with the
            constraints and variables at fault, or "raise" where that is certain (and warn where it is not).
        fix_unlisted: Take parameters of the problem that are not in `parameters` as constants, at their present
            `.value`.

    Raises:
        ValueError: If the problem is not DPP, parameters or variables do not match it, or an option is unknown.
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[cp.Variable | cp.Expression],
        solver: str | Backend | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        *,
        derivative: Derivative | None = None,
        on_failure: OnFailure = "raise",
        regularity: RegularityPolicy = "ignore",
        fix_unlisted: bool = False,
    ) -> None:
        super().__init__()
        self.on_failure: OnFailure = check_on_failure(on_failure)
        self.derivative = derivative_mode(derivative)
        if regularity not in ("ignore", "warn", "raise"):
            raise InvalidArgument(f"regularity must be 'ignore', 'warn' or 'raise', got {regularity!r}.")
        options = {"verbose": True, **(solver_args or {})} if verbose else solver_args or {}
        backend = named_backend(solver, options)
        self.program = ParametricProgram.from_problem(
            problem,
            parameters,
            variables,
            gp=gp,
            canon_backend=canon_backend,
            verbose=verbose,
            quadratic=getattr(backend, "quadratic", True),
            fix_unlisted=fix_unlisted,
        )
        self.parametric = ParametricSolution(self.program)
        self.backend = backend or configure(default_backend(self.program.structure), options)
        self.regularity: RegularityPolicy = regularity
        self._previous: ConeSolution | None = None
        self._usual: ConicConditions | None = None
        # Parameters whose first values are looked at: those of which only the symmetric part counts.
        self._to_look_at = self.program.layout.symmetric
        self._hooks: OrderedDict[int, SolutionHook] = OrderedDict()

    def forward(
        self,
        *params: Tensor,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: WarmStart = False,
        **named: Tensor,
    ) -> tuple[Tensor, ...]:
        """Solve the problem for a batch of parameter values.

        Args:
            *params: One tensor per parameter, with the parameter's shape, or with batch axes before it: a parameter has
                no batch axes or all of them, of the common size or 1. Symmetric parameters take any square matrix X,
                used as (X + X')/2. The last of them may be given by name instead, see `named`.
            solver_args: Options for this call by the names of the backend, CVXPY, diffcp or Moreau: eps, tol,
                max_iters, n_jobs_forward, solve_method, verbose. Others are ignored, with a warning.
            warm_start: A previous solution of as many items (or of one, from which all start): one that `solve`
                returned. True starts from this layer's own previous one, if that has as many items, and keeps a
                detached copy for the next time; inside `torch.func` transforms nothing is kept. A dictionary is a
                guess of one's own: values of some or all variables by name, shape (*batch, *shape) or (*shape).
            **named: Parameters by the names of the CVXPY parameters: layer(mu=..., Sigma=...), in any order.

        Returns:
            One tensor per entry of `variables`, shape (*batch, *shape), in the floating type of the parameters.

        Raises:
            SolveError: If an item has no solution and `on_failure` is "raise"; the message says which, why and what to
                do, and `.status`, `.indices` and `.solution` hold what there is. Also a `diffcp.SolverError`.
            ValueError: If a tensor is missing, of the wrong shape, or the batch axes do not fit; also if those of
                `warm_start` do not, or a name is unknown or given twice.
        """
        if named:
            params = by_name(self.program.layout.names, params, named)
        return self._solve(self.on_failure, params, solver_args, warm_start).variables

    def solve(
        self,
        *params: Tensor,
        solver_args: Mapping[str, Any] | None = None,
        warm_start: WarmStart = False,
        **named: Tensor,
    ) -> LayerSolution:
        """As `forward`, returning the statuses, residuals, value and the cone solution as well.

        An item without a solution is no error here: its variables are NaN (`on_failure="keep"`: the last iterate), and
        `status` says what happened to it. `cone` has the last iterate and its residuals where a limit stopped it.
        """
        if named:
            params = by_name(self.program.layout.names, params, named)
        return self._solve("keep", params, solver_args, warm_start)

    @outside_graphs
    def _solve(
        self,
        on_failure: OnFailure,
        params: tuple[Tensor, ...],
        solver_args: Mapping[str, Any] | None,
        warm_start: WarmStart,
    ) -> LayerSolution:
        backend = configure(self.backend, solver_args) if solver_args else self.backend
        batch_shape = self.program.validate_params(params)
        dtype = result_type(params)
        if params and params[0].device.type == "meta":
            raise UnsupportedError(
                "The parameters are meta tensors, which have no values to solve with; the outputs would have the "
                f"shapes {[tuple((*batch_shape, *shape)) for _, shape in self.program.returns]}."
            )
        if self._to_look_at and not torch._C._are_functorch_transforms_active():
            self._look_at_symmetry(params)
        if warm_start is False and not self._hooks and self.regularity == "ignore":
            conditions = self._usual_conditions(backend, on_failure)
        else:
            conditions = self.conditions(backend, self._start(warm_start, params, batch_shape), on_failure)
        try:
            data, cone = self.parametric(conditions, params)
        except SolveError as error:
            raise self._explained(error, params, batch_shape, dtype) from None
        if warm_start is True and not torch._C._are_functorch_transforms_active():
            self._previous = cone.detach()
        return self._outcome(params, data, cone, batch_shape, dtype, masked=on_failure == "keep" != self.on_failure)

    def _look_at_symmetry(self, params: tuple[Tensor, ...]) -> None:
        """Say once where a matrix is not symmetric as declared."""
        looked_at, self._to_look_at = self._to_look_at, ()
        for index in looked_at:
            value = params[index].detach()
            if not torch.allclose(value, value.mH, rtol=1e-4, atol=1e-6, equal_nan=True):
                warn_user(
                    f"parameter {index} ({self.program.layout.names[index]}) is declared symmetric or semidefinite, "
                    "and its tensor X is not symmetric: it is used as (X + X')/2. Pass a symmetric one to be clear "
                    "(cvxpylayers reads the upper triangle, CVXPY refuses it).",
                    ArgumentIgnoredWarning,
                )

    def _outcome(
        self,
        params: tuple[Tensor, ...],
        data: tuple[Tensor, ...],
        cone: ConeSolution,
        batch: torch.Size,
        dtype: torch.dtype,
        masked: bool,
    ) -> LayerSolution:
        """What a user sees of a cone solution; `masked` items without a solution have variables of NaN."""
        read = _without_failures(cone) if masked else cone
        variables = self.program.recover(read.x, read.y, read.s, params)
        depth = cone.gap.dim() if self.program.returned is None else len(batch)
        return LayerSolution(
            tuple(_finish(v, batch, depth, dtype) for v in variables),
            cone,
            functools.partial(_examine, self.program, data, cone, batch),
            functools.partial(_evaluate, self.parametric, params, _versions(self.program, params), data, batch, dtype),
        )

    def _explained(
        self, error: SolveError, params: tuple[Tensor, ...], batch: torch.Size, dtype: torch.dtype
    ) -> SolveError:
        """The error in words of the problem; as it is inside of transforms, where values cannot be looked at."""
        if torch._C._are_functorch_transforms_active() or not isinstance(error.solution, ConeSolution):
            return error
        params = tuple(value.detach() for value in params)
        program = self.program.values(*params)
        cone = error.solution.detach().reshape(program.batch_shape)
        solution = self._outcome(params, (program.P, program.q, program.A, program.b), cone, batch, dtype, masked=True)
        failed = torch.nonzero(_expanded(~cone.has_solution, batch)).tolist()
        indices = tuple(tuple(place) if len(batch) > 1 else place[0] for place in failed if place)
        message = explain_failures(self.program, params, cone, batch)
        return SolveError(message, status=solution.status, indices=indices, solution=solution)

    def conditions(
        self,
        backend: Backend | None = None,
        warm_start: ConeSolution | None = None,
        on_failure: OnFailure | None = None,
    ) -> ConicConditions:
        """The optimality conditions that this layer solves and differentiates, as an equation."""
        watched = self.regularity != "ignore" or self._hooks
        return ConicConditions(
            self.program.structure,
            backend or self.backend,
            self.derivative,
            on_failure or self.on_failure,
            warm_start,
            self._inspect if watched else None,
            self.parametric.direction,
        )

    def _usual_conditions(self, backend: Backend, on_failure: OnFailure) -> ConicConditions:
        """Those of a call without start and observers; the latest ones are kept: they depend on nothing else."""
        known = self._usual
        same = known is not None and known.backend is backend and known.mode is self.derivative
        if known is None or not same or known.on_failure != on_failure:
            known = self._usual = self.conditions(backend, None, on_failure)
        return known

    def register_solution_hook(self, hook: SolutionHook) -> RemovableHandle:
        """Call hook(cone_program, cone_solution) after every solve, without autograd; the handle has `remove()`."""
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle

    def _inspect(self, program: ConeProgram, solution: ConeSolution) -> None:
        if self.regularity != "ignore":
            enforce(self.regularity, functools.partial(Labels.of_problem, self.program), program, solution)
        for hook in list(self._hooks.values()):
            hook(program, solution)

    def _start(self, warm_start: WarmStart, params: Sequence[Tensor], batch: torch.Size) -> ConeSolution | None:
        if isinstance(warm_start, LayerSolution):
            return warm_start.cone
        if isinstance(warm_start, ConeSolution):
            return warm_start
        if isinstance(warm_start, Mapping):
            return point_from_guess(self.program, warm_start, params, batch)
        if not isinstance(warm_start, bool):
            raise InvalidArgument(
                f"warm_start must be a previous solution, a dictionary of values of variables by name, True or False, "
                f"got {warm_start!r}."
            )
        previous = self._previous if warm_start else None
        return previous if previous is not None and previous.status_code.numel() in (1, batch.numel()) else None

    def extra_repr(self) -> str:
        """Parameters, outputs, size of the cone programme and settings, for `print(layer)`."""
        layout, s = self.program.layout, self.program.structure
        given = ", ".join(f"{name}{shape}" for name, shape in zip(layout.names, layout.shapes, strict=True))
        lines = [
            f"{given or 'no parameters'} -> {', '.join(f'{name}{shape}' for name, shape in self.program.returns)}",
            f"n={s.n}, m={s.m}, {_counted([type(cone).__name__ for cone in s.cone.cones])}",
            f"backend={getattr(self.backend, 'name', type(self.backend).__name__)}, derivative={self.derivative}, "
            f"on_failure={self.on_failure!r}",
        ]
        return "\n".join(lines)


def _finish(variable: Tensor, batch_shape: torch.Size, batch_dims: int, dtype: torch.dtype) -> Tensor:
    """A variable with all batch axes of the parameters, in the type of the results."""
    if batch_dims != len(batch_shape) or variable.shape[:batch_dims] != batch_shape:
        variable = variable.expand((*batch_shape, *variable.shape[batch_dims:]))
    return variable.to(dtype.to_complex() if variable.is_complex() else dtype)


def _examine(
    parametric: ParametricProgram, data: tuple[Tensor, ...], cone: ConeSolution, batch: torch.Size, radius: float
) -> RegularityReport:
    """The report of `LayerSolution.regularity`."""
    return examine_problem(parametric, ConeProgram(parametric.structure, *data).detach(), cone, batch, radius)


def _versions(parametric: ParametricProgram, params: Sequence[Tensor]) -> list[int]:
    """Versions of the parameters that enter the constant of the objective: `value` reads them again later."""
    blocks = parametric.objective.constant.blocks
    if not blocks:
        return _NO_VERSIONS
    entering = [params[block.parameter] for block in blocks]
    return [0 if value.is_inference() else value._version for value in entering]


def _evaluate(
    parametric: ParametricSolution,
    params: Sequence[Tensor],
    versions: list[int],
    data: tuple[Tensor, ...],
    batch: torch.Size,
    dtype: torch.dtype,
    cone: ConeSolution,
) -> Tensor:
    """`LayerSolution.value`."""
    if versions != _versions(parametric.program, params):
        raise InvalidArgument(
            "A parameter was changed in place after the solve, and the objective has a term of parameters alone: read "
            "solution.value before the change (before optimizer.step())."
        )
    return optimal_value(parametric, params, data, cone, batch, dtype)


def _without_failures(cone: ConeSolution) -> ConeSolution:
    """NaN in the points of items without a solution."""
    if not torch._C._are_functorch_transforms_active() and not bool((cone.status_code > _INACCURATE).any()):
        return cone
    solved = cone.has_solution[..., None]
    points = {name: torch.where(solved, getattr(cone, name), torch.nan) for name in ("x", "y", "s")}
    return dataclasses.replace(cone, **points)


def _expanded(mask: Tensor, batch: torch.Size) -> Tensor:
    """A mask with all batch axes of the parameters."""
    return mask.reshape((*(1,) * (len(batch) - mask.dim()), *mask.shape)).expand(batch)


def _counted(names: Sequence[str]) -> str:
    """Kinds of cones with their numbers."""
    return ", ".join(f"{count} {name}" for name, count in Counter(names).items()) or "no constraints"

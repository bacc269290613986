"""`fixed_point` and `FixedPointLayer`: z = f(z, theta) as a differentiable operation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from conelayers.fixed_points.iterations import Anderson, FixedPointResult, FixedPointSolver, FixedPointStatus
from conelayers.fixed_points.layout import Arguments, Layout
from conelayers.fixed_points.maps import FlatMap
from conelayers.fixed_points.modes import ImplicitAdjoint, Unrolled
from conelayers.fixed_points.solve import differentiable_fixed_point
from conelayers.implicit.mode import Derivative
from conelayers.layers._compile import outside_graphs
from conelayers.layers._inputs import check_callable, check_derivative, check_solver
from conelayers.settings import check_count

__all__ = ["FixedPointLayer", "fixed_point"]

_ANDERSON = Anderson()
_IMPLICIT = ImplicitAdjoint()


@outside_graphs
def fixed_point(
    f: Callable[..., Any],
    z0: Any,
    *params: Any,
    solver: FixedPointSolver = _ANDERSON,
    adjoint: Derivative = _IMPLICIT,
    return_info: bool = False,
    batch_dims: int | None = None,
) -> Any:
    """Solve z = f(z, *params) and differentiate the solution implicitly.

    Differentiated are the tensors in `params` and every tensor that f uses without receiving it: parameters of modules,
    closed-over tensors, attributes, globals. The derivative with respect to `z0` is zero. Reverse mode, forward mode,
    their compositions and `torch.func` transforms (`vmap`, `jacrev`, `jacfwd`, `hessian`) all work. Where gradients are
    recorded, one evaluation of f at the solution is kept for the backward pass, whatever the number of iterations; f is
    not called again. Inside transforms and forward mode, derivatives call f again, with the parameters and the closure
    that it had, and tensors that f hands only to a custom `torch.autograd.Function` or a script must be in `params`.

    Args:
        f: Map from a nest of tensors to a nest of the same structure, shapes and dtype. Items of the batch must not
            depend on each other.
        z0: Start: a tensor or a nest (tuples, lists, dicts) of floating-point tensors.
        *params: Further arguments of f; nests of tensors and anything else.
        solver: How to iterate: `Anderson()`, `Picard()`, `Broyden()`, `NewtonKrylov()`, ...; it carries `atol`, `rtol`
            and `max_steps`.
        adjoint: How to differentiate: `ImplicitAdjoint()`, `OneStep()`, `PhantomGradient(k, tau)`, `Piggyback()`,
            `Unrolled(k)`, or `Exact()` and `LeastSquares()`.
        return_info: Also return a `FixedPointResult`.
        batch_dims: Number of leading axes of every tensor in z0 that count independent items, each with its own
            convergence. None means 1 if all have two or more axes and the same first size, else 0.

    Returns:
        z, of the structure of `z0`; with `return_info` the pair (z, result).

    Raises:
        InvalidArgument: If f does not map z0 to its own structure, shapes, dtype and device, or a setting is none.
        Exception: What f raises, with a note of the shapes and dtypes it was given.
        UnsupportedError: Inside transforms and forward mode, if f uses a tensor out of sight, or has changed when its
            derivative is asked for. `Piggyback` calls f again, and raises if it has changed.

    Warns:
        InaccurateWarning: If an item has not converged, or a derivative's linear solve has not.
    """
    _check_settings(f, solver, adjoint, batch_dims)
    layout = Layout.of(z0, batch_dims)
    arguments = Arguments(params)
    flat0 = layout.flatten(z0)

    flat_map = FlatMap(f, layout, arguments)
    if isinstance(adjoint, Unrolled):
        z = adjoint.iterate(lambda z: flat_map(z, *arguments.tensors), flat0)
        result = _measure_unrolled(flat_map, arguments.tensors, z, adjoint.k, solver) if return_info else None
    else:
        z, result = differentiable_fixed_point(flat_map, flat0, solver, adjoint)
    value = layout.unflatten(z)
    return (value, dataclasses.replace(result, value=value)) if result is not None and return_info else value


class FixedPointLayer(nn.Module):
    """The fixed point of a module: forward(z0, *inputs) returns z with z = module(z, *inputs).

    Args:
        module: The map; its parameters are this layer's.
        solver: As in `fixed_point`.
        adjoint: As in `fixed_point`.
        batch_dims: As in `fixed_point`.
    """

    def __init__(
        self,
        module: nn.Module,
        solver: FixedPointSolver = _ANDERSON,
        adjoint: Derivative = _IMPLICIT,
        batch_dims: int | None = None,
    ) -> None:
        super().__init__()
        _check_settings(module, solver, adjoint, batch_dims)
        self.module, self.solver, self.adjoint, self.batch_dims = module, solver, adjoint, batch_dims

    def forward(self, z0: Any, *inputs: Any, return_info: bool = False) -> Any:
        """Solve from `z0`; see `fixed_point`."""
        return fixed_point(
            self.module,
            z0,
            *inputs,
            solver=self.solver,
            adjoint=self.adjoint,
            return_info=return_info,
            batch_dims=self.batch_dims,
        )

    def extra_repr(self) -> str:
        """Solver and derivative mode."""
        return f"solver={self.solver}, adjoint={self.adjoint}"


def _check_settings(f: Any, solver: Any, adjoint: Any, batch_dims: Any) -> None:
    """Reject what would fail later, in a place that does not know the argument's name."""
    check_callable("f", f)
    check_solver(solver)
    check_derivative(adjoint)
    if batch_dims is not None:
        check_count("batch_dims", batch_dims, 0)


def _measure_unrolled(f, theta, z: Tensor, steps: int, solver: FixedPointSolver) -> FixedPointResult:
    with torch.no_grad():
        fz = f(z, *theta)
        residual = torch.linalg.vector_norm(fz - z, dim=-1)
        met = residual <= solver.atol + solver.rtol * torch.linalg.vector_norm(fz, dim=-1)
        status = torch.where(met, int(FixedPointStatus.CONVERGED), int(FixedPointStatus.MAX_STEPS)).to(torch.int8)
        iterations = torch.full_like(status, steps, dtype=torch.int32)
    return FixedPointResult(None, iterations, residual, status)

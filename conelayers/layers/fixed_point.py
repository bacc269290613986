"""`fixed_point` and `FixedPointLayer`: z = f(z, theta) as a differentiable operation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.closure import ClosedFunction, capture
from conelayers.fixed_points.equation import FixedPointEquation
from conelayers.fixed_points.iterations import (
    Anderson,
    FixedPointResult,
    FixedPointSolver,
    FixedPointStatus,
    MonotoneSplitting,
)
from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.fixed_points.modes.unrolled import Unrolled
from conelayers.fixed_points.resolvent import AdjointInfo
from conelayers.implicit.function import implicit
from conelayers.implicit.mode import Derivative
from conelayers.implicit.products import transforming
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
    closed-over tensors, attributes, globals (whatever reaches a torch function inside f; what f hands only to a custom
    `torch.autograd.Function` must be passed in `params`). The derivative with respect to `z0` is zero. Reverse mode,
    forward mode, their compositions and `torch.func` transforms (`vmap`, `jacrev`, `jacfwd`, `hessian`) all work,
    and the memory does not grow with the number of iterations.

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

    Warns:
        InaccurateWarning: If an item has not converged, or a derivative's linear solve has not.
    """
    _check_settings(f, solver, adjoint, batch_dims)
    layout = _Layout.of(z0, batch_dims)
    arguments = _Arguments(params)
    flat0 = layout.flatten(z0)

    flat_map = _FlatMap(f, layout, arguments)
    if isinstance(adjoint, Unrolled):
        z = adjoint.iterate(lambda z: flat_map(z, *arguments.tensors), flat0)
        result = _measure_unrolled(flat_map, arguments.tensors, z, adjoint.k, solver) if return_info else None
    else:
        with torch.no_grad():
            start = flat0.view_as(flat0)
            own = [t.view_as(t) for t in arguments.tensors]
        fz0, captured = _first_value(flat_map, start, own)
        info = AdjointInfo()
        equation = FixedPointEquation(
            ClosedFunction(flat_map, captured), solver, adjoint, None if transforming() else fz0, info
        )
        # view_as is a torch function: an enclosing capture or substitution sees these tensors here, which it would not
        # inside an autograd function.
        inputs = [t.view_as(t) for t in (*arguments.tensors, *captured)]
        z, iterations, residual, status, trace = implicit(equation, flat0.detach(), *inputs)
        result = FixedPointResult(None, iterations, residual, status, trace.movedim(-1, 0), info)
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


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a nest of tensors of shapes (*batch, *event_i) lies in one tensor of shape (*batch, n)."""

    spec: TreeSpec
    batch: torch.Size
    events: tuple[torch.Size, ...]
    dtype: torch.dtype
    device: torch.device

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", self.batch + self.events[0])
        object.__setattr__(self, "flat_shape", (*self.batch, sum(math.prod(e) for e in self.events)))

    shape: torch.Size = dataclasses.field(init=False)  # of the first tensor
    flat_shape: tuple[int, ...] = dataclasses.field(init=False)

    @classmethod
    def of(cls, z0: Any, batch_dims: int | None) -> _Layout:
        leaves, spec = tree_flatten(z0)
        if not leaves or not all(isinstance(x, Tensor) and x.is_floating_point() for x in leaves):
            raise InvalidArgument("z0 must be a floating-point tensor or a nest of such tensors.")
        if len({(x.dtype, x.device) for x in leaves}) > 1:
            raise InvalidArgument("the tensors of z0 must share one dtype and one device.")
        if batch_dims is None:
            sizes = {x.shape[0] if x.dim() >= 2 else None for x in leaves}
            batch_dims = 1 if len(sizes) == 1 and None not in sizes else 0
        if batch_dims < 0 or any(x.dim() < batch_dims for x in leaves):
            raise InvalidArgument(f"batch_dims={batch_dims}, but z0 has tensors with fewer axes (or it is negative).")
        batch = leaves[0].shape[:batch_dims]
        if any(x.shape[:batch_dims] != batch for x in leaves):
            raise InvalidArgument("the tensors of z0 must agree in their batch axes; pass batch_dims=.")
        events = tuple(x.shape[batch_dims:] for x in leaves)
        return cls(spec, batch, events, leaves[0].dtype, leaves[0].device)

    def flatten(self, z: Any, of: str = "z0") -> Tensor:
        if self.spec.is_leaf() and isinstance(z, Tensor) and z.shape == self.shape and z.dtype == self.dtype:
            return z.reshape(self.flat_shape)
        leaves, spec = tree_flatten(z)
        expected = tuple(self.batch + event for event in self.events)
        if spec != self.spec or tuple(getattr(x, "shape", None) for x in leaves) != expected:
            shapes = [tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in leaves]
            raise InvalidArgument(
                f"{of} must have the structure and shapes of z0, {[tuple(s) for s in expected]}; it has {shapes}."
            )
        if any(x.dtype != self.dtype or x.device != self.device for x in leaves):
            raise InvalidArgument(
                f"{of} must have the dtype and device of z0, {self.dtype} on {self.device}; "
                "convert z0 or the parameters."
            )
        flat = [x.flatten(len(self.batch)) if x.dim() > len(self.batch) else x[..., None] for x in leaves]
        return flat[0] if len(flat) == 1 else torch.cat(flat, dim=-1)

    def unflatten(self, flat: Tensor) -> Any:
        if self.spec.is_leaf():
            return flat.reshape(self.shape)
        parts = flat.split([math.prod(e) for e in self.events], dim=-1) if len(self.events) > 1 else (flat,)
        leaves = [p.reshape(self.batch + e) for p, e in zip(parts, self.events, strict=True)]
        return tree_unflatten(leaves, self.spec)


class _Arguments:
    """The tensors among the parameters of f, and how to put others in their place."""

    def __init__(self, params: tuple[Any, ...]) -> None:
        self.leaves, self.spec = tree_flatten(params)
        self.places = [i for i, x in enumerate(self.leaves) if isinstance(x, Tensor)]

    @property
    def tensors(self) -> list[Tensor]:
        return [self.leaves[i] for i in self.places]

    def fill(self, theta: tuple[Tensor, ...]) -> tuple[Any, ...]:
        leaves = list(self.leaves)
        for i, t in zip(self.places, theta, strict=True):
            leaves[i] = t
        return tree_unflatten(leaves, self.spec)


class _FlatMap:
    """f on flat tensors, its parameters given as the list of their tensors."""

    def __init__(self, f: Callable[..., Any], layout: _Layout, arguments: _Arguments) -> None:
        self.f, self.layout, self.arguments = f, layout, arguments

    def __call__(self, z: Tensor, *theta: Tensor) -> Tensor:
        value = self.f(self.layout.unflatten(z), *self.arguments.fill(theta))
        return self.layout.flatten(value, of="f(z)")

    def bind(self, theta: tuple[Tensor, ...]) -> _BoundMap:
        return _BoundMap(self, self.arguments.fill(theta))


class _BoundMap:
    """A `_FlatMap` at fixed parameters, with its two parts where it is a splitting."""

    def __init__(self, flat: _FlatMap, params: tuple[Any, ...]) -> None:
        self.f, self.layout, self.params = flat.f, flat.layout, params
        if isinstance(flat.f, MonotoneSplitting):
            self.splitting = _FlatSplitting(flat.f, flat.layout, params)

    def __call__(self, z: Tensor) -> Tensor:
        return self.layout.flatten(self.f(self.layout.unflatten(z), *self.params), of="f(z)")


class _FlatSplitting:
    """A `MonotoneSplitting` at fixed parameters on matrices of shape (items, n)."""

    def __init__(self, f: MonotoneSplitting, layout: _Layout, params: tuple[Any, ...]) -> None:
        self.f, self.layout, self.params = f, layout, params

    def operator(self, z: Tensor) -> Tensor:
        return self._flat(self.f.operator(self._nest(z), *self.params), z)

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return self._flat(self.f.prox(self._nest(v), alpha), v)

    def factor(self, alpha: float) -> Any:
        return self.f.factor(alpha, *self.params)

    def resolve(self, v: Tensor, alpha: float, factor: Any) -> Tensor:
        return self._flat(self.f.resolve(self._nest(v), alpha, factor, *self.params), v)

    def resolvent(self, alpha: float) -> Callable[[Tensor], Tensor]:
        factor = self.factor(alpha)
        return lambda v: self.resolve(v, alpha, factor)

    def _nest(self, flat: Tensor) -> Any:
        return self.layout.unflatten(flat.reshape(self.layout.flat_shape))

    def _flat(self, nest: Any, like: Tensor) -> Tensor:
        return self.layout.flatten(nest, of="a part of f").reshape(like.shape)


def _first_value(flat_map: _FlatMap, start: Tensor, own: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """f(z0) and the tensors that f captures.

    What f raises is its caller's: it keeps its class and place, and a note says what f was given.
    """
    try:
        return capture(flat_map, start, *own)
    except Exception as error:
        layout = flat_map.layout
        shapes = [tuple(layout.batch + event) for event in layout.events]
        others = [(tuple(t.shape), t.dtype) for t in own]
        error.add_note(
            f"Raised by f when first evaluated, at z0 of shapes {shapes} and {layout.dtype}, params {others}. "
            "If f computes with other shapes or dtypes, give it z0 and params of those."
        )
        raise


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

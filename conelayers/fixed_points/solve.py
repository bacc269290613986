"""A fixed point with its derivative: by a recorded evaluation, or by equations that torch's transforms can see."""

from __future__ import annotations

import dataclasses

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from conelayers.fixed_points.closure import ClosedFunction, Frozen, capture
from conelayers.fixed_points.equation import FixedPointEquation, iterate
from conelayers.fixed_points.iterations import FixedPointResult, FixedPointSolver, Map, MonotoneSplitting
from conelayers.fixed_points.maps import FlatMap
from conelayers.fixed_points.record import Record
from conelayers.fixed_points.recorded import RecordedFixedPoint
from conelayers.fixed_points.resolvent import AdjointInfo
from conelayers.implicit.function import implicit
from conelayers.implicit.mode import Derivative
from conelayers.implicit.products import transforming

__all__ = ["differentiable_fixed_point"]


def differentiable_fixed_point(
    f: FlatMap, z0: Tensor, solver: FixedPointSolver, derivative: Derivative
) -> tuple[Tensor, FixedPointResult]:
    """The fixed point from z0, shape (*batch, n), connected to everything that f uses; and what was measured.

    Args:
        f: The map with its parameters.
        z0: Start, a constant.
        solver: How to iterate.
        derivative: How to differentiate.
    """
    if transforming() or forward_ad._current_level >= 0:
        return _by_equation(f, z0, solver, derivative)
    return _by_record(f.bind(f.arguments.tensors), z0.detach(), solver, derivative)


def _by_record(f: Map, z0: Tensor, solver: FixedPointSolver, derivative: Derivative) -> tuple[Tensor, FixedPointResult]:
    """Iterate without derivatives, then record f once at the solution; see `recorded`.

    f is first called in the caller's own mode: what it caches then (weights of `parametrize.cached`, autocast's copies)
    has its graph, and whether there is anything to differentiate is seen from the value.
    """
    fz0 = f(z0)
    records = torch.is_grad_enabled() and fz0.requires_grad
    with torch.no_grad():
        value, result = iterate(solver, f, z0, fz0.detach())
        if value.untyped_storage().data_ptr() == z0.untyped_storage().data_ptr():
            value = value.clone()  # no step was taken: the caller's start must not become the result
    result = dataclasses.replace(result, adjoint=AdjointInfo())
    if not records:
        return value, result
    record = Record(f, value)
    (z,) = implicit(RecordedFixedPoint(record, value, derivative, result.adjoint), record.value, *record.used)
    return z, result


def _by_equation(
    f: FlatMap, z0: Tensor, solver: FixedPointSolver, derivative: Derivative
) -> tuple[Tensor, FixedPointResult]:
    """Make every tensor that carries derivatives an argument of an equation; see `closure`."""
    if not isinstance(f.f, MonotoneSplitting):
        f = FlatMap(Frozen(f.f), f.layout, f.arguments)
    tensors = f.arguments.tensors
    with torch.no_grad():
        start, own = z0.view_as(z0), [t.view_as(t) for t in tensors]
    fz0, captured = capture(f, start, *own)
    info = AdjointInfo()
    closed = ClosedFunction(f, captured)
    equation = FixedPointEquation(closed, solver, derivative, None if transforming() else fz0, info)
    # view_as is a torch function: an enclosing capture or substitution sees these tensors here, which it would not
    # inside an autograd function.
    inputs = [t.view_as(t) for t in (*tensors, *captured)]
    z, iterations, residual, status, trace = implicit(equation, z0.detach(), *inputs)
    return z, FixedPointResult(None, iterations, residual, status, trace.movedim(-1, 0), info)

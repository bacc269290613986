"""Fixed points as equations: F(z, theta) = z - f(z, theta) = 0.

At a fixed point z* the implicit function theorem reads dz = (I - J)^-1 (df/dtheta) dtheta with J = df/dz at z*, and in
reverse mode the cotangent g of z* gives u = (I - J')^-1 g, then (df/dtheta)'u. Where f is not differentiable, J is the
element of its Clarke Jacobian that autograd's formulas name (for relu: 0 at 0), and the result is an element of a
conservative Jacobian wherever I - J is invertible for every element (Bolte, Le, Pauwels & Silveti-Falls 2021,
Theorem 2).

Two equations state all of it. `FixedPointEquation` is the problem; `ResolventEquation` is its linearisation, an
equation in its own right, so derivatives of every order are linear solves with I - J and its transpose.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.errors import InaccurateWarning, UnsupportedError
from conelayers.fixed_points.iterations import FixedPointResult, FixedPointSolver, Map
from conelayers.fixed_points.mapped import Mapped
from conelayers.fixed_points.maps import Rows, parametric
from conelayers.fixed_points.resolvent import AdjointInfo, solve_resolvent
from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.function import implicit
from conelayers.implicit.mode import Derivative
from conelayers.implicit.products import Tape, pullback, pushforward, recording
from conelayers.linalg.minimum_norm import MinimumNorm

__all__ = ["FixedPointEquation", "FixedPointLinearization", "ResolventEquation"]

Function = Callable[..., Tensor]


class FixedPointEquation(Equation):
    """z = f(z, *theta).

    Inputs are (z0, *theta); z0, of shape (*batch, n), is only the start and has the derivative zero. Outputs are
    (z, iterations, residual, status, trace), of shapes (*batch, n), (*batch,) thrice and (*batch, steps + 1).
    Parameters have any shapes: f itself says how they meet the batch, and under `vmap` it is f that is mapped.

    Args:
        f: The map, (z, *theta) -> tensor of the shape of z; items of the batch are independent.
        solver: Finds the fixed point.
        derivative: How the linearised equation is solved.
        fz0: f(z0, *theta), where the caller knows it.
        info: Where backward solves write what they measure.
    """

    nondifferentiable = frozenset({1, 2, 3, 4})

    def __init__(
        self,
        f: Function,
        solver: FixedPointSolver,
        derivative: Derivative,
        fz0: Tensor | None = None,
        info: AdjointInfo | None = None,
    ) -> None:
        self.f, self.solver, self.derivative = parametric(f), solver, derivative
        self.fz0, self.info = fz0, info

    @property
    def event_dims(self) -> Sequence[int]:
        """Not used: `align` maps f instead of aligning batch axes."""
        raise UnsupportedError("the parameters of a fixed-point equation have no fixed number of event axes")

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Iterate to the fixed point."""
        z0, *theta = inputs
        fz0 = None if self.fz0 is None else self.fz0.detach()
        value, result = iterate(self.solver, self.f.bind(theta), z0.detach(), fz0)
        _require_plain(value, z0)
        if value.untyped_storage().data_ptr() == z0.untyped_storage().data_ptr():
            value = value.clone()  # an autograd function must not return its input as an output
        trace = result.trace.movedim(0, -1) if result.trace is not None else result.residual[..., None]
        return value, result.iterations, result.residual, result.status, trace

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """(df/dtheta)' (I - J')^-1 g."""
        linearization = self._linearize(inputs, outputs, True, needed[1:])
        u = self.derivative.solve(linearization, zeros_for_none(cotangents, outputs)[0])
        return torch.zeros_like(inputs[0]) if needed[0] else None, *linearization.pullback_theta(u)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """(I - J)^-1 (df/dtheta) dtheta."""
        linearization = self._linearize(inputs, outputs, False, (False,) * (len(inputs) - 1))
        z = outputs[0]
        rhs = pushforward(lambda *theta: self.f(z, *theta), inputs[1:], tangents[1:], z)
        return self.derivative.solve(linearization, rhs), None, None, None, None

    def padding(self, in_dims, inputs, aligned, outputs) -> Sequence[int]:
        """None: `align` puts the new axis first and nothing behind it."""
        return (0,) * outputs

    def align(self, in_dims, inputs) -> tuple[Equation, tuple[Tensor, ...]]:
        """Map f over the new axis and put it first among the batch axes of z."""
        z0 = inputs[0]
        size = next(x.shape[d] for x, d in zip(inputs, in_dims, strict=True) if d is not None)
        z0 = z0.expand(size, *z0.shape) if in_dims[0] is None else z0.movedim(in_dims[0], 0)
        mapped = FixedPointEquation(Mapped(self.f, in_dims[1:], size), self.solver, self.derivative, None, self.info)
        return mapped, (z0, *inputs[1:])

    def _linearize(self, inputs, outputs, transposed, needed) -> FixedPointLinearization:
        return FixedPointLinearization(self.f, outputs[0], outputs[2], inputs[1:], transposed, needed, self.info)


class FixedPointLinearization:
    """I - J (or I - J') at a fixed point, as derivative modes see it.

    Where nobody records derivatives, one `Tape` serves all products; otherwise products are recorded afresh and linear
    solves go through `ResolventEquation`.
    """

    def __init__(self, f, z, residual, theta, transposed, needed, info=None) -> None:
        self.f, self.z, self.residual, self.theta = f, z, residual, theta
        self.transposed, self.needed, self.info = transposed, needed, info
        self.tape = None if recording() else Tape(f, z, theta, needed)
        if self.tape is not None:
            _require_same_point(self.tape, residual)

    def product(self, t: Tensor) -> Tensor:
        """J t, or J't for the transposed linearization; shape (*batch, n)."""
        if self.tape is not None:
            return self.tape.transposed_product(t) if self.transposed else self.tape.product(t)
        return jacobian_product(self.f, self.transposed, t, self.z, *self.theta)

    def pullback_theta(self, u: Tensor) -> tuple[Tensor | None, ...]:
        """(df/dtheta)'u for the needed parameters."""
        if self.tape is not None:
            return self.tape.pullback_theta(u)
        return pullback(lambda *theta: self.f(self.z, *theta), self.theta, u, self.needed)

    def solve(self, rhs: Tensor) -> Tensor:
        """(I - J)^-1 rhs by GMRES."""
        return self.solve_with(None, rhs)

    def solve_with(self, solver: Any, rhs: Tensor, initial: Tensor | None = None, certify: bool = False) -> Tensor:
        """(I - J)^-1 rhs by a solver of `conelayers.linalg` or `conelayers.fixed_points.iterations`; None for GMRES."""
        if self.tape is not None:
            return solve_resolvent(self.tape, self.transposed, solver, rhs, initial, self.info, certify)
        equation = ResolventEquation(self.f, self.transposed, solver, self.info, certify, initial)
        return implicit(equation, rhs, self.residual, self.z, *self.theta)[0]

    def solve_least_squares(self, rhs: Tensor, rtol: float) -> Tensor:
        """The minimum-norm least-squares solution, by dense decomposition."""
        return self.solve_with(MinimumNorm(rank_tolerance=rtol), rhs)

    def smooth(self, mu: float) -> FixedPointLinearization:
        """Not available: a general f has no smoothing.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError("Smoothed() needs a cone programme; smooth f itself, or use ImplicitAdjoint().")


class ResolventEquation(Equation):
    """(I - J) t = rhs, or (I - J') t = rhs, with J = df/dz at (z, theta).

    Inputs are (rhs, residual, z, *theta), the output is (t,). With T either transposition, dt = (I - J^T)^-1 (d rhs +
    d(J^T) t): the pullback solves with the other transposition and pulls its result back through the product (z, theta)
    -> J^T t. `residual` is ||f(z) - z|| as it was measured when z was found, shape (*batch,): f, which is evaluated
    again here, must still have it.
    """

    def __init__(self, f, transposed, solver, info=None, certify=False, initial=None) -> None:
        self.f, self.transposed, self.solver = parametric(f), transposed, solver
        self.info, self.certify, self.initial = info, certify, initial

    @property
    def event_dims(self) -> Sequence[int]:
        """Not used: `align` maps f instead of aligning batch axes."""
        raise UnsupportedError("the parameters of a fixed-point equation have no fixed number of event axes")

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One linear solve on one tape."""
        rhs, residual, z, *theta = inputs
        tape = Tape(self.f, z, theta)
        _require_same_point(tape, residual)
        return (solve_resolvent(tape, self.transposed, self.solver, rhs, self.initial, self.info, self.certify),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The opposite solve, then the pullback of the product."""
        _, residual, *point = inputs
        opposite = ResolventEquation(self.f, not self.transposed, self.solver)
        (s,) = implicit(opposite, *zeros_for_none(cotangents, outputs), residual, *point)
        return s, None, *pullback(self._product_at(outputs[0]), point, s, needed[2:])

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The same solve with the tangent of the right-hand side and of the product."""
        _, residual, *point = inputs
        moved = pushforward(self._product_at(outputs[0]), point, tangents[2:], outputs[0])
        rhs = moved if tangents[0] is None else moved + tangents[0]
        return implicit(ResolventEquation(self.f, self.transposed, self.solver), rhs, residual, *point)

    def padding(self, in_dims, inputs, aligned, outputs) -> Sequence[int]:
        """None: `align` puts the new axis first and nothing behind it."""
        return (0,) * outputs

    def align(self, in_dims, inputs) -> tuple[Equation, tuple[Tensor, ...]]:
        """Map f over the new axis and put it first among the batch axes of rhs and z."""
        size = next(x.shape[d] for x, d in zip(inputs, in_dims, strict=True) if d is not None)
        own = (
            x.expand(size, *x.shape) if d is None else x.movedim(d, 0)
            for x, d in zip(inputs[:3], in_dims[:3], strict=True)
        )
        f = Mapped(self.f, in_dims[3:], size)
        return ResolventEquation(f, self.transposed, self.solver, self.info), (*own, *inputs[3:])

    def _product_at(self, t: Tensor) -> Function:
        return lambda *point: jacobian_product(self.f, self.transposed, t, *point)


def jacobian_product(f: Function, transposed: bool, t: Tensor, z: Tensor, *theta: Tensor) -> Tensor:
    """J t or J't with J = df/dz at (z, theta), differentiable in everything."""

    def at(point: Tensor) -> Tensor:
        return f(point, *theta)

    if transposed:
        (product,) = pullback(at, (z,), t)
        assert product is not None
        return product
    return pushforward(at, (z,), (t,), t)


def iterate(solver: FixedPointSolver, f: Map, z0: Tensor, fz0: Tensor | None = None) -> tuple[Tensor, FixedPointResult]:
    """The fixed point of f from z0, shape (*batch, n), and its result with batch axes.

    Args:
        solver: How to iterate.
        f: The map.
        z0: Start.
        fz0: f(z0), where the caller knows it.

    Warns:
        InaccurateWarning: An item has not converged.
    """
    batch = z0.shape[:-1]
    flat = z0.reshape(batch.numel(), z0.shape[-1])
    result = solver.run(Rows(f, z0.shape), flat, None if fz0 is None else fz0.reshape(flat.shape), trace=True)
    _warn(result)
    value = result.value.reshape(z0.shape)
    iterations, residual, status = (v.reshape(batch) for v in (result.iterations, result.residual, result.status))
    trace = None if result.trace is None else result.trace.reshape(len(result.trace), *batch)
    return value, FixedPointResult(None, iterations, residual, status, trace)


def _require_plain(value: Tensor, start: Tensor) -> None:
    """Refuse a value that depends on a tensor of a transform that nobody saw.

    Raises:
        UnsupportedError: It does.
    """
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor  # pyright: ignore
    if wrapped(value) and not wrapped(start):
        raise UnsupportedError(
            "inside torch.func transforms, f uses a differentiated or mapped tensor that does not reach a torch "
            "function in f itself (a custom autograd.Function, a script or a cache takes it): pass it in `params`."
        )


def _require_same_point(tape: Tape, residual: Tensor) -> None:
    """Refuse an f that no longer has the fixed point.

    Raises:
        UnsupportedError: Its residual is another now.
    """
    with torch.no_grad():
        value = tape.value.detach()
        now = torch.linalg.vector_norm(value - tape.z.detach(), dim=-1)
        rounding = tape.eps**0.75 * (1 + torch.linalg.vector_norm(value, dim=-1))
        if bool((now > 4 * residual + rounding).any()):
            raise UnsupportedError(
                "inside torch.func transforms and forward mode, derivatives call f again, and f has changed since the "
                f"fixed point was found (its residual there is {float(now.max()):.1e}): pass what changes in `params`."
            )


def _warn(result: Any) -> None:
    """Say so when an item has not converged."""
    failed = result.status != 0
    if bool(failed.any()):
        warnings.warn(
            f"{int(failed.sum())} of {failed.numel()} items did not reach a fixed point in "
            f"{int(result.iterations.max())} steps (largest residual {float(result.residual.max()):.1e}); raise the "
            "solver's max_steps, loosen its atol or rtol, or take another solver. return_info=True tells which items.",
            InaccurateWarning,
            stacklevel=2,
        )

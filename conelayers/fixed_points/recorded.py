"""The derivative of a fixed point from one recorded evaluation of f at the solution.

In reverse mode nothing need be known about f's parameters: with w = f(z*) recorded in the caller's graph at a stand-in
for z*, the solution is z* = z(w) with dz = (I - J)^-1 dw, and autograd carries the cotangent of w to whatever f used:
parameters, closed-over tensors, what only a script or a custom function sees. f is not called again, so it does not
matter what becomes of it, and what is changed in place meanwhile is found out as for any other graph.

For derivatives of higher order (`create_graph=True`) the sweep to f's parameters must know that its point is z*, which
a graph that leads through z*'s stand-in does not: the tensors that f was seen to use are inputs for this purpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.errors import UnsupportedError
from conelayers.fixed_points.record import Record
from conelayers.fixed_points.resolvent import AdjointInfo, solve_resolvent
from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.function import implicit
from conelayers.implicit.mode import Derivative
from conelayers.linalg.minimum_norm import MinimumNorm

__all__ = ["RecordedFixedPoint", "RecordedLinearization"]


class RecordedFixedPoint(Equation):
    """z(w) with dz = (I - J)^-1 dw at w = f(z); the output is z, inputs are w and the tensors that f was seen to use.

    Args:
        record: f at the solution.
        solution: z, without derivatives.
        derivative: How the linearised equation is solved.
        info: Where the adjoint solve writes what it measures.
    """

    def __init__(self, record: Record, solution: Tensor, derivative: Derivative, info: AdjointInfo) -> None:
        self.record, self.derivative, self.info = record, derivative, info
        self.solution: Tensor | None = solution

    @property
    def event_dims(self) -> Sequence[int]:
        """Not used: the equation is made outside of all transforms."""
        raise UnsupportedError("the parameters of a fixed-point equation have no fixed number of event axes")

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The solution, known before; given away, since a node must not hold its own output."""
        solution, self.solution = self.solution, None
        assert solution is not None
        return (solution,)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The cotangent u = (I - J')^-1 g of w, or, where somebody records, those of the tensors that f used."""
        lin = RecordedLinearization(self.record, outputs[0], True, self.info)
        u = self.derivative.solve(lin, *zeros_for_none(cotangents, outputs))
        if not torch.is_grad_enabled():
            return u, *(None for _ in inputs[1:])
        return None, *self.record.connected_pullback(u, outputs[0], needed[1:])

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Not available.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError("forward mode needs its level around the call of fixed_point.")


class RecordedLinearization:
    """I - J (or I - J') at a recorded fixed point, as derivative modes see it.

    Args:
        record: f at the solution.
        z: The solution with its graph.
        transposed: I - J'.
        info: Where the next solve writes what it measures.
    """

    def __init__(self, record: Record, z: Tensor, transposed: bool, info: AdjointInfo | None = None) -> None:
        self.record, self.z, self.transposed, self.info = record, z, transposed, info

    def product(self, t: Tensor) -> Tensor:
        """J t, or J't for the transposed linearization; shape (*batch, n)."""
        if torch.is_grad_enabled():
            return self.record.connected_product(self.transposed, t, self.z)
        return self.record.transposed_product(t) if self.transposed else self.record.product(t)

    def solve(self, rhs: Tensor) -> Tensor:
        """(I - J)^-1 rhs by the default solver."""
        return self.solve_with(None, rhs)

    def solve_with(self, solver: Any, rhs: Tensor, initial: Tensor | None = None, certify: bool = False) -> Tensor:
        """(I - J)^-1 rhs, differentiable where somebody records."""
        equation = _RecordedSolve(self, solver, initial, certify)
        return implicit(equation, rhs, *((self.z, *self.record.used) if torch.is_grad_enabled() else ()))[0]

    def solve_least_squares(self, rhs: Tensor, rtol: float) -> Tensor:
        """The minimum-norm least-squares solution, by dense decomposition."""
        return self.solve_with(MinimumNorm(rank_tolerance=rtol), rhs)

    def smooth(self, mu: float) -> RecordedLinearization:
        """Not available: a general f has no smoothing.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError("Smoothed() needs a cone programme; smooth f itself, or use ImplicitAdjoint().")


class _RecordedSolve(Equation):
    """(I - J^T) t = rhs with T either transposition; inputs (rhs,) or, for derivatives of it, (rhs, z, *used).

    dt = (I - J^T)^-1 (d rhs + d(J^T) t): the pullback solves with the other transposition and pulls its result back
    through the product.
    """

    def __init__(self, lin: RecordedLinearization, solver: Any, initial: Tensor | None = None, certify=False) -> None:
        self.lin, self.solver, self.initial, self.certify = lin, solver, initial, certify

    @property
    def event_dims(self) -> Sequence[int]:
        return (1,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        lin = self.lin
        rhs = inputs[0].detach()
        return (solve_resolvent(lin.record, lin.transposed, self.solver, rhs, self.initial, lin.info, self.certify),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        record, transposed = self.lin.record, self.lin.transposed
        z = inputs[1] if len(inputs) > 1 else self.lin.z
        (g,) = zeros_for_none(cotangents, outputs)
        s = RecordedLinearization(record, z, not transposed).solve_with(self.solver, g)
        if len(inputs) == 1:
            return (s,)
        return s, *record.product_pullback(transposed, outputs[0], z, s, needed[1:])

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        if any(t is not None for t in tangents[1:]):
            raise UnsupportedError("forward mode needs its level around the call of fixed_point.")
        (rhs,) = zeros_for_none(tangents[:1], outputs)
        same = RecordedLinearization(self.lin.record, self.lin.z, self.lin.transposed)
        return (same.solve_with(self.solver, rhs),)

    def align(self, in_dims: Sequence[int | None], inputs: Sequence[Tensor]) -> tuple[Equation, tuple[Tensor, ...]]:
        """Mapped right-hand sides are several right-hand sides of one system."""
        if len(inputs) > 1 or in_dims[0] is None:
            raise UnsupportedError(
                "mapped derivatives of higher order need the map around the call of fixed_point: torch.func.hessian."
            )
        return self, (inputs[0].movedim(in_dims[0], 0),)

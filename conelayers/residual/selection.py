"""Which multipliers and which element of the Clarke Jacobian stand for a solution that is not regular.

Where the multipliers are not unique, or rows are weakly active, the linearised conditions at the solver's point may have
no solution although x moves with the data: their Jacobian J(D) is singular, and the constraints that D holds active
cannot all stay so. For data a little further along a generic direction the multipliers y are (in all but special
directions) a vertex and the weakly active parts have decided, and J is that of the piece that such data lie on. As they
return, its derivative tends to an element of the Clarke Jacobian of the solution; where the solution is differentiable,
to the derivative. Kyparisis (1990) and Ralph & Dempe (1995) give the theory for directions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from conelayers.implicit import Equation, Exact, implicit
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status
from conelayers.program.products import A_times, A_transpose_times, P_times
from conelayers.residual.conic import ConicConditions
from conelayers.residual.direction import OUTSIDE, Direction
from conelayers.residual.folding import Folding
from conelayers.residual.linearization import linearize
from conelayers.residual.solve import polished, solve_and_polish

__all__ = ["selected", "weakly_active"]

_STEPS = (1e-5, 1e-3)
"""How far data are moved, relative to their size: the second where the first was too small for the solver to see."""
_CLOSER = 1e-3
"""What is left of the step for curved cones, whose D turns as the data return."""
_WEAK = 1e-6
"""Relative distance to a kink up to which a point is taken to lie on it."""
_JUMP = 1e-2
"""Relative change of x from which on nearby data have another solution, and not this one moved."""
_INACCURATE = int(Status.INACCURATE)


class Selected(Equation):
    """An equation of optimality conditions, differentiated at the multipliers and the element that `Selection` finds.

    Args:
        equation: What solves and differentiates the programmes.
        conditions: The conditions in it.
        direction: How the data may move.
    """

    nondifferentiable = ConicConditions.nondifferentiable

    def __init__(self, equation: Equation, conditions: ConicConditions, direction: Direction) -> None:
        self.equation = equation
        self.selection = Selection(conditions, direction)

    @property
    def event_dims(self) -> Sequence[int]:
        """Four vectors."""
        return self.equation.event_dims

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The equation's own solution."""
        return self.equation.solve(*inputs)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The equation's, elsewhere."""
        return self.equation.pullback(inputs, self._moved(inputs, outputs), cotangents, needed)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The equation's, elsewhere."""
        return self.equation.pushforward(inputs, self._moved(inputs, outputs), tangents)

    def _moved(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        y, s = implicit(self.selection, *inputs, *outputs[:4])
        return outputs[0], y, s, *outputs[3:]


@dataclasses.dataclass(frozen=True, eq=False)
class _Items:
    """Solved programmes, one batch axis: P, q, A, b of (1 or B, size), x, y, s of (B, size)."""

    structure: ConeStructure
    data: tuple[Tensor, ...]
    x: Tensor
    y: Tensor
    s: Tensor

    def take(self, items: Tensor) -> _Items:
        data = tuple(value if value.shape[0] == 1 else value[items] for value in self.data)
        return _Items(self.structure, data, self.x[items], self.y[items], self.s[items])

    def move(self, direction: Direction) -> _Motion:
        """(dx, dv) with J (dx, dv) = -dF for data that move along the direction."""
        structure, (P, _, A, _) = self.structure, self.data
        dP, dq, dA, db = direction.tensors(self.x)
        first = -(P_times(structure, dP, self.x) + dq + A_transpose_times(structure, dA, self.y))
        second = db - A_times(structure, dA, self.x)
        linearization = linearize(structure, P, A, self.y - self.s)
        dx, dv = (z[:, 0] for z in linearization.solve((first[:, None], second[:, None])))
        dy = linearization.project(dv[:, None])[:, 0]
        primal = first - P_times(structure, P, dx) - A_transpose_times(structure, A, dy)
        dual = second - A_times(structure, A, dx) - dy + dv
        size = torch.cat([first, second], -1).abs().amax(-1)
        size = torch.where(size > 0, size, 1.0)
        return _Motion(dx, dy, dv, _largest(primal) / size, _largest(dual) / size)


@dataclasses.dataclass(frozen=True, eq=False)
class _Motion:
    """The motion of x, y and v, and what it leaves of the two rows of the linearised conditions, relative, (B,)."""

    dx: Tensor
    dy: Tensor
    dv: Tensor
    primal: Tensor
    dual: Tensor

    @property
    def exists(self) -> Tensor:
        return (self.primal <= OUTSIDE) & (self.dual <= OUTSIDE)


class Selection(Equation):
    """(P, q, A, b, x, y, s, status code) to the y and s at which a solution is differentiated.

    They are the given ones wherever the linearised conditions have a solution for the direction, and where x itself is
    not unique: there the shortest solution stands for all. Derivatives pass as they come.

    Args:
        conditions: Patterns, cone, and what solves programmes.
        direction: How the data may move.
    """

    def __init__(self, conditions: ConicConditions, direction: Direction) -> None:
        self.direction = direction
        self.structure, self.backend = conditions.structure, conditions.backend

    @property
    def event_dims(self) -> Sequence[int]:
        """Seven vectors and a number."""
        return (1,) * 7 + (0,)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Find the items whose linearised conditions fail, and give them those of nearby data."""
        *vectors, code = inputs
        folding = Folding.of([*(value.shape[:-1] for value in vectors), code.shape], [])
        data = tuple(folding.fold_fixed(value) for value in vectors[:4])
        x, y, s = (folding.fold_fixed(value, always_batched=True) for value in vectors[4:])
        solved = folding.fold_fixed(code[..., None], always_batched=True)[:, 0] <= _INACCURATE
        if folding.items:
            x, y, s = (torch.where(solved[:, None], value, 0.0) for value in (x, y, s))
            y, s = self._select(_Items(self.structure, data, x, y, s), solved)
        return folding.unfold(y[:, None]), folding.unfold(s[:, None])

    def _select(self, given: _Items, solved: Tensor) -> tuple[Tensor, Tensor]:
        y, s = given.y.clone(), given.s.clone()
        motion = given.move(self.direction)
        weak = weakly_active(self.structure, given.y - given.s)
        left = torch.nonzero(solved & ((motion.dual > OUTSIDE) | ((motion.primal > OUTSIDE) & weak)))[:, 0]
        for step in _STEPS:
            if not len(left):
                break
            nearby, found = self._nearby(given.take(left), step)
            y[left[found]], s[left[found]] = nearby.y[found], nearby.s[found]
            left = left[~found]
        return y, s

    def _nearby(self, here: _Items, step: float) -> tuple[_Items, Tensor]:
        """The items with y and v as they become when nearby data return, and for which of them it went well."""
        _, q, _, b = here.data
        size = torch.maximum(_largest(q), _largest(b))
        lengths = (step * torch.where(size > 0, size, 1.0)).expand(len(here.x))[:, None]
        solution = solve_and_polish(self._shifted(here, lengths), self.backend)
        points, code = (solution.x, solution.y, solution.s), solution.status_code
        found = (code <= _INACCURATE) & torch.stack([p.isfinite().all(-1) for p in points]).all(0)
        x, y, s = (torch.where(found[:, None], p, old) for p, old in zip(points, (here.x, here.y, here.s), strict=True))
        found = found & (_largest(x - here.x) <= _JUMP * (1 + _largest(here.x)))
        there = _Items(self.structure, here.data, x, y, s)
        motion = there.move(self.direction)
        found = found & motion.exists
        if not self.structure.cone.is_polyhedral:
            there, motion, lengths = self._closer(there, motion, lengths)
        y = there.y - lengths * motion.dy
        return _Items(self.structure, here.data, there.x, y, y - (there.y - there.s)), found

    def _closer(self, there: _Items, motion: _Motion, lengths: Tensor) -> tuple[_Items, _Motion, Tensor]:
        """The same at data that have returned most of the way: Newton steps from where the motion leads."""
        less = _CLOSER * lengths
        back = lengths - less
        x, v = there.x - back * motion.dx, there.y - there.s - back * motion.dv
        y = self.structure.cone.project_dual(v)
        program = self._shifted(there, less)
        nothing = x.new_zeros(len(x))
        start = ConeSolution(x, y, y - v, nothing.to(torch.int8), nothing.long(), nothing, nothing, nothing)
        solution = polished(program, self.backend, start)
        closer = _Items(self.structure, there.data, solution.x, solution.y, solution.s)
        again = closer.move(self.direction)
        near = _largest(solution.y - solution.s - v) <= 0.1 * _largest(back * motion.dv)
        kept = (solution.has_solution & near & again.exists)[:, None]

        def chosen(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(kept, new, old)

        points = (chosen(n, o) for n, o in ((closer.x, there.x), (closer.y, there.y), (closer.s, there.s)))
        moved = (chosen(n, o) for n, o in ((again.dx, motion.dx), (again.dy, motion.dy), (again.dv, motion.dv)))
        return (
            _Items(self.structure, there.data, *points),
            _Motion(*moved, again.primal, again.dual),
            chosen(less, lengths),
        )

    def _shifted(self, items: _Items, lengths: Tensor) -> ConeProgram:
        moves = self.direction.tensors(items.x)
        data = (value + lengths * move for value, move in zip(items.data, moves, strict=True))
        return ConeProgram.unchecked(self.structure, *data)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """y and s as if they had not been moved."""
        return (None,) * 5 + (*cotangents, None)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """y and s as if they had not been moved."""
        dy, ds = (torch.zeros_like(z) if t is None else t for t, z in zip(tangents[5:7], outputs, strict=True))
        return dy.expand_as(outputs[0]), ds.expand_as(outputs[1])


def selected(equation: Equation, conditions: ConicConditions) -> Equation:
    """The equation at selected points where the exact derivative is wanted and it is known how the data may move."""
    if conditions.direction is None or conditions.mode != Exact():
        return equation
    return Selected(equation, conditions, conditions.direction)


def weakly_active(structure: ConeStructure, v: Tensor) -> Tensor:
    """Which items have a block whose constraint is active without force, for v = y - s of (B, m); bool, (B,)."""
    size = _largest(v)[:, None]
    return (structure.cone.margin(v) <= _WEAK * (1 + size)).any(-1)


def _largest(values: Tensor) -> Tensor:
    """Largest magnitude along the last axis, zero for an empty one."""
    return values.abs().amax(-1) if values.shape[-1] else values.new_zeros(values.shape[:-1])

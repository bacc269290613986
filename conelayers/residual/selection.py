"""Which multipliers and which element of the Clarke Jacobian stand for a solution that is not regular.

Where the multipliers are not unique, or rows are weakly active, the linearised conditions at the solver's point may
have no solution although x moves with the data: their Jacobian J(D) is singular, and the constraints that D holds
active cannot all stay so. For data a little further along a generic direction the multipliers y are (in all but special
directions) a vertex and the weakly active parts have decided, and J is that of the piece that such data lie on. As they
return, its derivative tends to an element of the Clarke Jacobian of the solution; where the solution is differentiable,
to the derivative. Kyparisis (1990) and Ralph & Dempe (1995) give the theory for directions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from conelayers.implicit import Equation, implicit, nothing_records
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status
from conelayers.program.products import A_times, A_transpose_times, P_times
from conelayers.residual.conic import ConicConditions
from conelayers.residual.direction import OUTSIDE, Direction, Watch, weakly_active
from conelayers.residual.folding import Folding
from conelayers.residual.fused import fuses
from conelayers.residual.linearization import linearize
from conelayers.residual.solve import polished, solve_and_polish

__all__ = ["Selected"]

_STEPS = {True: (1e-4, 1e-3, 1e-5), False: (1e-5, 1e-4, 1e-3)}
"""How far data are moved, relative to their size, one after another until x follows: for cones that are polyhedral,
whose elements do not turn as the data return, and for others."""
_CLOSER = 1e-3
"""What is left of the step for curved cones, whose D turns as the data return."""
_TURNING = 1e-2
"""Relative distance to a kink within which a curved block's element may depend on the direction from there."""
_JUMP = 1e-2
"""Relative change of x from which on nearby data have another solution, and not this one moved."""
_INACCURATE = int(Status.INACCURATE)


class Selected(Equation):
    """Optimality conditions, differentiated at the multipliers and the element that `Selection` finds.

    Args:
        conditions: The conditions.
        direction: How the data may move.
        wrapped: What stands between the conditions and their inputs, such as units.
    """

    nondifferentiable = ConicConditions.nondifferentiable

    def __init__(
        self, conditions: ConicConditions, direction: Direction, wrapped: Callable[[ConicConditions], Equation]
    ) -> None:
        self.conditions, self.direction, self.wrapped = conditions, direction, wrapped
        self.equation, self.selection = wrapped(conditions), Selection(conditions, direction)

    @property
    def event_dims(self) -> Sequence[int]:
        """Four vectors."""
        return self.conditions.event_dims

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The equation's own solution."""
        return self.equation.solve(*inputs)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The equation's, elsewhere; in an ordinary backward pass the kernel that does it tells whether elsewhere."""
        if nothing_records() and self._is_watched(inputs[2], outputs[1], needed):
            watch = Watch(self.direction.row(inputs[2].device))
            watched = self.wrapped(dataclasses.replace(self.conditions, watch=watch))
            found = watched.pullback(inputs, outputs, cotangents, needed)
            if watch.seen and not watch.selects:
                return found
        return self.equation.pullback(inputs, self._moved(inputs, outputs), cotangents, needed)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The equation's, elsewhere."""
        return self.equation.pushforward(inputs, self._moved(inputs, outputs), tangents)

    def _is_watched(self, A: Tensor, y: Tensor, needed: tuple[bool, ...]) -> bool:
        size = y.shape[:-1].numel() * self.conditions.structure.A_nnz
        return fuses(self.conditions.structure, A.device, (needed[0], needed[2]), size)

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
        dx, dv = (z[:, 0] for z in linearization.attempt((first[:, None], second[:, None]))[:2])
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
        if 0 in folding.full:
            return tuple(value.new_zeros((*folding.full, self.structure.m)) for value in vectors[5:])
        data = tuple(folding.fold_fixed(value) for value in vectors[:4])
        x, y, s = (folding.fold_fixed(value, always_batched=True) for value in vectors[4:])
        solved = folding.fold_fixed(code[..., None], always_batched=True)[:, 0] <= _INACCURATE
        x, y, s = (torch.where(solved[:, None], value, 0.0) for value in (x, y, s))
        y, s = self._select(_Items(self.structure, data, x, y, s), solved)
        return folding.unfold(y[:, None]), folding.unfold(s[:, None])

    def _select(self, given: _Items, solved: Tensor) -> tuple[Tensor, Tensor]:
        y, s = given.y.clone(), given.s.clone()
        motion = given.move(self.direction)
        weak = weakly_active(self.structure, given.y - given.s)
        left = torch.nonzero(solved & ((motion.dual > OUTSIDE) | ((motion.primal > OUTSIDE) & weak)))[:, 0]
        waiting = torch.zeros(len(y), dtype=torch.bool, device=y.device).index_fill(0, left, True)
        for step in _STEPS[self.structure.cone.is_polyhedral]:
            if not len(left):
                break
            nearby, found, follows = self._nearby(given.take(left), step)
            found = found & (waiting[left] | follows)
            y[left[found]], s[left[found]] = nearby.y[found], nearby.s[found]
            waiting[left[found]] = False
            left = left[~follows]
        return y, s

    def _nearby(self, here: _Items, step: float) -> tuple[_Items, Tensor, Tensor]:
        """The items with y and v as they become when nearby data return.

        Also for which of them they exist, and for which of these x follows the linearised conditions all the way.
        """
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
        follows = found & (_largest(x - here.x - lengths * motion.dx) <= 0.1 * _largest(x - here.x) + 1e-9)
        if not self.structure.cone.is_polyhedral and not bool(self._turns(y - s).all()):
            there, motion, lengths = self._closer(there, motion, lengths)
        y = there.y - lengths * motion.dy
        return _Items(self.structure, here.data, there.x, y, y - (there.y - there.s)), found, follows

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
        kept = (solution.has_solution & near & again.exists & ~self._turns(there.y - there.s))[:, None]

        def chosen(new: Tensor, old: Tensor) -> Tensor:
            return torch.where(kept, new, old)

        x, y, s = (chosen(n, o) for n, o in ((closer.x, there.x), (closer.y, there.y), (closer.s, there.s)))
        dx, dy, dv = (chosen(n, o) for n, o in ((again.dx, motion.dx), (again.dy, motion.dy), (again.dv, motion.dv)))
        moved = _Motion(dx, dy, dv, again.primal, again.dual)
        return _Items(self.structure, there.data, x, y, s), moved, chosen(less, lengths)

    def _turns(self, v: Tensor) -> Tensor:
        """Which items have a curved block so near to a kink that its element depends on the way there; (B,)."""
        curved = [k for k, cone in enumerate(self.structure.cone.cones) if not cone.polyhedral]
        margin = self.structure.cone.margin(v)[:, curved]
        return (margin <= _TURNING * _largest(v)[:, None]).any(-1)

    def _shifted(self, items: _Items, lengths: Tensor) -> ConeProgram:
        moves = self.direction.tensors(items.x)
        data = (value + lengths * move for value, move in zip(items.data, moves, strict=True))
        return ConeProgram.unchecked(self.structure, *data)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """Y and s as if they had not been moved."""
        return (None,) * 5 + (*cotangents, None)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Y and s as if they had not been moved."""
        dy, ds = (torch.zeros_like(z) if t is None else t for t, z in zip(tangents[5:7], outputs, strict=True))
        return dy.expand_as(outputs[0]), ds.expand_as(outputs[1])


def _largest(values: Tensor) -> Tensor:
    """Largest magnitude along the last axis, zero for an empty one."""
    return values.abs().amax(-1) if values.shape[-1] else values.new_zeros(values.shape[:-1])

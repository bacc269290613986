"""The everyday way from parameters to solutions and back: compiled kernels one after another, nothing between them.

For a small programme, the tensors, checks and nested equations of the general way take several times as long as the
kernels that it calls. Where nothing needs them, arrays pass here from one kernel to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import torch
from torch import Tensor

from conelayers.backends import Batched, engine_solution
from conelayers.canonicalize import BlockMap
from conelayers.implicit import Chain, Exact, Step, nothing_records
from conelayers.layers.simple_bounds import SimpleBounds
from conelayers.program import ConeProgram, ConeSolution
from conelayers.program.compiled import compiled_differentiator
from conelayers.residual import (
    ACCEPTED,
    FINISHED,
    OUTSIDE,
    ConicConditions,
    Watch,
    optimality,
    ordinary_units,
    polished,
)

if TYPE_CHECKING:
    from conelayers.native import Gradients

__all__ = ["CompiledChain"]

_SOLUTION, _POINT = len(dataclasses.fields(ConeSolution)), 3  # a solution's tensors; the first ones are x, y and s
_GRADIENTS = ("dP", "dq", "dA", "db")


class CompiledChain(Chain):
    """The affine map to the varying data and the solve; in one go where both are compiled and nothing is unusual.

    Usual are: tensors on the CPU with one batch axis at most; forward, the compiled engine without a start; backward,
    solved programmes and the exact derivative of first order outside of `torch.func`. All else goes the general way,
    step by step, to the same numbers.

    Args:
        inputs: Number of the chain's inputs, all of them vectors; the map takes the first ones.
        steps: The map, unless nothing varies.
        operator: Its numerics.
        data: Positions of P, q, A and b among the inputs and the map's outputs.
        conditions: What solves and differentiates the programmes.
        bounds: Bounds that solutions are to satisfy exactly, or None.
    """

    def __init__(
        self,
        inputs: int,
        steps: Sequence[Step],
        operator: BlockMap | None,
        data: tuple[int, ...],
        conditions: ConicConditions,
        bounds: SimpleBounds | None = None,
    ) -> None:
        super().__init__((1,) * inputs, (*steps, Step(optimality(conditions), data, _SOLUTION)))
        self.operator, self.data, self.conditions, self.bounds = operator, data, conditions, bounds

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One kernel after another, or one step after another."""
        found = self._solve_at_once(inputs) if _is_usual(inputs) else None
        if found is not None:
            return found
        found = super().solve(*inputs)
        if self.bounds is not None:
            first, right = len(inputs), self.data[3]
            self.bounds.hold_tensor(found[-_SOLUTION], inputs[right] if right < first else found[right - first])
        return found

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """Likewise, backwards."""
        usual = nothing_records() and _is_usual(inputs)
        found = self._pull_at_once(inputs, outputs, cotangents, needed) if usual else None
        return super().pullback(inputs, outputs, cotangents, needed) if found is None else found

    def _solve_at_once(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """The chain's outputs; None if something is unusual."""
        conditions, structure, first = self.conditions, self.conditions.structure, len(inputs)
        backend, wishes = conditions.backend, (conditions.warm_start, conditions.inspect)
        if not _is_engine(backend) or wishes != (None, None) or compiled_differentiator(structure) is None:
            return None
        values, batched = [_rows(x) for x in inputs], [x.dim() == 2 for x in inputs]
        if self.operator is not None:
            entering = self.operator.entering
            items = [max([len(values[b]) for b in blocks]) for blocks in entering]
            values += self.operator.multiply(values[: len(self.operator.columns)], items)
            batched += [any([batched[b] for b in blocks]) for blocks in entering]
        data = [values[i] for i in self.data]
        if not ordinary_units(structure, data[0], data[1], data[2]):
            return None
        batch = torch.Size([max(map(len, data))] if any([batched[i] for i in self.data]) else [])
        result = backend.run(structure, data, batch.numel())
        if not result["worst"] < np.inf and not np.isfinite(data[3]).all():
            return None  # a row without a bound, or no programme at all
        if result["worst"] <= FINISHED:
            if self.bounds is not None:
                self.bounds.hold(result["x"], data[3])
            solution = engine_solution(result).reshape(batch)
        else:
            program = ConeProgram.unchecked(structure, *map(torch.from_numpy, data))
            solution = polished(program, backend, backend.conclude(program, result)).reshape(batch)
            solution = conditions.conclude(program, solution)
            if self.bounds is not None:
                self.bounds.hold_tensor(solution.x, program.b if batch else program.b[0])
        mapped = zip(values[first:], batched[first:], strict=True)
        return *[torch.from_numpy(z if axis else z[0]) for z, axis in mapped], *solution.tensors

    def _pull_at_once(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...] | None:
        """The inputs' cotangents; None if something is unusual."""
        operator, first = self.operator, len(outputs) - _SOLUTION
        point, status_code, given = outputs[first:][:_POINT], outputs[first + _POINT], cotangents[first:][:_POINT]
        if operator is None or type(self.conditions.mode) is not Exact or any(status_code.reshape(-1).tolist()):
            return None
        wanted = needed[: len(operator.columns)]
        if not any(wanted) or any([g is not None for g in cotangents[:first]]):
            return None
        values = (*inputs, *outputs[:first])
        found = self._adjoint([values[i] for i in self.data[:3]], point, given)
        if found is None:
            return None
        parts = [found[name] for name, i in zip(_GRADIENTS, self.data, strict=True) if i >= len(inputs)]
        items, taken = _items(point[0]), len(wanted)
        rest = zip(inputs[taken:], needed[taken:], strict=True)
        gradients = [None] * taken + [torch.zeros_like(x) if use else None for x, use in rest]
        shared = tuple([use and _items(x) != items for x, use in zip(inputs, wanted, strict=False)])
        if any(shared):
            self._pull_parts([part.sum(0, keepdims=True) for part in parts], shared, gradients)
            wanted = tuple([use and not sums for use, sums in zip(wanted, shared, strict=True)])
        if any(wanted):
            self._pull_parts(parts, wanted, gradients)
        return tuple(gradients)

    def _pull_parts(self, parts: Sequence[np.ndarray], wanted: tuple[bool, ...], into: list[Tensor | None]) -> None:
        """Cotangents of the map's inputs from those of its outputs; each has as many rows as the first output."""
        assert self.operator is not None
        reached = tuple([any([wanted[b] for b in blocks]) for blocks in self.operator.entering])
        given = [part for part, use in zip(parts, reached, strict=True) if use]
        pulled = iter(self.operator.select(reached, wanted).transpose.multiply(given, [len(parts[0])] * sum(wanted)))
        for b, use in enumerate(wanted):
            if use:
                into[b] = torch.from_numpy(next(pulled))

    def _adjoint(
        self, data: Sequence[Tensor], point: Sequence[Tensor], cotangents: Sequence[Tensor | None]
    ) -> Gradients | None:
        """Cotangents of P, q, A and b from those of x, y and s; `data` are P, q and A."""
        kernels = compiled_differentiator(self.conditions.structure)
        P, q, A = [_rows(value) for value in data]
        x, y, s = [_rows(value) for value in point]
        if kernels is None or not ordinary_units(self.conditions.structure, P, q, A, (y, s)):
            return None
        gx, gy, gs = [
            np.zeros((1, z.shape[1])) if g is None else _rows(g) for g, z in zip(cotangents, (x, y, s), strict=True)
        ]
        direction = self.conditions.direction
        moves = None if direction is None else direction.values
        found = kernels.pullback(P, A, x, y, s, gx, gy, gs, direction=moves, threads=torch.get_num_threads())
        if not found["worst"] <= ACCEPTED:
            return None
        if direction is not None and found["moved"] > OUTSIDE:
            watch = Watch()
            watch.note(self.conditions.structure, *map(torch.from_numpy, (found["outside"], y, s)))
            return None if watch.selects else found
        return found


def _is_usual(inputs: Sequence[Tensor]) -> bool:
    """Whether a chain's inputs are on the CPU, with one batch axis at most, and not empty."""
    return bool(inputs) and inputs[0].is_cpu and all([x.dim() == 1 or (x.dim() == 2 and len(x) > 0) for x in inputs])


def _is_engine(backend: object) -> TypeGuard[Batched]:
    """Whether solving is running the engine, silently; heirs of `Batched` may have a way of their own."""
    return isinstance(backend, Batched) and type(backend).solve is Batched.solve and not backend.verbose


def _items(value: Tensor) -> int:
    """The rows of (size,) or (items, size)."""
    return value.shape[0] if value.dim() == 2 else 1


def _rows(value: Tensor) -> np.ndarray:
    """(size,) or (items, size) as an array of rows."""
    array = value.contiguous().numpy(force=True)
    return array if array.ndim == 2 else array[None]

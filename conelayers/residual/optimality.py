"""The optimality conditions of cone programmes as an equation, in the units that suit each programme's data."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.implicit import Equation, Exact, implicit
from conelayers.program import ConeProgram, ConeSolution
from conelayers.residual.conic import ConicConditions
from conelayers.residual.selection import Selected
from conelayers.residual.solve import fitted_start
from conelayers.residual.units import Units, units_matter

__all__ = ["InUnits", "differentiable_solve", "optimality"]


class InUnits(Equation):
    """A programme's optimality conditions, solved and differentiated in the units that suit its data.

    The factors are powers of two and constant as far as derivatives go: what they do to the solution they undo.

    Args:
        conditions: The equation, whatever the units.
    """

    nondifferentiable = ConicConditions.nondifferentiable

    def __init__(self, conditions: ConicConditions) -> None:
        self.conditions, self.structure = conditions, conditions.structure

    @property
    def event_dims(self) -> Sequence[int]:
        """Four vectors."""
        return self.conditions.event_dims

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """In the units, and back."""
        units = self._units(inputs)
        if units is None:
            return self.conditions.solve(*inputs)
        start = self.conditions.warm_start
        if start is not None:
            start = units.start(fitted_start(start, ConeProgram(self.structure, *inputs)))
        conditions = dataclasses.replace(self.conditions, warm_start=start)
        outputs: Any = conditions.solve(*units.data(self.structure, *inputs))
        return *units.from_points(*outputs[:3]), *outputs[3:]

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """Cotangents scale as the values that they belong to do in the other direction."""
        units = self._units_at(inputs, outputs)
        if units is None:
            return self.conditions.pullback(inputs, outputs, cotangents, needed)
        scaled = units.data(self.structure, *inputs), (*units.points(*outputs[:3]), *outputs[3:])
        watch = self.conditions.watch
        if watch is not None and watch.rows is not None:
            s, batch = self.structure, outputs[3].shape
            parts = units.data(s, *(part[0] for part in watch.rows.split([s.P_nnz, s.n, s.A_nnz, s.m], -1)))
            watch.rows = torch.cat([part.expand(*batch, -1) for part in parts], -1).reshape(
                batch.numel(), watch.rows.shape[-1]
            )
        found = self.conditions.pullback(*scaled, (*units.from_points(*cotangents[:3]), *cotangents[3:]), needed)
        return units.data(self.structure, *found)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Tangents scale as their values do."""
        units = self._units_at(inputs, outputs)
        if units is None:
            return self.conditions.pushforward(inputs, outputs, tangents)
        scaled = units.data(self.structure, *inputs), (*units.points(*outputs[:3]), *outputs[3:])
        found = self.conditions.pushforward(*scaled, units.data(self.structure, *tangents))
        return *units.from_points(*found[:3]), *found[3:]

    def _units(self, inputs: tuple[Tensor, ...]) -> Units | None:
        return Units.of(ConeProgram.unchecked(self.structure, *inputs))

    def _units_at(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Units | None:
        return Units.at(ConeProgram.unchecked(self.structure, *inputs), *outputs[:3])


def optimality(conditions: ConicConditions) -> Equation:
    """The conditions in units that suit the data; polyhedral cones have no digits to lose and are left alone."""
    if conditions.direction is None or conditions.mode != Exact():
        return _in_units(conditions)
    return Selected(conditions, conditions.direction, _in_units)


def _in_units(conditions: ConicConditions) -> Equation:
    return InUnits(conditions) if units_matter(conditions.structure) else conditions


def differentiable_solve(conditions: ConicConditions, program: ConeProgram) -> ConeSolution:
    """Solve a batch of programmes; x, y and s are connected to the programme's tensors for differentiation.

    Raises:
        SolveError: If `conditions.on_failure` is "raise" and an item has no solution.
    """
    return ConeSolution(*implicit(optimality(conditions), program.P, program.q, program.A, program.b))

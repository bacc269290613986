"""From parameters to cone solutions: the programme's data and its solution as one differentiable equation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.canonicalize import Block, BlockMap, ParametricProgram
from conelayers.implicit import Affine, Chain, Step, implicit
from conelayers.layers.compiled_chain import CompiledChain
from conelayers.layers.simple_bounds import SimpleBounds
from conelayers.program import ConeSolution
from conelayers.residual import ConicConditions, Direction

__all__ = ["ParametricSolution"]

_SOLUTION = len(dataclasses.fields(ConeSolution))


class ParametricSolution:
    """The programme's data and its solution as functions of the parameters, by a chain of two equations.

    The inputs of the chain are the vectors that the parameters are read as, then the parts of the data that no
    parameter enters. Its steps are the affine map to the other parts, and the solve. Parameters that enter no part (a
    constant of the objective) are inputs of no step: their gradients are zero and not missing.

    Args:
        program: The family of programmes.

    Attributes:
        direction: How the data may move, see `ConicConditions`.
    """

    def __init__(self, program: ParametricProgram) -> None:
        self.program = program
        varying = [part for part in program.parts if part.blocks]
        self._constants = [part.map for part in program.parts if not part.blocks]
        blocks = list(dict.fromkeys(block for part in varying for block in part.blocks))
        takes, count = [tuple(map(blocks.index, part.blocks)) for part in varying], len(blocks)
        self._operator, self._maps = None, ()
        if varying:
            self._operator = BlockMap.join([part.map for part in varying], takes, [block.size for block in blocks])
            self._maps = (Step(Affine(self._operator, count), tuple(range(count)), len(varying)),)
        entering = {block.parameter for block in blocks}
        shapes = enumerate(program.layout.shapes)
        idle = [Block(i, "real", math.prod(shape)) for i, shape in shapes if i not in entering]
        self._blocks: list[Block] = blocks + idle
        self._idle = len(idle)
        self._inputs = len(self._blocks) + len(self._constants)
        # Positions of P, q, A and b among the values of the chain.
        constant, mapped = iter(range(len(self._blocks), self._inputs)), iter(range(self._inputs, self._inputs + 4))
        self._data = tuple(next(mapped if part.blocks else constant) for part in program.parts)
        self.direction = self._move()
        self._bounds = SimpleBounds.of(program)
        self._on_device: dict[torch.device, list[Tensor]] = {}
        self._latest: CompiledChain | None = None

    def _move(self) -> Direction | None:
        """How the data move when all parameters grow, each entry at a rate of its own; grow, since some are signed."""
        if self._operator is None:
            return None
        columns = sum(self._operator.columns)
        rates = np.random.default_rng(0).uniform(0.5, 1.5, columns)
        moved = iter(np.split(self._operator.matrix @ rates, np.cumsum(self._operator.rows)[:-1]))
        s = self.program.structure
        sizes = zip(self.program.parts, (s.P_nnz, s.n, s.A_nnz, s.m), strict=True)
        return Direction.of(tuple(next(moved) if part.blocks else np.zeros(size) for part, size in sizes))

    def __call__(
        self, conditions: ConicConditions, params: Sequence[Tensor]
    ) -> tuple[tuple[Tensor, ...], ConeSolution]:
        """P, q, A and b at the given parameters, and the solution; both are connected to the parameters.

        Args:
            conditions: What solves and differentiates the programmes.
            params: One tensor per parameter, as `ParametricProgram.values` takes them; not checked.
        """
        inputs = self._read(params)
        values = (*inputs, *implicit(self.chain(conditions), *inputs))
        return tuple(values[i] for i in self._data), ConeSolution(*values[-_SOLUTION:])

    def chain(self, conditions: ConicConditions) -> CompiledChain:
        """The chain behind a call; its inputs are the vectors that enter the data, then `constants`.

        The latest one is kept: making it takes a noticeable part of the time of a small solve.
        """
        known = self._latest
        if known is None or known.conditions is not conditions:
            known = CompiledChain(self._inputs, self._maps, self._operator, self._data, conditions, self._bounds)
            self._latest = known
        return known

    @property
    def entering(self) -> tuple[Block, ...]:
        """The vectors that enter the data, in the order of the chain's inputs."""
        return tuple(self._blocks[: len(self._blocks) - self._idle])

    def constants(self, device: torch.device) -> list[Tensor]:
        """What follows the entering vectors among the chain's inputs: idle vectors, as zeros, and constant parts."""
        idle = [torch.zeros(block.size, dtype=torch.float64, device=device) for block in self._blocks[-self._idle :]]
        return [*(idle if self._idle else []), *self._fixed(device)]

    def data(self, params: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """P, q, A and b alone."""
        inputs = self._read(params)
        values = (*inputs, *implicit(Chain((1,) * self._inputs, self._maps), *inputs))
        return tuple(values[i] for i in self._data)

    def constant(self, params: Sequence[Tensor]) -> Tensor:
        """The constant of the objective, shape (*batch,) with the batch axes of the parameters that enter it."""
        part = self.program.objective.constant
        thetas = self.program.layout.read(params, part.blocks)
        if not thetas:
            return part.map.constant(params[0].device if params else torch.device("cpu"))[0]
        operator = BlockMap.join([part.map], [range(len(thetas))], part.map.sizes)
        return implicit(Affine(operator, len(thetas)), *thetas)[0][..., 0]

    def _read(self, params: Sequence[Tensor]) -> list[Tensor]:
        """The inputs of the chain."""
        device = params[0].device if params else torch.device("cpu")
        return [*self.program.layout.read(params, self._blocks), *self._fixed(device)]

    def _fixed(self, device: torch.device) -> list[Tensor]:
        """The constant parts, kept for the next call unless a transform made them: then they belong to it."""
        found = self._on_device.get(device)
        if found is None:
            with torch.inference_mode(False):  # they will be saved for backward passes later
                found = [affine.constant(device) for affine in self._constants]
            if not torch._C._are_functorch_transforms_active():
                self._on_device[device] = found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_on_device": {}, "_latest": None}

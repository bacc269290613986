"""From parameters to cone solutions: the programme's data and its solution as one differentiable equation."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence

from torch import Tensor

from conelayers.canonicalize import Block, ParametricProgram
from conelayers.implicit import Affine, Chain, Equation, Step, implicit
from conelayers.program import ConeSolution
from conelayers.residual import ConicConditions, optimality

__all__ = ["solve_parametric"]

_SOLUTION = len(dataclasses.fields(ConeSolution))


def solve_parametric(
    program: ParametricProgram, conditions: ConicConditions, params: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], ConeSolution]:
    """P, q, A and b at the given parameters, and the solution; both are connected to the parameters.

    Args:
        program: The family of programmes.
        conditions: What solves and differentiates them.
        params: One tensor per parameter, as `ParametricProgram.values` takes them; not checked.
    """
    wiring = _wiring(program)
    like = params[0] if params else None
    constants = [part.map.constant(like) for part in wiring.constants]
    inputs = [*program.layout.read(params, wiring.blocks), *constants]
    outputs = implicit(wiring.chain(optimality(conditions)), *inputs)
    values = (*inputs, *outputs)
    return tuple(values[i] for i in wiring.data), ConeSolution(*outputs[-_SOLUTION:])


class _Wiring:
    """The chain's inputs are the blocks of parameters, then the constant parts; its steps the other parts, the solve.

    Attributes:
        blocks: The vectors that the parameters are read as.
        constants: The parts that no parameter enters.
        maps: The steps that evaluate the other parts.
        data: Positions of P, q, A and b among the values of the chain.
    """

    def __init__(self, program: ParametricProgram) -> None:
        self.blocks: list[Block] = list(dict.fromkeys(block for part in program.parts for block in part.blocks))
        self.constants = [part for part in program.parts if not part.blocks]
        self._inputs = len(self.blocks) + len(self.constants)
        self.maps: list[Step] = []
        self.data: tuple[int, ...] = ()
        for part in program.parts:
            if part.blocks:
                self.data += (self._inputs + len(self.maps),)
                self.maps.append(Step(Affine(part.map), tuple(map(self.blocks.index, part.blocks)), 1))
            else:
                self.data += (len(self.blocks) + self.constants.index(part),)

    def chain(self, conditions: Equation) -> Chain:
        """The parts, then the solution."""
        return Chain((1,) * self._inputs, (*self.maps, Step(conditions, self.data, _SOLUTION)))


_wirings: weakref.WeakKeyDictionary[ParametricProgram, _Wiring] = weakref.WeakKeyDictionary()


def _wiring(program: ParametricProgram) -> _Wiring:
    """Made once per family."""
    if program not in _wirings:
        _wirings[program] = _Wiring(program)
    return _wirings[program]

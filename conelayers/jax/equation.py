"""From the vectors that parameters are read as to cone solutions, as one equation without intermediate outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from conelayers.canonicalize import Block, ParametricProgram
from conelayers.implicit import Equation, implicit
from conelayers.layers.parametric import ParametricSolution
from conelayers.residual import ConicConditions

__all__ = ["ParametricEquation"]

_SOLUTION = 8  # x, y, s, status, iterations and three residuals


class ParametricEquation(Equation):
    """The solution of a parametric programme as a function of the vectors that enter its data.

    The programme's data are not kept between a solve and its derivative: making them again is one sparse product.

    Args:
        program: The family of programmes.
        conditions: What solves and differentiates them.
    """

    nondifferentiable = frozenset(range(3, _SOLUTION))

    def __init__(self, program: ParametricProgram, conditions: ConicConditions) -> None:
        parametric = ParametricSolution(program)
        self._chain = parametric.chain(conditions)
        self.blocks: tuple[Block, ...] = parametric.entering
        self._rest = parametric.constants(torch.device("cpu"))

    @property
    def event_dims(self) -> Sequence[int]:
        """Vectors."""
        return (1,) * len(self.blocks)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Make the data and solve."""
        return self._chain.solve(*inputs, *self._rest)[-_SOLUTION:]

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The chain's, from the solution alone."""
        data = self._data(inputs)
        needed = (*needed, *(False for _ in self._rest))
        missing = (None,) * len(data)
        found = self._chain.pullback((*inputs, *self._rest), (*data, *outputs), (*missing, *cotangents), needed)
        return found[: len(inputs)]

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The chain's, to the solution alone."""
        data = self._data(inputs)
        tangents = (*tangents, *(None for _ in self._rest))
        return self._chain.pushforward((*inputs, *self._rest), (*data, *outputs), tangents)[-_SOLUTION:]

    def _data(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The varying parts of the data."""
        steps = self._chain.steps[:-1]
        return implicit(steps[0].equation, *inputs) if steps else ()

"""Several equations one after another as a single one: one node in autograd's graph instead of one each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from conelayers.implicit.equation import Equation

__all__ = ["Chain", "Step"]


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One equation of a chain.

    Attributes:
        equation: What defines the step's outputs.
        arguments: Its inputs, as positions among all values of the chain: first the chain's inputs, then the outputs
            of the steps before this one, in order.
        outputs: How many outputs it has.
    """

    equation: Equation
    arguments: tuple[int, ...]
    outputs: int


class Chain(Equation):
    """Steps that feed each other; its outputs are those of all steps, in order.

    All intermediate values are outputs, so that they are kept once, connected, for derivatives of any order; a loss
    that does not depend on them costs nothing. The derivative is the chain rule over the steps' own.

    Args:
        event_dims: Number of trailing axes of each input that belong to a single problem.
        steps: In the order in which they are solved.
    """

    def __init__(self, event_dims: Sequence[int], steps: Sequence[Step]) -> None:
        self._event_dims, self.steps = tuple(event_dims), tuple(steps)
        first, constant = 0, set()
        for step in self.steps:
            constant.update(first + position for position in step.equation.nondifferentiable)
            first += step.outputs
        self.nondifferentiable = frozenset(constant)

    @property
    def event_dims(self) -> Sequence[int]:
        """As given."""
        return self._event_dims

    def carries(self, batched: tuple[bool, ...], outputs: int) -> tuple[bool, ...]:
        """What the steps say of their own outputs."""
        known = list(batched)
        for step in self.steps:
            known.extend(step.equation.carries(tuple(known[i] for i in step.arguments), step.outputs))
        return tuple(known[len(batched) :])

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One step after another."""
        values = list(inputs)
        for step in self.steps:
            values.extend(step.equation.solve(*(values[i] for i in step.arguments)))
        return tuple(values[len(inputs) :])

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """From the last step to the first; cotangents of a value that several steps use are summed.

        What reaches no output with a cotangent has a gradient of zeros.
        """
        values = (*inputs, *outputs)
        useful = list(needed)
        for step in self.steps:
            useful.extend([any(useful[i] for i in step.arguments)] * step.outputs)
        found: list[Tensor | None] = [*(None for _ in inputs), *cotangents]
        end = len(values)
        for step in reversed(self.steps):
            start = end - step.outputs
            given = tuple(found[start:end])
            wanted = tuple(useful[i] for i in step.arguments)
            if any(wanted) and any(g is not None for g in given):
                arguments = tuple(values[i] for i in step.arguments)
                pulled = step.equation.pullback(arguments, values[start:end], given, wanted)
                for position, gradient, use in zip(step.arguments, pulled, wanted, strict=True):
                    if use and gradient is not None:
                        found[position] = _sum(found[position], gradient, values[position])
            end = start
        missing = (i for i, use in enumerate(needed) if use and found[i] is None)
        for i in missing:
            found[i] = torch.zeros_like(inputs[i])
        return tuple(found[: len(inputs)])

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """From the first step to the last. What does not move has tangents of zero: autograd wants one for each."""
        values, moved = (*inputs, *outputs), list(tangents)
        for step in self.steps:
            given, end = tuple(moved[i] for i in step.arguments), len(moved) + step.outputs
            if all(t is None for t in given):
                moved.extend([None] * step.outputs)
                continue
            arguments = tuple(values[i] for i in step.arguments)
            moved.extend(step.equation.pushforward(arguments, values[len(moved) : end], given))
        found = moved[len(inputs) :]
        fixed = (i for i, t in enumerate(found) if t is None and i not in self.nondifferentiable)
        for i in fixed:
            found[i] = torch.zeros_like(outputs[i])
        return tuple(found)


def _sum(before: Tensor | None, gradient: Tensor, value: Tensor) -> Tensor:
    """A cotangent of `value`, summed over the batch axes that it lacks, added to what is there."""
    if gradient.shape != value.shape:
        gradient = gradient.sum_to_size(value.shape)
    return gradient if before is None else before + gradient

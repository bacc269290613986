"""The interface of everything that is differentiated implicitly: z(theta) defined by F(z, theta) = 0."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Equation", "zeros_for_none"]


class Equation(abc.ABC):
    """An equation F(z, theta) = 0 that defines outputs z as a function of inputs theta.

    `solve` is plain numerics: nothing in it is recorded by autograd. `pullback` and `pushforward` are *differentiable*
    torch code: they state the implicit differentiation formula with torch operations and with nested calls of
    `implicit(other_equation, ...)` for the linear systems. Because the linearised equation is an equation itself,
    derivatives of every order, `torch.func.vmap`, `jvp`, `jacrev` and `jacfwd` follow without further code.

    Every input has the shape (*batch, *event): its last `event_dims[i]` axes belong to one problem, all axes before
    them are batch axes, which broadcast from the right. Outputs carry the broadcast batch axes of all inputs, unless
    `carries` says that they lack those of some.

    An instance must not keep state between calls.
    """

    nondifferentiable: frozenset[int] = frozenset()
    """Positions of outputs that have no derivative, such as statuses and iteration counts."""

    @property
    @abc.abstractmethod
    def event_dims(self) -> Sequence[int]:
        """Number of trailing axes of each input that belong to a single problem."""

    @abc.abstractmethod
    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs z for the inputs theta."""

    @abc.abstractmethod
    def pullback(
        self,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        cotangents: tuple[Tensor | None, ...],
        needed: tuple[bool, ...],
    ) -> tuple[Tensor | None, ...]:
        """Reverse mode: cotangents of the inputs, None where `needed` is false.

        Args:
            inputs: theta.
            outputs: z.
            cotangents: One per output, None where the loss does not depend on it; not all are None.
            needed: Which inputs' cotangents will be used.

        Returns:
            One cotangent per input; batch axes that the input lacks are summed by the caller.
        """

    @abc.abstractmethod
    def pushforward(
        self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]
    ) -> tuple[Tensor | None, ...]:
        """Forward mode: tangents of the outputs, None for nondifferentiable ones.

        Args:
            inputs: theta.
            outputs: z.
            tangents: One per input, None where the input does not move.
        """

    def carries(self, batched: tuple[bool, ...], outputs: int) -> tuple[bool, ...]:
        """Which outputs have a batch axis that some of the inputs have: all, if any input has it.

        Args:
            batched: Which inputs have it.
            outputs: The number of outputs.
        """
        return (any(batched),) * outputs

    def align(self, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...]) -> tuple[Equation, tuple[Tensor, ...]]:
        """The equation and inputs with the axes of a `vmap` turned into a leading batch axis.

        Args:
            in_dims: The mapped axis of each input, None where it has none.
            inputs: The inputs, mapped axes visible.
        """
        rank = max(
            x.dim() - event - (dim is not None) for x, dim, event in zip(inputs, in_dims, self.event_dims, strict=True)
        )
        aligned = []
        for x, dim, event in zip(inputs, in_dims, self.event_dims, strict=True):
            if dim is not None:
                x = x.movedim(dim, 0)
                missing = rank - (x.dim() - 1 - event)
                x = x.reshape(x.shape[0], *(1,) * missing, *x.shape[1:])
            aligned.append(x)
        return self, tuple(aligned)

    def padding(
        self, in_dims: tuple[int | None, ...], inputs: tuple[Tensor, ...], aligned: tuple[Tensor, ...], outputs: int
    ) -> Sequence[int]:
        """How many axes of size 1 that `align` put behind the mapped axis each output has kept.

        An output that lacks the batch axes of some inputs, because it does not depend on them, lacks them mapped, too:
        an enclosing transform counts on its shape without the mapped axis.

        Args:
            in_dims: As `align`.
            inputs: As `align`.
            aligned: What `align` made of them.
            outputs: The number of outputs.
        """
        events, mapped = self.event_dims, [dim is not None for dim in in_dims]
        own = [x.dim() - (dim is not None) - e for x, dim, e in zip(inputs, in_dims, events, strict=True)]
        now = [x.dim() - 1 - e if m else o for x, m, e, o in zip(aligned, mapped, events, own, strict=True)]
        if own == now:
            return (0,) * outputs
        count = len(own)
        carried = [self.carries(tuple(i == j for i in range(count)), outputs) for j in range(count)]
        reached = [[j for j in range(count) if carried[j][k]] for k in range(outputs)]
        return [max((now[j] for j in js), default=0) - max((own[j] for j in js), default=0) for js in reached]


def zeros_for_none(values: Sequence[Tensor | None], like: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tangents or cotangents of `like`, with zeros for those that are missing."""
    return tuple(torch.zeros_like(z) if v is None else v for v, z in zip(values, like, strict=True))

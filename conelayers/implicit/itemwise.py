"""Functions of one item, stated in torch code that `vmap` cannot map, as equations."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.function import implicit

__all__ = ["Itemwise", "against", "along", "item_by_item"]

Function = Callable[..., tuple[Tensor, ...]]


def along(function: Function, primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Directional derivative of a tuple-valued function as the transpose of its transpose.

    Forward mode cannot be nested, and this code runs inside it.
    """
    outputs, pull = torch.func.vjp(function, *primals)[:2]
    push = torch.func.vjp(pull, tuple(torch.zeros_like(z) for z in outputs))[1]
    return push(tangents)[0]


def against(function: Function, primals: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Vector-Jacobian product of a tuple-valued function.

    By plain autograd outside of transforms and of forward mode: it is quicker, and the function sees plain tensors.
    """
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return torch.func.vjp(function, *primals)[1](cotangents)
    recorded = torch.is_grad_enabled()
    with torch.enable_grad():
        # a view each, since one tensor may be several of the arguments
        own = tuple(t.view_as(t) if recorded and t.requires_grad else t.detach().requires_grad_() for t in primals)
        pairs = [(z, g) for z, g in zip(function(*own), cotangents, strict=True) if z.requires_grad]
        if not pairs:
            return tuple(torch.zeros_like(t) for t in primals)
        outputs, slopes = zip(*pairs, strict=True)
        options = {"create_graph": recorded, "allow_unused": True, "materialize_grads": True}
        return torch.autograd.grad(outputs, own, slopes, **options)


def item_by_item(
    function: Function, fixed: int, inputs: Sequence[int], outputs: Sequence[int], values: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The function of each item of a batch, one after another.

    Args:
        function: Takes and returns tensors without batch axes. Of its arguments, the first `fixed` decide about sizes;
            it can be mapped over the others, and is where several of those go with the same first ones.
        fixed: See there.
        inputs: Axes of each argument that belong to an item.
        outputs: Axes of each result.
        values: The arguments, with batch axes that broadcast.
    """
    batches = [x.shape[: x.dim() - event] for x, event in zip(values, inputs, strict=True)]
    full, own = torch.broadcast_shapes(*batches), torch.broadcast_shapes(*batches[:fixed])
    padded = (1,) * (len(full) - len(own)) + tuple(own)
    shared = tuple(i for i, (size, whole) in enumerate(zip(padded, full, strict=True)) if size == 1 < whole)
    order = tuple(i for i in range(len(full)) if i not in shared) + shared
    items, count = math.prod(padded), math.prod(full[i] for i in shared)

    def rows(x: Tensor, event: int, batch: tuple[int, ...]) -> Tensor:
        """The batch axes, in the order of own and shared ones, as one axis of items and one of what they share."""
        spread = x.expand((*batch, *x.shape[x.dim() - event :]))
        spread = spread.permute((*order, *range(len(full), spread.dim())))
        return spread.reshape((items, math.prod(batch) // max(items, 1), *spread.shape[len(full) :]))

    columns = [
        rows(x, event, padded if i < fixed else full) for i, (x, event) in enumerate(zip(values, inputs, strict=True))
    ]
    found = [_at_one(function, fixed, row, count) for row in zip(*columns, strict=True)]
    ordered, back = [full[i] for i in order], sorted(range(len(order)), key=order.__getitem__)
    results = []
    for column, event in zip(zip(*found, strict=True), outputs, strict=True):
        z = torch.stack(column)
        z = z.reshape((*ordered, *z.shape[2:]))
        results.append(z.permute((*back, *range(len(full), len(full) + event))))
    return tuple(results)


def _at_one(function: Function, fixed: int, row: tuple[Tensor, ...], count: int) -> tuple[Tensor, ...]:
    """The function at one tuple of first arguments and `count` tuples of others; results with that leading axis."""
    given = functools.partial(function, *(x[0] for x in row[:fixed]))
    if count == 1:
        return tuple(z[None] for z in given(*(x[0] for x in row[fixed:])))
    return torch.vmap(given)(*row[fixed:])


@dataclasses.dataclass(frozen=True, eq=False)
class Itemwise(Equation):
    """z = f(theta) item by item, where the sizes of what f computes depend on values: supports, ranks, branches.

    Its reverse derivatives of all orders are of the same kind, so that `vmap` around them ends in plain calls of f;
    `vmap` around forward mode meets f itself.

    Attributes:
        function: f, differentiable torch code for one item without batch axes, see `item_by_item`.
        fixed: Of the inputs, the first so many decide about sizes.
        inputs: Axes of each input that belong to an item.
        outputs: Axes of each output.
    """

    function: Function
    fixed: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def event_dims(self) -> Sequence[int]:
        """As given."""
        return self.inputs

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One item after another, all that belongs to the same first inputs at once."""
        return item_by_item(self.function, self.fixed, self.inputs, self.outputs, inputs)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The vector-Jacobian product of f, which is another such function."""

        def pull(*values: Tensor) -> tuple[Tensor, ...]:
            return against(self.function, values[: len(self.inputs)], values[len(self.inputs) :])

        equation = Itemwise(pull, self.fixed, self.inputs + self.outputs, self.inputs)
        return implicit(equation, *inputs, *zeros_for_none(cotangents, outputs))

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The directional derivative of f."""

        def push(*values: Tensor) -> tuple[Tensor, ...]:
            return along(self.function, values[: len(self.inputs)], values[len(self.inputs) :])

        values = (*inputs, *zeros_for_none(tangents, inputs))
        return item_by_item(push, self.fixed, self.inputs * 2, self.outputs, values)

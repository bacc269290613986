"""One recorded evaluation of f at a solution, and what is computed from it for derivatives of any order.

What is computed from the record depends on the solution through its stand-in. `_AtPoint` gives such a value the
derivatives with respect to what its stand-ins stand for. Everything that enters a sweep over the record enters by a
stand-in of its own, so that no path leads to another sweep's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.errors import UnsupportedError
from conelayers.fixed_points.closure import Aliasing
from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.function import implicit
from conelayers.implicit.products import Tape, rounding

__all__ = ["Record"]


class Record(Tape):
    """f(z) at a solution z, shape (*batch, n), with the graph that leads to z's stand-in and to all that f used.

    Args:
        f: The map, called once.
        z: The solution, without derivatives.
    """

    def __init__(self, f: Callable[[Tensor], Tensor], z: Tensor) -> None:
        self.function, self.eps = f, rounding(z)
        with torch.enable_grad():
            self.z = _stand_in(z)
            with Aliasing(self.z) as seen, _kept_as_it_is():
                self.value = f(self.z)
        self.used, self.aliases = zip(*seen.table.values(), strict=True) if seen.table else ((), ())

    def connected_product(self, transposed: bool, t: Tensor, z: Tensor) -> Tensor:
        """J t or J't, differentiable in t, in z (the solution with its graph), and in what f was seen to use."""
        with torch.enable_grad():
            own = _stand_in(t)
            return self._at(self._product(transposed, own), (self.z, own), (z, t))

    def product_pullback(
        self, transposed: bool, t: Tensor, z: Tensor, s: Tensor, needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Derivatives of s'J t (or s'J't) at fixed t with respect to z and what f was seen to use."""
        records = torch.is_grad_enabled()
        with torch.enable_grad():
            own = _stand_in(t)
            product = self._product(transposed, own)
        chosen = [x for x, use in zip((self.z, *self.aliases), needed, strict=True) if use]
        weight = _stand_in(s) if records else s
        found = iter(_gradients(product, chosen, weight, create_graph=records))
        stand_ins, originals = (self.z, own, weight), (z, t, s)
        slopes = (next(found) if use else None for use in needed)
        return [self._at(g, stand_ins, originals) if records and g is not None else g for g in slopes]

    def _product(self, transposed: bool, t: Tensor) -> Tensor:
        if transposed:
            return self._gradient(self.value, self.z, t, create_graph=True)
        probe = torch.zeros_like(self.value).requires_grad_()
        adjoint = self._gradient(self.value, self.z, probe, create_graph=True)
        return self._gradient(adjoint, probe, t, create_graph=True)

    def connected_pullback(self, u: Tensor, z: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
        """(df/dtheta)'u for the tensors that f was seen to use, differentiable as `connected_product` is.

        Raises:
            UnsupportedError: f used a tensor out of sight.
        """
        if _leads_outside(self.value, (self.z, *self.aliases)):
            raise UnsupportedError(
                "derivatives of higher order (create_graph=True) need every tensor with a gradient that f uses to "
                "reach a torch function in f itself. A custom autograd.Function, a script or a cache hides one: pass "
                "it in `params`, or let f compute with torch functions."
            )
        chosen = [alias for alias, use in zip(self.aliases, needed, strict=True) if use]
        own = _stand_in(u)
        found = iter(_gradients(self.value, chosen, own, create_graph=True))
        return [self._at(next(found), (self.z, own), (z, u)) if use else None for use in needed]

    def _at(self, value: Tensor, stand_ins: tuple[Tensor, ...], originals: tuple[Tensor, ...]) -> Tensor:
        """A value computed from the record with derivatives with respect to originals and used tensors."""
        equation = _AtPoint((*stand_ins, *self.aliases), len(stand_ins))
        return implicit(equation, value, *originals, *self.used)[0] if value.requires_grad else value


def _kept_as_it_is() -> contextlib.AbstractContextManager[Any]:
    """Where hooks pack saved tensors (checkpoints, offloading), keep them: a record is read many times.

    A checkpoint would run the whole solve again for every product.
    """
    private: Any = getattr(torch._C, "_autograd", None)
    hooks = getattr(private, "_top_saved_tensors_default_hooks", None)
    if hooks is None or hooks(True) is None:
        return contextlib.nullcontext()
    # Detached, since a node that keeps its own output would never be freed.
    return torch.autograd.graph.saved_tensors_hooks(torch.Tensor.detach, lambda t: t)


class _AtPoint(Equation):
    """A value computed from a record, as a function of what its stand-ins stand for; inputs (value, *originals).

    Args:
        stand_ins: Tensors in the value's graph.
        first: So many of them are cut off from their originals; the others are aliases, connected to them.
    """

    def __init__(self, stand_ins: tuple[Tensor, ...], first: int) -> None:
        self.stand_ins, self.first = stand_ins, first

    @property
    def event_dims(self) -> Sequence[int]:
        raise UnsupportedError("batched derivatives of higher order are taken by torch.func around fixed_point.")

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs[0].clone(),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        value, *originals = inputs
        (g,) = zeros_for_none(cotangents, outputs)
        records = torch.is_grad_enabled()
        # Where nobody records, the value's own graph leads on to the originals of aliases.
        wanted = [use and (records or i < self.first) for i, use in enumerate(needed[1:])]
        chosen = [t for t, use in zip(self.stand_ins, wanted, strict=True) if use]
        own = _stand_in(g) if records else g
        found = iter(())
        if chosen:
            found = iter(_gradients(value, chosen, own, create_graph=records))

        def at(slope: Tensor) -> Tensor:
            if not (records and slope.requires_grad):
                return slope
            equation = _AtPoint((*self.stand_ins[: self.first], own, *self.stand_ins[self.first :]), self.first + 1)
            return implicit(equation, slope, *originals[: self.first], g, *originals[self.first :])[0]

        return None if records else g, *(at(next(found)) if use else None for use in wanted)

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        raise UnsupportedError("forward mode needs its level around the call of fixed_point.")


def _gradients(value: Tensor, sources: Sequence[Tensor], cotangent: Tensor, create_graph: bool) -> Sequence[Tensor]:
    """Vector-Jacobian products, zero where the value does not depend on a source; the graph is kept."""
    if not sources or not value.requires_grad:
        return [torch.zeros_like(x) for x in sources]
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    return torch.autograd.grad(value, sources, cotangent, create_graph=create_graph, **options)


class _StandIn(Equation):
    """A copy of z that can be differentiated with respect to, and passes nothing on; inputs (anchor, z)."""

    @property
    def event_dims(self) -> Sequence[int]:
        return (0, 0)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (inputs[1].clone(),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        return None, None

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        return zeros_for_none((None,), outputs)

    def align(self, in_dims, inputs) -> tuple[Equation, tuple[Tensor, ...]]:
        """The anchor is never mapped."""
        z, dim = inputs[1], in_dims[1]
        return self, (inputs[0], z if dim is None else z.movedim(dim, 0))


def _stand_in(z: Tensor) -> Tensor:
    anchor = torch.zeros((), dtype=z.dtype, device=z.device, requires_grad=True)
    return implicit(_StandIn(), anchor, z.detach())[0]


def _leads_outside(value: Tensor, boundary: Sequence[Tensor]) -> bool:
    """Whether the graph of a value leads to a leaf without passing the boundary."""
    stack, known = [value.grad_fn], {t.grad_fn for t in boundary}
    while stack:
        node: Any = stack.pop()
        if node is None or node in known or isinstance(getattr(node, "equation", None), _StandIn):
            continue
        known.add(node)
        if hasattr(node, "variable"):  # a leaf's accumulator
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False

"""Products with the derivative of a torch function, usable inside derivatives of any order and inside `torch.func`.

Both products come from reverse mode alone (J t is the pullback of the pullback, which is linear in its cotangent), so a
function needs no forward-mode formulas, and plain forward-mode levels, which cannot be nested, are never entered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

__all__ = ["Tape", "pullback", "pushforward", "recording", "rounding", "transforming"]

Function = Callable[..., Tensor]


def recording() -> bool:
    """Whether somebody may differentiate what is computed now."""
    return torch.is_grad_enabled() or transforming() or forward_ad._current_level >= 0


def transforming() -> bool:
    """Whether a `torch.func` transform is being traced."""
    return torch._C._functorch.maybe_current_level() is not None  # pyright: ignore


def rounding(z: Tensor) -> float:
    """The relative rounding error of what is computed from z here: that of its dtype, or of autocast's."""
    eps, device = torch.finfo(z.dtype).eps, z.device.type
    if z.dtype == torch.float32 and torch.is_autocast_enabled(device):
        return max(eps, torch.finfo(torch.get_autocast_dtype(device)).eps)
    return eps


def pullback(
    fun: Function, primals: Sequence[Tensor], cotangent: Tensor, needed: Sequence[bool] | None = None
) -> tuple[Tensor | None, ...]:
    """Cotangents of the primals of `fun`, None where `needed` is false; differentiable where somebody records."""
    needed = (True,) * len(primals) if needed is None else tuple(needed)
    if not any(needed):
        return (None,) * len(primals)
    if transforming():
        return _functional_pullback(fun, primals, cotangent, needed)
    keep = recording()
    arguments = [_variable(p, keep) if use else (p if keep else p.detach()) for p, use in zip(primals, needed)]
    with torch.enable_grad():
        value = fun(*arguments)
    chosen = [a for a, use in zip(arguments, needed) if use]
    if not value.requires_grad:
        found = [torch.zeros_like(a) for a in chosen]
    else:
        found = torch.autograd.grad(
            value, chosen, cotangent, create_graph=keep, allow_unused=True, materialize_grads=True
        )
    return _scatter(found, needed)


def pushforward(fun: Function, primals: Sequence[Tensor], tangents: Sequence[Tensor | None], like: Tensor) -> Tensor:
    """The tangent of `fun` for tangents of its primals (None where one does not move).

    `like` is any tensor of the shape, dtype and device of the function's value.
    """
    moving = tuple(t is not None for t in tangents)
    chosen = [t for t in tangents if t is not None]
    if not chosen:
        return torch.zeros_like(like)

    def transposed(cotangent: Tensor) -> Tensor:
        # <pullback(cotangent), tangents>: linear in the cotangent, with gradient J t.
        with torch.enable_grad():
            grads = pullback(fun, primals, cotangent, moving)
            return torch.stack(
                [(g * t).sum() for g, t in zip([g for g in grads if g is not None], chosen, strict=True)]
            ).sum()

    if transforming():
        scalar, vjp, *_ = torch.func.vjp(transposed, torch.zeros_like(like))
        return vjp(torch.ones_like(scalar))[0]
    keep = recording()
    with torch.enable_grad():
        # A linear function has the same gradient everywhere: the probe's value is irrelevant.
        probe = torch.zeros_like(like).detach().requires_grad_()
        scalar = transposed(probe)
    if not scalar.requires_grad:
        return torch.zeros_like(like)
    (result,) = torch.autograd.grad(scalar, probe, create_graph=keep, allow_unused=True, materialize_grads=True)
    return result


def _functional_pullback(fun, primals, cotangent, needed):
    chosen = [p for p, use in zip(primals, needed) if use]

    def restricted(*moving: Tensor) -> Tensor:
        remaining = iter(moving)
        return fun(*(next(remaining) if use else p for p, use in zip(primals, needed)))

    _, vjp, *_ = torch.func.vjp(restricted, *chosen)
    return _scatter(vjp(cotangent), needed)


def _variable(p: Tensor, keep: bool) -> Tensor:
    """A tensor to differentiate with respect to: an alias inside the caller's graph, or a fresh leaf."""
    alias = p.view_as(p) if keep else p.detach()
    return alias if alias.requires_grad else alias.detach().requires_grad_() if not keep else alias.requires_grad_()


def _scatter(found: Sequence[Tensor], needed: Sequence[bool]) -> tuple[Tensor | None, ...]:
    remaining = iter(found)
    return tuple(next(remaining) if use else None for use in needed)


class Tape:
    """One recorded evaluation of f(z, *theta), for many products with its derivatives. Plain numerics, first order.

    The evaluation is recorded once; every product is one sweep over the record, so the memory is that of a single
    evaluation however many products are taken.

    Args:
        f: The map, (z, *theta) -> tensor of the shape of z.
        z: Where to linearise, shape (*batch, n).
        theta: Parameters.
        needed: Which parameters `pullback_theta` will be asked for.

    Attributes:
        function: f of z alone.
        z: The point of the evaluation, part of its graph.
        value: f(z) with its graph.
        eps: The relative rounding error of f.
    """

    eps: float

    function: Callable[[Tensor], Tensor]
    z: Tensor
    value: Tensor
    _probe: Tensor | None = None
    _transposed: Tensor | None = None

    def __init__(self, f: Function, z: Tensor, theta: Sequence[Tensor], needed: Sequence[bool] = ()) -> None:
        needed = tuple(needed) or (False,) * len(theta)
        self.needed = needed
        self.function, self.eps = lambda point: f(point, *theta), rounding(z)
        self.z = z.detach().requires_grad_()
        self.theta = [_variable(p, False) if use else p.detach() for p, use in zip(theta, needed, strict=True)]
        with torch.enable_grad():
            self.value = f(self.z, *self.theta)

    def transposed_product(self, u: Tensor) -> Tensor:
        """J'u with J the derivative in z; u of shape (*rhs, *batch, n)."""
        return self._sweep(self.value, self.z, u)

    def product(self, t: Tensor) -> Tensor:
        """J t; t of shape (*rhs, *batch, n)."""
        if self._transposed is None:
            with torch.enable_grad():
                self._probe = torch.zeros_like(self.value).requires_grad_()
                self._transposed = self._gradient(self.value, self.z, self._probe, create_graph=True)
        assert self._probe is not None
        return self._sweep(self._transposed, self._probe, t)

    def pullback_theta(self, u: Tensor) -> tuple[Tensor | None, ...]:
        """Cotangents of the needed parameters for the cotangent `u` of f."""
        chosen = [p for p, use in zip(self.theta, self.needed) if use]
        if not chosen or not self.value.requires_grad:
            return _scatter([torch.zeros_like(p) for p in chosen], self.needed)
        found = torch.autograd.grad(self.value, chosen, u, retain_graph=True, allow_unused=True, materialize_grads=True)
        return _scatter(found, self.needed)

    def _sweep(self, output: Tensor, source: Tensor, vector: Tensor) -> Tensor:
        if vector.dim() == output.dim():
            return self._gradient(output, source, vector)
        extra = vector.shape[: vector.dim() - output.dim()]
        flat = vector.reshape(extra.numel(), *output.shape)
        return self._gradient(output, source, flat, is_grads_batched=True).reshape(*extra, *source.shape)

    @staticmethod
    def _gradient(output: Tensor, source: Tensor, vector: Tensor, **options: bool) -> Tensor:
        if not output.requires_grad:
            return torch.zeros_like(vector)
        (found,) = torch.autograd.grad(
            output, source, vector, retain_graph=True, allow_unused=True, materialize_grads=True, **options
        )
        return found

"""The one autograd function of the package."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from conelayers.implicit.equation import Equation
from conelayers.implicit.older_vmap import by_torch_func

__all__ = ["implicit", "nothing_records"]


def implicit(equation: Equation, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Solve an equation and differentiate its solution implicitly.

    Args:
        equation: What defines the outputs.
        *inputs: Tensors of shape (*batch, *event), see `Equation`.

    Returns:
        The equation's outputs, connected to the inputs for reverse mode, forward mode, their compositions and
        `torch.func` transforms.
    """
    if nothing_records():
        return equation.solve(*inputs)
    return _ImplicitFunction.apply(equation, *inputs)


def nothing_records() -> bool:
    """Whether neither autograd nor forward mode nor a `torch.func` transform watches: then the numerics are all.

    So it is in inference and inside an ordinary backward pass, where the bookkeeping would cost as much as small
    problems do. torch has no public names for the last two questions.
    """
    return (
        not torch.is_grad_enabled()
        and forward_ad._current_level < 0
        and not torch._C._are_functorch_transforms_active()
    )


class _ImplicitFunction(torch.autograd.Function):
    """Autograd rules that delegate to an `Equation`; what is saved is inputs and outputs only."""

    @classmethod
    def apply(cls, *arguments: Any) -> Any:
        # torch binds the arguments to the signature of `forward` on every call, which takes a part of the time of a
        # small solve and changes nothing where there are no defaults.
        if torch._C._are_functorch_transforms_active():
            return super().apply(*arguments)
        plain: Any = super(torch.autograd.Function, cls)
        return plain.apply(*arguments)

    @staticmethod
    def forward(equation: Equation, *inputs: Tensor) -> tuple[Tensor, ...]:
        return equation.solve(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        equation, *tensors = inputs
        ctx.equation, ctx.count = equation, len(tensors)
        ctx.save_for_backward(*tensors, *output)
        ctx.save_for_forward(*tensors, *output)
        ctx.mark_non_differentiable(*(output[i] for i in sorted(equation.nondifferentiable)))
        # Zeros are made here and not by autograd, which would also make them for integer outputs.
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: checkpoints hand them out only once
        inputs, outputs = saved[: ctx.count], saved[ctx.count :]
        needed = ctx.needs_input_grad[1:]
        if not any(needed) or all(g is None for g in cotangents):
            return (None,) * (ctx.count + 1)
        gradients = by_torch_func(lambda *g: ctx.equation.pullback(inputs, outputs, g, needed), cotangents)
        return None, *(
            None if g is None or not use else g if g.shape == x.shape else g.sum_to_size(x.shape)
            for g, x, use in zip(gradients, inputs, needed, strict=True)
        )

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        # torch calls this with forward mode off, so that an outer forward mode would miss what happens here and find
        # second derivatives of zero. On again, it must not see the tangents that are being computed.
        with forward_ad._set_fwd_grad_enabled(True):
            saved = [forward_ad.unpack_dual(value).primal for value in ctx.saved_tensors]
            inputs, outputs = tuple(saved[: ctx.count]), tuple(saved[ctx.count :])
            return tuple(by_torch_func(lambda *t: ctx.equation.pushforward(inputs, outputs, t), tangents))

    @staticmethod
    def vmap(info: Any, in_dims: tuple, equation: Equation, *inputs: Tensor) -> tuple:
        batched, aligned = equation.align(in_dims[1:], inputs)
        outputs = implicit(batched, *aligned)
        carried = batched.carries(tuple(dim is not None for dim in in_dims[1:]), len(outputs))
        padding = equation.padding(in_dims[1:], inputs, aligned, len(outputs))
        outputs = tuple(
            out.reshape(out.shape[0], *out.shape[1 + extra :]) if mapped and extra else out
            for out, mapped, extra in zip(outputs, carried, padding, strict=True)
        )
        return outputs, tuple(0 if mapped else None for mapped in carried)

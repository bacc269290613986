"""Iterative differentiation: autograd through the steps of the inner method, and MAML and ANIL on top of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from conelayers.implicit.bilevel import BilevelProblem, Hypergradient, Tensors, flatten

__all__ = ["adapt", "inner_descent", "iterative_hypergradient"]


def inner_descent(problem: BilevelProblem, w: Tensors, theta: Tensors, steps: int, step: float) -> Tensors:
    """Gradient steps on the inner function, without recording them."""
    theta = tuple(t.detach() for t in theta)
    for _ in range(steps):
        w = tuple(t.detach().requires_grad_() for t in w)
        with torch.enable_grad():
            slope = torch.autograd.grad(problem.inner(w, theta), w)
        w = tuple((t - step * g).detach() for t, g in zip(w, slope, strict=True))
    return w


def iterative_hypergradient(
    problem: BilevelProblem, w: Tensors, theta: Tensors, steps: int, step: float
) -> tuple[Hypergradient, Tensors]:
    """Reverse mode through `steps` gradient steps from w (Franceschi, Donini, Frasconi & Pontil 2017).

    Memory grows with `steps`; the result is the exact gradient of the outer function of the last iterate.

    Returns:
        The hypergradient (its adjoint is the cotangent of the starting point), and the last iterate.
    """
    start = tuple(t.detach().requires_grad_() for t in w)
    theta = tuple(t.detach().requires_grad_() for t in theta)
    with torch.enable_grad():
        point = start
        for _ in range(steps):
            slope = torch.autograd.grad(problem.inner(point, theta), point, create_graph=True)
            point = tuple(t - step * g for t, g in zip(point, slope, strict=True))
        value = problem.outer(point, theta)
        grads = torch.autograd.grad(value, (*theta, *start), allow_unused=True, materialize_grads=True)
    result = Hypergradient(value.detach(), grads[: len(theta)], flatten(grads[len(theta) :]))
    return result, tuple(t.detach() for t in point)


def adapt(
    loss: Callable[[Mapping[str, Tensor]], Tensor],
    parameters: Mapping[str, Tensor],
    steps: int,
    step: float,
    only: Collection[str] | None = None,
    first_order: bool = False,
) -> dict[str, Tensor]:
    """Gradient steps on some parameters of a network, differentiable in their starting values.

    With all parameters this is the inner loop of MAML (Finn, Abbeel & Levine 2017); with those of the head alone, of
    ANIL (Raghu, Raghu, Bengio & Vinyals 2020).

    Args:
        loss: Loss of a parameter dictionary on the task's support set, as `torch.func.functional_call` makes it.
        parameters: Starting values.
        steps: Number of steps.
        step: Their length.
        only: Names that are adapted; all by default.
        first_order: Treat the gradients as constants (first-order MAML).

    Returns:
        All parameters, the adapted ones moved.
    """
    current = dict(parameters)
    names = [name for name in current if only is None or name in only]
    for _ in range(steps):
        grads = torch.autograd.grad(loss(current), [current[name] for name in names], create_graph=not first_order)
        moved = {name: current[name] - step * g for name, g in zip(names, grads, strict=True)}
        current = {**current, **moved}
    return current

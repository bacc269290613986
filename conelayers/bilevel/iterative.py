"""Iterative differentiation: autograd through the steps of the inner method, and MAML and ANIL on top of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from conelayers.bilevel.functions import Tensors, flatten, gradients, leaves, recorded, scalar
from conelayers.bilevel.hypergradient import BilevelProblem, Hypergradient
from conelayers.errors import InvalidArgument
from conelayers.implicit.products import pullback
from conelayers.settings import check_count, check_number

__all__ = ["adapt", "inner_descent", "iterative_hypergradient"]


def inner_descent(problem: BilevelProblem, w: Tensors, theta: Tensors, steps: int, step: float) -> Tensors:
    """Gradient steps on the inner function, without recording them.

    Raises:
        InvalidArgument: w or theta is no tuple of tensors, steps no count, or inner returns no scalar.
    """
    check_count("steps", steps, 0)
    check_number("step", step, "(0, inf)")
    w, theta = leaves("w", w), tuple(t.detach() for t in leaves("theta", theta))
    for _ in range(steps):
        with torch.enable_grad():
            slope = gradients((recorded("inner", problem.inner(w, theta)),), w)
        w = tuple((t - step * g).detach().requires_grad_() for t, g in zip(w, slope, strict=True))
    return tuple(t.detach() for t in w)


def iterative_hypergradient(
    problem: BilevelProblem, w: Tensors, theta: Tensors, steps: int, step: float
) -> tuple[Hypergradient, Tensors]:
    """Reverse mode through `steps` gradient steps from w (Franceschi, Donini, Frasconi & Pontil 2017).

    Memory grows with `steps`; the result is the exact gradient of the outer function of the last iterate.

    Returns:
        The hypergradient (its adjoint is the cotangent of the starting point), and the last iterate.

    Raises:
        InvalidArgument: w or theta is no tuple of tensors, steps no count, or a function returns no scalar.
    """
    check_count("steps", steps, 0)
    check_number("step", step, "(0, inf)")
    start, theta = leaves("w", w), leaves("theta", theta)
    with torch.enable_grad():
        point = start
        for _ in range(steps):
            slope = gradients((recorded("inner", problem.inner(point, theta)),), point, create_graph=True)
            point = tuple(t - step * g for t, g in zip(point, slope, strict=True))
        value = recorded("outer", problem.outer(point, theta))
        grads = gradients((value,), (*theta, *start))
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
        All parameters, the adapted ones moved. Where nobody records derivatives (`torch.no_grad`), without graph.

    Raises:
        InvalidArgument: `only` names what is no floating-point parameter, the loss is no scalar, steps no count.
    """
    check_count("steps", steps, 0)
    check_number("step", step, "(0, inf)")
    current = dict(parameters)
    floating = [name for name, value in current.items() if value.is_floating_point()]
    chosen = floating if only is None else [only] if isinstance(only, str) else list(only)
    unknown = [name for name in chosen if name not in floating]
    if unknown:
        raise InvalidArgument(f"only must name floating-point parameters among {floating}, not {unknown}.")
    names = [name for name in current if name in chosen]

    def at(*values: Tensor) -> Tensor:
        return scalar("loss", loss({**current, **dict(zip(names, values, strict=True))}))

    for _ in range(steps if names else 0):
        values = [current[name] for name in names]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not first_order):
            grads = pullback(at, values, values[0].new_ones(()))
        moved = {name: current[name] - step * g for name, g in zip(names, grads, strict=True) if g is not None}
        current = {**current, **moved}
    return current

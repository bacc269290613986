"""Hyperparameters of any differentiable layer, such as a model declared in CVXPY."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.bilevel.functions import scalar
from conelayers.errors import InvalidArgument
from conelayers.layers._inputs import check_callable
from conelayers.model_selection.criteria import TorchCriterion
from conelayers.model_selection.history import Trial
from conelayers.model_selection.searches import Safeguarded, Search, SearchResult
from conelayers.model_selection.space import LogSpace
from conelayers.settings import check_kind

__all__ = ["tune"]


def tune(
    layer: Callable[..., Tensor | tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
    bounds: Mapping[str, tuple[object, object]],
    *,
    arguments: Callable[..., Sequence[Tensor]] | None = None,
    search: Search | None = None,
    start: Mapping[str, object] | None = None,
    callback: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Minimise a loss of a layer's solution over positive hyperparameters among its parameters.

    Args:
        layer: layer(*params) -> tensor or tuple of tensors, such as a `CvxpyLayer`.
        loss: Scalar torch function of the layer's outputs.
        bounds: {name: (smallest, largest)} for each hyperparameter, numbers or arrays of its shape.
        arguments: Maps the hyperparameters (one tensor each, in the order of `bounds`) to the layer's parameters; by
            default they are its parameters. Data, square roots that DPP asks for, and stacking of folds go here.
        search: Outer method, by default a coarse grid refined by gradients.
        start: {name: value} to start from, for searches that have a start; by default the middle of the bounds.
        callback: Called with every evaluation.

    Returns:
        The best hyperparameters by name, the loss there, and the history.

    Example:
        >>> beta, alpha = cp.Variable(p), cp.Parameter(nonneg=True)
        >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(X @ beta - y) / (2 * n) + alpha * cp.norm1(beta)))
        >>> layer = CvxpyLayer(problem, [alpha], [beta])
        >>> result = tune(layer, lambda b: (X_held @ b - y_held).square().mean(), {"alpha": (1e-3, 1.0)})

    Raises:
        InvalidArgument: The loss is not a scalar, or an argument is wrong; the message names it.
    """
    check_callable("layer", layer)
    check_callable("loss", loss)
    method = search if search is not None else Safeguarded()
    check_kind("search", method, Search)
    space = LogSpace.between(bounds)

    def function(*theta: Tensor) -> Tensor:
        values = theta if arguments is None else arguments(*theta)
        solution = layer(*values)
        out = loss(*((solution,) if isinstance(solution, Tensor) else solution))
        return scalar("loss", out).to(torch.float64)

    begin: Any = None
    if start is not None:
        if not isinstance(start, Mapping) or set(start) != set(bounds):
            raise InvalidArgument(f"start must name {', '.join(bounds)}; got {start!r}")
        begin = space.pack([start[name] for name in bounds])
    return method.run(TorchCriterion(function, space), begin, callback)

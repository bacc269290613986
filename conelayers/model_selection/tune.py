"""Hyperparameters of any differentiable layer, such as a model declared in CVXPY."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.bilevel.functions import scalar
from conelayers.errors import InvalidArgument
from conelayers.layers._inputs import check_callable
from conelayers.layers.cvxpy_layer import CvxpyLayer
from conelayers.model_selection.criteria import TorchCriterion
from conelayers.model_selection.history import Trial
from conelayers.model_selection.searches import Safeguarded, Search, SearchResult
from conelayers.model_selection.space import RealSpace
from conelayers.settings import check_kind

__all__ = ["tune"]


def tune(
    layer: Callable[..., Tensor | tuple[Tensor, ...]],
    loss: Callable[..., Tensor],
    bounds: Mapping[str, tuple[object, object]],
    *,
    arguments: Callable[..., Sequence[Tensor] | Mapping[str, Tensor]] | None = None,
    search: Search | None = None,
    start: Mapping[str, object] | None = None,
    callback: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Minimise a loss of a layer's solution over hyperparameters among its parameters.

    Args:
        layer: layer(*params) -> tensor or tuple of tensors, such as a `CvxpyLayer`.
        loss: Scalar torch function of the layer's outputs.
        bounds: {name: (smallest, largest)} for each hyperparameter, real numbers or arrays of its shape. Positive ones
            are searched in their logarithms, those whose bounds reach zero or below linearly. A `CvxpyLayer` is called
            by name: the names are those of its parameters, in any order; any other layer, in the order of `bounds`.
        arguments: Maps the hyperparameters (one tensor each, in the order of `bounds`) to the layer's parameters, as a
            sequence, or a dictionary by name; by default they are its parameters. Data, square roots that DPP asks for,
            and stacking of folds go here.
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
    space = RealSpace.between(bounds)
    names = _names(layer)
    if arguments is None and names is not None:
        _check_names(names, bounds)

    def function(*theta: Tensor) -> Tensor:
        values: Any = theta if arguments is None else arguments(*theta)
        if arguments is None and names is not None and len(names) > 1:
            values = dict(zip(bounds, theta, strict=True))
        solution = layer(**values) if isinstance(values, Mapping) else layer(*values)
        out = loss(*((solution,) if isinstance(solution, Tensor) else solution))
        return scalar("loss", out).to(torch.float64)

    begin: Any = None
    if start is not None:
        if not isinstance(start, Mapping) or set(start) != set(bounds):
            raise InvalidArgument(f"start must name {', '.join(bounds)}; got {start!r}")
        begin = space.pack([start[name] for name in bounds])
    return method.run(TorchCriterion(function, space), begin, callback)


def _names(layer: Any) -> tuple[str, ...] | None:
    """The names of a layer's parameters, if it has such names."""
    return layer.program.layout.names if isinstance(layer, CvxpyLayer) else None


def _check_names(names: Sequence[str], bounds: Mapping[str, object]) -> None:
    """Refuse hyperparameters that are no parameters of the layer, and parameters without a value."""
    if len(names) == 1 and len(bounds) == 1 and re.fullmatch(r"param\d+", names[0]):
        return  # CVXPY's own name for a parameter without one: a single one cannot be mistaken
    unknown, missing = [n for n in bounds if n not in names], [n for n in names if n not in bounds]
    if unknown or missing:
        found = [f"{', '.join(unknown)} unknown to the layer"] if unknown else []
        found += [f"{', '.join(missing)} missing"] if missing else []
        raise InvalidArgument(
            f"bounds must name the layer's parameters ({', '.join(names)}): {'; '.join(found)}. Name the CVXPY "
            "parameters (cp.Parameter(name='alpha')), or pass arguments=... to map hyperparameters to parameters."
        )

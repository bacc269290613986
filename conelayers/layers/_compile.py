"""Layers inside `torch.compile`: one graph break each, so that no compiler traces through a solver."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

from conelayers.errors import UnsupportedError

__all__ = ["outside_graphs"]

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def outside_graphs(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorator: inside a compiled network, run the function eagerly.

    `torch.compiler.disable` as a decorator would import the compiler, which takes seconds, at import time of this
    package; here it is asked for only while something is being compiled.
    """

    @functools.wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        if torch.compiler.is_compiling():
            return _eagerly(function, args, kwargs)
        return function(*args, **kwargs)

    return wrapper


def _eagerly(function: Callable[..., Result], args: tuple, kwargs: dict[str, Any]) -> Result:
    if torch.compiler.is_exporting():
        raise UnsupportedError(
            "torch.export cannot take an optimization layer: its graph would have to hold the solver. Export the "
            "parts of the network before and after the layer, and call the layer between them."
        )
    torch._dynamo.graph_break(
        msg="an optimization layer runs outside of compiled graphs; leave out fullgraph=True, or compile the parts "
        "of the network before and after the layer"
    )
    eager: Any = torch.compiler.disable(function)
    return eager(*args, **kwargs)

"""What both kinds of layers check of what they are given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.implicit import Derivative, Exact
from conelayers.residual import OnFailure

__all__ = ["by_name", "check_on_failure", "derivative_mode", "result_type"]


def by_name(names: Sequence[str], params: Sequence[Any], named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The parameters in order: those given by position, then the others by name.

    Raises:
        InvalidArgument: If a name is unknown, missing, given twice or shared by several parameters.
    """
    known = ", ".join(names)
    for name in named:
        if name not in names:
            raise InvalidArgument(f"{name!r} is no parameter of this layer; its parameters are {known}.")
    shared = [name for name, count in Counter(names).items() if count > 1 and name in named]
    if shared:
        raise InvalidArgument(f"Several parameters are named {shared[0]!r}; pass them by position, or rename them.")
    twice = [name for name in names[: len(params)] if name in named]
    if twice:
        raise InvalidArgument(f"Parameter {twice[0]!r} is given by position and by name.")
    missing = [name for name in names[len(params) :] if name not in named]
    if missing:
        raise InvalidArgument(
            f"A tensor must be provided for each CVXPY parameter; missing: {', '.join(missing)} (of {known})."
        )
    return (*params, *(named[name] for name in names[len(params) :]))


def derivative_mode(derivative: Derivative | None) -> Derivative:
    """The mode, `Exact()` for None.

    Raises:
        InvalidArgument: If it is no mode.
    """
    if derivative is None:
        return Exact()
    if not isinstance(derivative, Derivative):
        raise InvalidArgument(f"derivative must be a value such as Exact() or Smoothed(mu), got {derivative!r}.")
    return derivative


def check_on_failure(on_failure: OnFailure) -> OnFailure:
    """The same word, if it is a known one.

    Raises:
        InvalidArgument: If it is not.
    """
    if on_failure not in ("raise", "nan", "keep"):
        raise InvalidArgument(f"on_failure must be 'raise', 'nan' or 'keep', got {on_failure!r}.")
    return on_failure


def result_type(values: Sequence[Tensor]) -> torch.dtype:
    """The floating type of what is computed from `values`; the default type for integers.

    Raises:
        InvalidArgument: If they are on several devices.
    """
    if not values:
        return torch.get_default_dtype()
    dtype, device = values[0].dtype, values[0].device
    for value in values[1:]:
        dtype = torch.promote_types(dtype, value.dtype)
        if value.device != device:
            devices = sorted({str(v.device) for v in values})
            raise InvalidArgument(f"All tensors must be on one device, got {devices}.")
    if dtype.is_complex:
        dtype = dtype.to_real()
    return dtype if dtype.is_floating_point else torch.get_default_dtype()

"""Checks of the arrays given to a layer: the rules of `ParameterLayout.validate`, for arrays and traced values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from conelayers.canonicalize.parameters import ParameterLayout
from conelayers.errors import InvalidArgument

__all__ = ["as_arrays", "batch_shape", "float_type"]


def as_arrays(layout: ParameterLayout, values: Sequence[Any]) -> list[jax.Array]:
    """The values as arrays; raises `InvalidArgument` where one is no array of numbers."""
    arrays = []
    for index, value in enumerate(values):
        try:
            arrays.append(jnp.asarray(value))
        except (TypeError, ValueError) as error:
            name = f" ({layout.names[index]})" if index < len(layout.names) else ""
            raise InvalidArgument(
                f"parameter {index}{name} is a {type(value).__name__}; expected an array of numbers, or what "
                f"jax.numpy.asarray makes one of ({error})."
            ) from error
    return arrays


def batch_shape(layout: ParameterLayout, arrays: Sequence[jax.Array]) -> tuple[int, ...]:
    """The common batch axes; raises `InvalidArgument` as the torch layer does."""
    # Only shapes and kinds matter: tensors without memory stand for the arrays.
    kinds = [torch.complex128 if jnp.iscomplexobj(a) else torch.float64 for a in arrays]
    stand_ins = [torch.empty(a.shape, dtype=kind, device="meta") for a, kind in zip(arrays, kinds, strict=True)]
    return tuple(layout.validate(stand_ins))


def float_type(arrays: Sequence[jax.Array]) -> np.dtype:
    """float64 or float32: the floating type of what is computed from the arrays."""
    # A Python float is weak: integers alone become JAX's default, and floating arrays keep their type.
    found = jnp.result_type(*arrays, float)
    return np.dtype(np.float64 if np.dtype(found) in (np.float64, np.complex128) else np.float32)

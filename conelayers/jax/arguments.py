"""Checks of the arrays given to a layer: the rules of `ParameterLayout.validate`, for arrays and traced values."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch

from conelayers.canonicalize.parameters import ParameterLayout

__all__ = ["batch_shape", "float_type"]


def batch_shape(layout: ParameterLayout, arrays: Sequence[jax.Array]) -> tuple[int, ...]:
    """The common batch axes; raises `InvalidArgument` as the torch layer does."""
    # Only shapes and kinds matter: tensors without memory stand for the arrays.
    kinds = [torch.complex128 if jnp.iscomplexobj(a) else torch.float64 for a in arrays]
    stand_ins = [torch.empty(a.shape, dtype=kind, device="meta") for a, kind in zip(arrays, kinds, strict=True)]
    return tuple(layout.validate(stand_ins))


def float_type(arrays: Sequence[jax.Array]) -> np.dtype:
    """float64 or float32: the floating type of what is computed from the arrays."""
    found = jnp.result_type(*arrays, jnp.float32) if arrays else jnp.result_type(float)
    return np.dtype(np.float64 if np.dtype(found) in (np.float64, np.complex128) else np.float32)

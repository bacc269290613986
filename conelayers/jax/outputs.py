"""From cone solutions to the user's variables, in JAX: `Output.read` for arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from conelayers.canonicalize.outputs import Output

__all__ = ["read_output"]


def read_output(output: Output, x: jax.Array, y: jax.Array) -> jax.Array:
    """A requested variable, shape (*batch, *output.shape), from x (*batch, n) or y (*batch, m)."""
    source = x if output.source == "primal" else y
    matrix = sp.coo_array(output.matrix)
    height = int(np.asarray(matrix.shape)[0])
    columns, rows = matrix.col.astype(np.int32), matrix.row.astype(np.int32)
    entries = jnp.take(source, columns, axis=-1) * jnp.asarray(matrix.data, dtype=source.dtype)
    if not np.array_equal(rows, np.arange(height)):
        entries = jnp.zeros((*source.shape[:-1], height), source.dtype).at[..., rows].add(entries)
    if output.is_complex:
        real, imag = jnp.split(entries, 2, axis=-1)
        entries = jax.lax.complex(real, imag)
    value = entries.reshape((*source.shape[:-1], *output.shape))
    return jnp.exp(value) if output.exponentiate else value

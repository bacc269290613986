"""Products with P and A on their fixed patterns, in differentiable torch operations on any batch axes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from conelayers.program.structure import ConeStructure

__all__ = ["A_times", "A_transpose_times", "P_times", "outer", "symmetric_outer"]


def A_times(structure: ConeStructure, A: Tensor, x: Tensor) -> Tensor:
    """A x for A values (*batch, A_nnz) and x (*batch, n); shape (*batch, m)."""
    rows, columns = _index(structure.A_indices, x), _index(structure.A_columns, x)
    return _scatter(A * x[..., columns], rows, structure.m)


def A_transpose_times(structure: ConeStructure, A: Tensor, y: Tensor) -> Tensor:
    """A'y for A values (*batch, A_nnz) and y (*batch, m); shape (*batch, n)."""
    rows, columns = _index(structure.A_indices, y), _index(structure.A_columns, y)
    return _scatter(A * y[..., rows], columns, structure.n)


def P_times(structure: ConeStructure, P: Tensor, x: Tensor) -> Tensor:
    """P x for the upper-triangle values (*batch, P_nnz) of a symmetric P and x (*batch, n); shape (*batch, n)."""
    if structure.P_nnz == 0:
        return x.new_zeros((*torch.broadcast_shapes(P.shape[:-1], x.shape[:-1]), structure.n))
    rows, columns = _index(structure.P_indices, x), _index(structure.P_columns, x)
    strict = _index(structure.P_indices != structure.P_columns, x)
    upper = _scatter(P * x[..., columns], rows, structure.n)
    return upper + _scatter(torch.where(strict, P * x[..., rows], 0.0), columns, structure.n)


def outer(structure: ConeStructure, left: Tensor, right: Tensor) -> Tensor:
    """Entries of left right' on the pattern of A; left (*batch, m), right (*batch, n) to (*batch, A_nnz)."""
    rows, columns = _index(structure.A_indices, left), _index(structure.A_columns, left)
    return left[..., rows] * right[..., columns]


def symmetric_outer(structure: ConeStructure, left: Tensor, right: Tensor) -> Tensor:
    """Gradient of left'P right in the stored values of P: an off-diagonal entry stands for two places."""
    rows, columns = _index(structure.P_indices, left), _index(structure.P_columns, left)
    strict = _index(structure.P_indices != structure.P_columns, left)
    product = left[..., rows] * right[..., columns]
    return product + torch.where(strict, left[..., columns] * right[..., rows], 0.0)


def _index(indices: np.ndarray, like: Tensor) -> Tensor:
    return torch.as_tensor(indices, device=like.device)


def _scatter(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Sums of `values` (*batch, nnz) in `size` bins along the last axis."""
    return values.new_zeros((*values.shape[:-1], size)).index_add(-1, index, values)

"""Symmetric matrices as vectors: the only file that knows the order of a triangle and its sqrt(2).

A symmetric matrix of order n is the vector of its **lower** triangle, column by column, with the off-diagonal
entries times sqrt(2), so that <svec(X), svec(Y)> = tr(X Y) and svec is an isometry. (SCS uses the same order;
Clarabel takes the upper triangle column by column, see `upper_order`.)
"""

import functools
import math

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument

__all__ = ["lower_order", "matrix_order", "smat", "svec", "svec_basis", "svec_size", "triangle", "upper_order"]


def svec_size(order: int) -> int:
    """Length of svec of a matrix of this order, n (n + 1) / 2."""
    return order * (order + 1) // 2


def matrix_order(size: int) -> int:
    """Order of the matrices whose svec has this length; InvalidArgument if there is none."""
    order = (math.isqrt(8 * size + 1) - 1) // 2
    if svec_size(order) != size:
        raise InvalidArgument(f"size must be a triangular number n (n + 1) / 2, got {size}.")
    return order


@functools.lru_cache(maxsize=256)
def _triangle(order: int, device: torch.device) -> tuple[Tensor, Tensor]:
    # The upper triangle row by row is, transposed, the lower triangle column by column.
    columns, rows = torch.triu_indices(order, order, device=device)
    return rows, columns


def triangle(order: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Row and column (row >= column) of each entry of svec, int64, shape (n (n + 1) / 2,) each."""
    return _triangle(order, torch.device(device))


@functools.lru_cache(maxsize=256)
def _positions(order: int, device: torch.device) -> Tensor:
    rows, columns = _triangle(order, device)
    positions = torch.zeros(order, order, dtype=torch.int64, device=device)
    entries = torch.arange(svec_size(order), device=device)
    positions[rows, columns] = entries
    positions[columns, rows] = entries
    return positions


@functools.lru_cache(maxsize=256)
def _scales(order: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    rows, columns = _triangle(order, device)
    scales = torch.full(rows.shape, math.sqrt(2.0), dtype=dtype, device=device)  # not where(), which rounds to float32
    return scales.masked_fill(rows == columns, 1.0)


def svec(matrix: Tensor) -> Tensor:
    """Vector of a symmetric matrix.

    Args:
        matrix: shape (*batch, n, n); only its lower triangle is read.

    Returns:
        shape (*batch, n (n + 1) / 2).
    """
    order = matrix.shape[-1]
    rows, columns = _triangle(order, matrix.device)
    return matrix[..., rows, columns] * _scales(order, matrix.dtype, matrix.device)


def smat(vector: Tensor) -> Tensor:
    """Symmetric matrix of a vector, the inverse of `svec`.

    Args:
        vector: shape (*batch, n (n + 1) / 2).

    Returns:
        shape (*batch, n, n).

    Raises:
        InvalidArgument: the last axis is no triangular number.
    """
    order = matrix_order(vector.shape[-1])
    entries = vector / _scales(order, vector.dtype, vector.device)
    return entries[..., _positions(order, vector.device)]


def svec_basis(vectors: Tensor) -> Tensor:
    """Orthonormal basis of svec space: svec(q_i q_i^T) and svec(q_i q_j^T + q_j q_i^T) / sqrt(2).

    Args:
        vectors: shape (*batch, n, n), orthonormal columns q_i.

    Returns:
        shape (*batch, d, d) with d = n (n + 1) / 2; column k belongs to the pair (i, j) at entry k of
        `triangle`.
    """
    order = vectors.shape[-1]
    rows, columns = _triangle(order, vectors.device)
    scales = _scales(order, vectors.dtype, vectors.device)
    left, right = vectors[..., rows], vectors[..., columns]  # shape: (*batch, n, d)
    products = left.unsqueeze(-2) * right.unsqueeze(-3)  # shape: (*batch, n, n, d), entry (a, b) = q_i[b] q_j[a]
    products = (products + products.transpose(-2, -3)) / 2
    return products[..., rows, columns, :] * scales.unsqueeze(-1) * scales


def upper_order(order: int) -> Tensor:
    """Permutation to the upper triangle column by column: upper = lower[upper_order(n)], int64, shape (d,)."""
    columns = torch.arange(order).repeat_interleave(torch.arange(1, order + 1))
    rows = torch.arange(svec_size(order)) - columns * (columns + 1) // 2
    return _positions(order, torch.device("cpu"))[rows, columns]


def lower_order(order: int) -> Tensor:
    """Inverse of `upper_order`: lower = upper[lower_order(n)]."""
    return torch.argsort(upper_order(order))

"""Assembly of the quasidefinite matrix K = [[P, A'], [A, -W]], W = D^-1 - I, on one fixed upper-triangle pattern."""

from __future__ import annotations

import dataclasses
import threading
import weakref

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import ConeDerivative
from conelayers.linalg import SparsePattern
from conelayers.program import ConeStructure

__all__ = ["KKTPattern", "assemble", "block_entries", "kkt_pattern"]

_SMALLEST_EIGENVALUE = 1e-12
_SMALLEST_IN_BLOCK = 1e-8
"""Eigenvalues of D are raised to these before inversion; refinement on the exact matrix removes the difference.

In a block the large eigenvalues of W bury the small ones under their roundoff, so they may not be as large there.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class KKTPattern:
    """Where the entries of K's upper triangle are, and where each of P, A, W and the diagonal goes among them.

    Attributes:
        n: Number of primal variables; the rows of x come first.
        pattern: Upper triangle of K, order n + m, columns sorted.
        rows, columns: Row and column of each entry, int64, shape (nnz,).
        P, A, W: Positions, among the entries, of the values of P (P_nnz,), A (A_nnz,) and of the blocks of W, which
            are stored group by group, block by block, upper triangle row by row.
        diagonal: Positions of the diagonal entries, shape (n + m,).
    """

    n: int
    pattern: SparsePattern
    rows: Tensor
    columns: Tensor
    P: Tensor
    A: Tensor
    W: Tensor
    diagonal: Tensor


_patterns: weakref.WeakKeyDictionary[ConeStructure, KKTPattern] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def kkt_pattern(structure: ConeStructure) -> KKTPattern:
    """The pattern of a structure, made once and kept for as long as the structure lives."""
    with _lock:
        if structure not in _patterns:
            _patterns[structure] = _make(structure)
        return _patterns[structure]


def block_entries(structure: ConeStructure) -> int:
    """Number of entries of all diagonal blocks of D, before any of them is formed."""
    return sum(1 if _is_scalar(cone) else cone.dim**2 for cone in structure.cone.cones)


def assemble(structure: ConeStructure, P: Tensor, A: Tensor, D: ConeDerivative) -> Tensor:
    """Values of K's upper triangle, shape (B, nnz); P (1 or B, P_nnz), A (1 or B, A_nnz), D with batch axis B."""
    symbolic, device = kkt_pattern(structure), A.device
    W = _block_values(D, A)
    batch = max(P.shape[0], A.shape[0], W.shape[0])
    values = A.new_zeros(batch, len(symbolic.rows))
    for source, target in ((P, symbolic.P), (A, symbolic.A), (-W, symbolic.W)):
        # No entry of P, A or W falls on one of another; the diagonal is part of P's and W's places.
        values[:, target.to(device)] = source.expand(batch, -1)
    return values


def _is_scalar(cone) -> bool:
    """Whether the blocks of D are numbers."""
    return cone.atoms()[0].dim == 1


def _block_values(D: ConeDerivative, like: Tensor) -> Tensor:
    """Upper triangles of the blocks of W = U (1/lambda - 1) U', concatenated, shape (B, entries)."""
    parts = []
    for block in D.spectrum():
        size = block.values.shape[-1]
        smallest = _SMALLEST_EIGENVALUE if size == 1 else _SMALLEST_IN_BLOCK
        weights = 1 / block.values.clamp(min=smallest) - 1
        if size == 1:
            parts.append(weights.flatten(-2))
            continue
        W = (block.vectors * weights.clamp(min=0).unsqueeze(-2)) @ block.vectors.mT  # shape: (B, count, d, d)
        i, j = torch.triu_indices(size, size, device=W.device)
        parts.append(W[..., i, j].flatten(-2))
    return torch.cat(parts, -1) if parts else like.new_zeros(1, 0)


def _make(structure: ConeStructure) -> KKTPattern:
    n, m = structure.n, structure.m
    size = n + m
    W_rows, W_columns = _block_positions(structure)
    pieces = [
        (structure.P_indices, structure.P_columns),
        (structure.A_columns, n + structure.A_indices),
        (n + np.minimum(W_rows, W_columns), n + np.maximum(W_rows, W_columns)),
        (np.arange(size), np.arange(size)),
    ]
    keys = [columns * size + rows for rows, columns in pieces]
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    rows, columns = unique % max(size, 1), unique // max(size, 1)
    indptr = np.searchsorted(columns, np.arange(size + 1)).astype(np.int64)
    P, A, W, diagonal = np.split(inverse, np.cumsum([len(key) for key in keys])[:-1])
    return KKTPattern(
        n,
        SparsePattern((size, size), indptr, rows.astype(np.int64)),
        *(
            torch.from_numpy(np.ascontiguousarray(index, dtype=np.int64))
            for index in (rows, columns, P, A, W, diagonal)
        ),
    )


def _block_positions(structure: ConeStructure) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns within W of the entries that `_block_values` lists, from D at an arbitrary point."""
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for block in structure.cone.dual_derivative(torch.ones(structure.m, dtype=torch.float64)).spectrum():
        members = block.rows.cpu().numpy()  # shape: (count, d)
        i, j = np.triu_indices(members.shape[1])
        rows.append(members[:, i].reshape(-1))
        columns.append(members[:, j].reshape(-1))
    return np.concatenate(rows), np.concatenate(columns)

"""What a hidden neuron sees of the data: the rows of X, or what batch normalization makes of them.

A batch-normalized neuron sees gamma (I - 11'/n) X u / |(I - 11'/n) X u| + alpha 1 / sqrt(n). With
(I - 11'/n) X = U S V' and q = S V'u / |S V'u| it is [U, 1/sqrt n] s: linear in s = (gamma q, alpha), which is
arbitrary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from conelayers.errors import InvalidArgument

__all__ = ["Normalized", "Plain", "as_matrix"]


def as_matrix(name: str, X: Any) -> np.ndarray:
    """A finite real matrix with at least one row and column, in float64.

    Raises:
        InvalidArgument: If it is none.
    """
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu().numpy()
    try:
        rows = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"{name} must be a real matrix, got {X!r}.") from error
    if rows.ndim != 2 or 0 in rows.shape or not np.isfinite(rows).all():
        raise InvalidArgument(f"{name} must be a finite matrix (n, d), n, d >= 1; got shape {rows.shape}.")
    return rows


class Plain:
    """The rows themselves.

    Attributes:
        matrix: Features of the training rows, shape (n, k).
        map: Features are (x - mean) map, then `tail` columns, shape (d, k - len(tail)).
        mean: Shape (d,).
        tail: Constant features.
    """

    def __init__(self, X: np.ndarray) -> None:
        self.matrix, self.map = X, np.eye(X.shape[1])
        self.mean, self.tail = np.zeros(X.shape[1]), np.zeros(0)


class Normalized:
    """[U, 1/sqrt n] for the training rows, and V S^-1 (x - mean), 1/sqrt n for others; attributes as `Plain`.

    Raises:
        InvalidArgument: If all rows are equal: there is nothing to normalize.
    """

    def __init__(self, X: np.ndarray) -> None:
        n = len(X)
        self.mean = X.mean(axis=0)
        U, values, axes = np.linalg.svd(X - self.mean, full_matrices=False)
        rank = int((values > max(X.shape) * np.finfo(float).eps * max(values.max(), np.abs(self.mean).max())).sum())
        if rank == 0:
            raise InvalidArgument("X has equal rows: batch normalization would divide by zero.")
        self.map = axes[:rank].T / values[:rank]
        self.tail = np.array([1 / np.sqrt(n)])
        self.matrix = np.column_stack([U[:, :rank], np.full(n, self.tail[0])])

"""scipy.sparse matrices, or some rows of one, whose products stay differentiable to any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.implicit import Linear, implicit
from conelayers.lasso._compiled import compiled, threads_for
from conelayers.lasso.designs.base import Design, plain_array, plain_numbers

__all__ = ["SparseDesign"]


@dataclass(frozen=True)
class _Product:
    """X times a vector, as numerics of a linear map."""

    matrix: Any

    def apply_linear(self, theta: Tensor) -> Tensor:
        """X theta for theta of shape (*batch, p)."""
        return self._times(self.matrix, theta)

    apply = apply_linear

    def apply_transpose(self, values: Tensor) -> Tensor:
        """X' values for values of shape (*batch, n)."""
        return self._times(self.matrix.T, values)

    @staticmethod
    def _times(matrix: Any, vectors: Tensor) -> Tensor:
        # explicit sizes: a support may be empty, and then -1 is ambiguous
        batch = vectors.shape[:-1]
        flat = vectors.detach().reshape(math.prod(batch), vectors.shape[-1]).numpy()
        out = np.ascontiguousarray((matrix @ flat.T).T)
        return torch.from_numpy(out).reshape(*batch, matrix.shape[0])


@dataclass(frozen=True)
class _Gram:
    """h -> X' diag(h) X flattened, a linear map of the weights h."""

    matrix: Any

    def apply_linear(self, theta: Tensor) -> Tensor:
        """Gram matrices for theta of shape (*batch, n)."""
        flat = theta.detach().reshape(-1, theta.shape[-1]).numpy()
        out = [self.gram(h).ravel() for h in flat]
        return torch.from_numpy(np.stack(out)).reshape(*theta.shape[:-1], -1)

    apply = apply_linear

    def apply_transpose(self, values: Tensor) -> Tensor:
        """The diagonal of X G X' for G of shape (*batch, p p)."""
        p = self.matrix.shape[1]
        flat = values.detach().reshape(-1, p, p).numpy()
        out = [np.asarray(self.matrix.multiply(self.matrix @ g).sum(1)).ravel() for g in flat]
        return torch.from_numpy(np.stack(out)).reshape(*values.shape[:-1], -1)

    def gram(self, h: np.ndarray) -> np.ndarray:
        """One Gram matrix."""
        scaled = self.matrix.astype(np.float64)
        scaled.data *= h[self.matrix.indices]
        return (scaled.T @ self.matrix).toarray()


class SparseDesign(Design):
    """A scipy.sparse matrix in compressed columns, on the CPU, of which only the rows in `index` count if there is one.

    Products and columns are read from the matrix as it is stored, in single or double precision. Where a derivative is
    being recorded products run as `Linear` equations, so that derivatives of every order and `torch.func` transforms
    exist.
    """

    def __init__(self, matrix: Any, index: np.ndarray | None = None) -> None:
        # matrix: any scipy.sparse matrix or array
        stored = matrix.tocsc()
        if stored.dtype not in (np.float64, np.float32):
            stored = stored.astype(np.float64)
        self._stored, self._index, self._place = stored, index, None
        if index is not None:
            self._place = np.full(stored.shape[0], -1)
            self._place[index] = np.arange(len(index))

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of features."""
        n, p = self._stored.shape
        return (n if self._index is None else len(self._index), p)

    @property
    def device(self) -> torch.device:
        """Where vectors live."""
        return torch.device("cpu")

    @property
    def matrix(self) -> Any:
        """X in compressed columns; made on demand where it is some rows of another."""
        if self._index is None:
            return self._stored
        return self._chosen(np.arange(self.shape[1]))

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self._stored.indptr, self._stored.indices, self._stored.data

    def matmul(self, coef: Tensor) -> Tensor:
        """See `Design.matmul`."""
        w, kernels = plain_array(coef), compiled()
        if w is None or kernels is None:
            return self._rows_of(self._linear(coef, False))
        two = np.ascontiguousarray(w.reshape(w.shape[0], -1 if w.size else math.prod(w.shape[1:])))
        out = kernels.csc_times(*self._parts, self._stored.shape[0], two)
        return self._rows_of(torch.from_numpy(out).reshape(-1, *coef.shape[1:]))

    def rmatmul(self, residual: Tensor) -> Tensor:
        """See `Design.rmatmul`."""
        r, kernels = plain_array(residual), compiled()
        if r is None or kernels is None:
            if self._index is not None:
                empty = residual.new_zeros((self._stored.shape[0], *residual.shape[1:]))
                residual = empty.index_copy(0, torch.from_numpy(self._index), residual)
            return self._linear(residual, True)
        two = r.reshape(r.shape[0], -1)
        if self._index is not None:
            two, some = np.zeros((self._stored.shape[0], two.shape[1])), two
            two[self._index] = some
        out = kernels.csc_transposed(*self._parts, np.ascontiguousarray(two), threads_for(self._stored.nnz))
        return torch.from_numpy(out).reshape(-1, *residual.shape[1:])

    def _linear(self, vector: Tensor, transposed: bool) -> Tensor:
        by_output = vector.mT if vector.ndim == 2 else vector
        (out,) = implicit(Linear(_Product(self._stored), transposed), by_output)
        return out.mT if vector.ndim == 2 else out

    def _rows_of(self, values: Tensor) -> Tensor:
        return values if self._index is None else values.index_select(0, torch.from_numpy(self._index))

    def columns(self, index: Tensor) -> Design:
        """See `Design.columns`."""
        return SparseDesign(self._chosen(plain_numbers(index)))

    def _chosen(self, features: np.ndarray) -> Any:
        kernels = compiled()
        if kernels is None:
            rows = self._stored if self._index is None else self._stored.tocsr()[self._index].tocsc()
            return rows[:, features].astype(np.float64)
        indptr, indices, data = kernels.csc_columns(*self._parts, np.ascontiguousarray(features), self._place)
        return sp.csc_array((data, indices, indptr), shape=(self.shape[0], len(features)))

    def rows(self, index: Tensor) -> Design:
        """See `Design.rows`."""
        chosen = plain_numbers(index)
        return SparseDesign(self._stored, chosen if self._index is None else self._index[chosen])

    def dense(self) -> Tensor:
        """See `Design.dense`."""
        return torch.from_numpy(self.matrix.toarray().astype(np.float64, copy=False))

    def gram(self, weights: Tensor) -> Tensor:
        """See `Design.gram`."""
        array, matrix = plain_array(weights), self.matrix
        if array is not None:
            return torch.from_numpy(_Gram(matrix).gram(array))
        (out,) = implicit(Linear(_Gram(matrix)), weights)
        return out.reshape(self.shape[1], self.shape[1])

    def squared_norms(self, weights: Tensor) -> Tensor:
        """See `Design.squared_norms`."""
        kernels, h = compiled(), weights.detach().numpy()
        if self._index is not None:
            h = np.zeros(self._stored.shape[0])
            h[self._index] = weights.detach().numpy()
        if kernels is None:
            return torch.from_numpy(np.asarray(self._stored.power(2).T @ h, dtype=np.float64))
        return torch.from_numpy(kernels.csc_squared(*self._parts, np.ascontiguousarray(h)))

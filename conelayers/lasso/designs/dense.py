"""Dense tensors on any device, or some rows of one, which are read where they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.lasso._compiled import compiled, threads_for
from conelayers.lasso.designs.base import Design, TensorDesign, plain_array

__all__ = ["DenseDesign"]

_SMALL = 2**19  # multiplications up to which NumPy's product, on one thread, is quicker than waking torch's threads
_BLOCK = 2**19  # entries of the rows that are scaled at a time where a Gram matrix is formed
_FEW = 16  # one feature in so many in use: picking them is quicker than reading all


class DenseDesign(TensorDesign):
    """A dense tensor on any device, of which only the rows in `index` count if there is one.

    Single precision stays single where the kernels read it (constants on the CPU); vectors are in double precision.
    """

    def __init__(self, matrix: Tensor, index: Tensor | None = None) -> None:
        self.matrix, self.index = matrix, index

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of features."""
        n, p = self.matrix.shape
        return (n if self.index is None else self.index.numel(), p)

    def _memory(self, *vectors: Tensor) -> tuple[Any, ...] | None:
        """Kernels, X, which rows, and vectors, as arrays; None where they are not to be had."""
        kernels, X = compiled(), plain_array(self.matrix)
        arrays = [plain_array(v) for v in vectors]
        if kernels is None or X is None or not X.flags.c_contiguous or any(a is None for a in arrays):
            return None
        return kernels, X, None if self.index is None else self.index.numpy(), *arrays

    @property
    def _as_it_is(self) -> bool:
        """Whether the tensor itself is X."""
        return self.index is None and self.matrix.dtype == torch.float64

    def matmul(self, coef: Tensor) -> Tensor:
        """See `Design.matmul`."""
        large = self.matrix.numel() >= _BLOCK
        memory = self._memory(coef) if large or not self._as_it_is else None
        if memory is None:
            return self.dense() @ coef if self.index is None else (self._whole() @ coef).index_select(0, self.index)
        kernels, X, index, w = memory
        used = np.flatnonzero(w if w.ndim == 1 else w.any(1))
        if used.size * _FEW > w.shape[0]:
            if self._as_it_is:
                return self.matrix @ coef
            used = None
        B = np.ascontiguousarray(np.atleast_2d((w if used is None else w[used]).T))
        threads = threads_for(self.shape[0] * B.shape[1])
        return torch.from_numpy(kernels.rows_times(X, index, B, used, threads)).reshape(-1, *coef.shape[1:])

    def rmatmul(self, residual: Tensor) -> Tensor:
        """See `Design.rmatmul`."""
        memory = None if self._as_it_is else self._memory(residual)
        if memory is None:
            if self.index is not None:
                empty = residual.new_zeros((self.matrix.shape[0], *residual.shape[1:]))
                residual = empty.index_copy(0, self.index, residual)
            return self._whole().mT @ residual
        kernels, X, index, r = memory
        R = np.ascontiguousarray(np.atleast_2d(r.T))
        out = torch.from_numpy(kernels.rows_transposed(X, index, R, threads_for(X.size)))
        return out[0] if residual.ndim == 1 else out.mT.contiguous()

    def columns(self, index: Tensor) -> Design:
        """See `Design.columns`."""
        memory = None if self._as_it_is else self._memory(index)
        if memory is None:
            return DenseDesign(self._rows_of(self.matrix.index_select(1, index)).to(torch.float64))
        kernels, X, rows, features = memory
        threads = threads_for(self.shape[0] * features.size)
        return DenseDesign(torch.from_numpy(kernels.rows_chosen(X, rows, np.ascontiguousarray(features), threads)))

    def rows(self, index: Tensor) -> Design:
        """See `Design.rows`."""
        return DenseDesign(self.matrix, index if self.index is None else self.index.index_select(0, index))

    def _rows_of(self, matrix: Tensor) -> Tensor:
        return matrix if self.index is None else matrix.index_select(0, self.index)

    def _whole(self) -> Tensor:
        return self.matrix.to(torch.float64)

    def dense(self) -> Tensor:
        """See `Design.dense`."""
        return self._rows_of(self.matrix).to(torch.float64)

    def gram(self, weights: Tensor) -> Tensor:
        """See `Design.gram`."""
        n, p = self.shape
        if n * p > _BLOCK and plain_array(self.matrix) is not None and plain_array(weights) is not None:
            return self._gram_by_blocks(weights)
        matrix = self.dense()
        X, h = plain_array(matrix), plain_array(weights)
        if X is not None and h is not None and X.size * X.shape[1] <= _SMALL:
            return torch.from_numpy(X.T @ (X * h[:, None]))
        return matrix.mT @ (matrix * weights[:, None])

    def _gram_by_blocks(self, weights: Tensor) -> Tensor:
        """The Gram matrix from a few rows at a time: no copy of X, scaled or not, is made."""
        n, p = self.shape
        total, size = weights.new_zeros(p, p), max(_BLOCK // p, 1)
        for low in range(0, n, size):
            some = slice(low, low + size)
            block = (self.matrix[some] if self.index is None else self.matrix[self.index[some]]).to(torch.float64)
            total.addmm_(block.mT, block * weights[some, None])
        return total

    def squared_norms(self, weights: Tensor) -> Tensor:
        """See `Design.squared_norms`."""
        memory = self._memory(weights)
        if memory is None:
            return self.dense().square().mT @ weights
        kernels, X, index, h = memory
        return torch.from_numpy(kernels.rows_squared(X, index, np.ascontiguousarray(h), threads_for(X.size)))

"""Torch sparse tensors, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from conelayers.lasso.designs.base import Design
from conelayers.lasso.designs.dense import DenseDesign

__all__ = ["TorchSparseDesign"]


class TorchSparseDesign(Design):
    """A torch sparse tensor, kept on its device; the columns of a support are gathered into a dense block."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.to_sparse_coo().coalesce().to(torch.float64)
        self._by_row = self.matrix.to_sparse_csr()
        self._by_column = self.matrix.t().coalesce().to_sparse_csr()

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of features."""
        return (self.matrix.shape[0], self.matrix.shape[1])

    @property
    def device(self) -> torch.device:
        """Where vectors live."""
        return self.matrix.device

    def matmul(self, coef: Tensor) -> Tensor:
        """See `Design.matmul`."""
        return self._by_row @ coef

    def rmatmul(self, residual: Tensor) -> Tensor:
        """See `Design.rmatmul`."""
        return self._by_column @ residual

    def _take(self, index: Tensor, axis: int) -> Tensor:
        # dense block of the chosen rows or columns, by scattering the entries that fall in it
        where = torch.full((self.shape[axis],), -1, dtype=torch.int64, device=self.device)
        where[index] = torch.arange(index.numel(), device=self.device)
        entries, values = self.matrix.indices(), self.matrix.values()
        position = where[entries[axis]]
        kept = position >= 0
        shape = [self.shape[0], self.shape[1]]
        shape[axis] = index.numel()
        block = torch.zeros(shape, dtype=torch.float64, device=self.device)
        place = [entries[0][kept], entries[1][kept]]
        place[axis] = position[kept]
        return block.index_put(tuple(place), values[kept], accumulate=True)

    def columns(self, index: Tensor) -> Design:
        """See `Design.columns`."""
        return DenseDesign(self._take(index, 1))

    def rows(self, index: Tensor) -> Design:
        """See `Design.rows`."""
        position = torch.full((self.shape[0],), -1, dtype=torch.int64, device=self.device)
        position[index] = torch.arange(index.numel(), device=self.device)
        entries = self.matrix.indices()
        kept = position[entries[0]] >= 0
        place = torch.stack([position[entries[0][kept]], entries[1][kept]])
        return TorchSparseDesign(
            torch.sparse_coo_tensor(place, self.matrix.values()[kept], (index.numel(), self.shape[1]))
        )

    def dense(self) -> Tensor:
        """See `Design.dense`."""
        return self.matrix.to_dense()

    def gram(self, weights: Tensor) -> Tensor:
        """See `Design.gram`."""
        return DenseDesign(self.dense()).gram(weights)

    def squared_norms(self, weights: Tensor) -> Tensor:
        """See `Design.squared_norms`."""
        entries, values = self.matrix.indices(), self.matrix.values()
        out = torch.zeros(self.shape[1], dtype=torch.float64, device=self.device)
        return out.index_add(0, entries[1], values.square() * weights[entries[0]])

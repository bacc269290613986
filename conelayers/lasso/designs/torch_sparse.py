"""Torch sparse tensors, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from conelayers.lasso.designs.base import Design, TensorDesign
from conelayers.lasso.designs.dense import DenseDesign

__all__ = ["TorchSparseDesign"]


class TorchSparseDesign(TensorDesign):
    """A torch sparse tensor, kept on its device; the columns of a support are gathered into a dense block."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix.to_sparse_coo().coalesce().to(torch.float64)
        self._by_row = self.matrix.to_sparse_csr()
        self._by_column = self.matrix.t().coalesce().to_sparse_csr()

    def matmul(self, coef: Tensor) -> Tensor:
        """See `Design.matmul`."""
        return self._by_row @ coef

    def rmatmul(self, residual: Tensor) -> Tensor:
        """See `Design.rmatmul`."""
        return self._by_column @ residual

    def columns(self, index: Tensor) -> Design:
        """See `Design.columns`."""
        (rows, _), values = self.matrix.indices(), self.matrix.values()
        kept, position = self._chosen(index, 1)
        block = torch.zeros((self.shape[0], index.numel()), dtype=torch.float64, device=self.device)
        return DenseDesign(block.index_put((rows[kept], position), values[kept], accumulate=True))

    def rows(self, index: Tensor) -> Design:
        """See `Design.rows`."""
        kept, position = self._chosen(index, 0)
        place = torch.stack([position, self.matrix.indices()[1][kept]])
        return TorchSparseDesign(
            torch.sparse_coo_tensor(place, self.matrix.values()[kept], (index.numel(), self.shape[1]))
        )

    def _chosen(self, index: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Which entries lie in the chosen rows (axis 0) or columns (axis 1), bool, and their places among these."""
        place = torch.full((self.shape[axis],), -1, dtype=torch.int64, device=self.device)
        place[index] = torch.arange(index.numel(), device=self.device)
        position = place[self.matrix.indices()[axis]]
        return position >= 0, position[position >= 0]

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

"""Dense tensors on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from conelayers.lasso.designs.base import Design, TensorDesign, plain_array

__all__ = ["DenseDesign"]

_SMALL = 2**19  # multiplications up to which NumPy's product, on one thread, is quicker than waking torch's threads


class DenseDesign(TensorDesign):
    """A dense tensor on any device."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

    def matmul(self, coef: Tensor) -> Tensor:
        """See `Design.matmul`."""
        return self.matrix @ coef

    def rmatmul(self, residual: Tensor) -> Tensor:
        """See `Design.rmatmul`."""
        return self.matrix.mT @ residual

    def columns(self, index: Tensor) -> Design:
        """See `Design.columns`."""
        return DenseDesign(self.matrix.index_select(1, index))

    def rows(self, index: Tensor) -> Design:
        """See `Design.rows`."""
        return DenseDesign(self.matrix.index_select(0, index))

    def dense(self) -> Tensor:
        """See `Design.dense`."""
        return self.matrix

    def gram(self, weights: Tensor) -> Tensor:
        """See `Design.gram`."""
        X, h = plain_array(self.matrix), plain_array(weights)
        if X is not None and h is not None and X.size * X.shape[1] <= _SMALL:
            return torch.from_numpy(X.T @ (X * h[:, None]))
        return self.matrix.mT @ (self.matrix * weights[:, None])

    def squared_norms(self, weights: Tensor) -> Tensor:
        """See `Design.squared_norms`."""
        return (self.matrix.square()).mT @ weights

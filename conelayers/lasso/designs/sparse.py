"""scipy.sparse matrices, whose products stay differentiable to any order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.implicit import Linear, implicit
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
        scaled = self.matrix.copy()
        scaled.data = self.matrix.data * h[self.matrix.indices]
        return (scaled.T @ self.matrix).toarray()


class SparseDesign(Design):
    """A scipy.sparse matrix in compressed-column form, on the CPU.

    Products run in scipy; where a derivative is being recorded they run as `Linear` equations, so that derivatives of
    every order and `torch.func` transforms exist.
    """

    def __init__(self, matrix: Any) -> None:
        # matrix: any scipy.sparse matrix or array; kept in compressed columns, float64
        self.matrix: Any = matrix.tocsc()
        if self.matrix.dtype != np.float64:
            self.matrix = self.matrix.astype(np.float64)
        self._transposed: Any = self.matrix.T

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of features."""
        return (self.matrix.shape[0], self.matrix.shape[1])

    @property
    def device(self) -> torch.device:
        """Where vectors live."""
        return torch.device("cpu")

    def _product(self, vector: Tensor, transposed: bool) -> Tensor:
        array = plain_array(vector)
        if array is not None:
            return torch.from_numpy(np.asarray(self._transposed @ array if transposed else self.matrix @ array))
        by_output = vector.mT if vector.ndim == 2 else vector
        (out,) = implicit(Linear(_Product(self.matrix), transposed), by_output)
        return out.mT if vector.ndim == 2 else out

    def matmul(self, coef: Tensor) -> Tensor:
        """See `Design.matmul`."""
        return self._product(coef, False)

    def rmatmul(self, residual: Tensor) -> Tensor:
        """See `Design.rmatmul`."""
        return self._product(residual, True)

    def columns(self, index: Tensor) -> Design:
        """See `Design.columns`."""
        return SparseDesign(self.matrix[:, plain_numbers(index)])

    def rows(self, index: Tensor) -> Design:
        """See `Design.rows`."""
        return SparseDesign(self.matrix.tocsr()[plain_numbers(index)])

    def dense(self) -> Tensor:
        """See `Design.dense`."""
        return torch.from_numpy(self.matrix.toarray())

    def gram(self, weights: Tensor) -> Tensor:
        """See `Design.gram`."""
        array = plain_array(weights)
        if array is not None:
            return torch.from_numpy(_Gram(self.matrix).gram(array))
        (out,) = implicit(Linear(_Gram(self.matrix)), weights)
        return out.reshape(self.shape[1], self.shape[1])

    def squared_norms(self, weights: Tensor) -> Tensor:
        """See `Design.squared_norms`."""
        squared = self.matrix.copy()
        squared.data = self.matrix.data**2
        return torch.from_numpy(np.asarray(squared.T @ weights.detach().numpy()))

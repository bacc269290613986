"""Design matrices: one interface over dense torch tensors, scipy.sparse matrices and torch sparse tensors.

Solvers and derivatives touch a design only through products with it, through the submatrix of a few columns, and
through the Gram matrix of that submatrix, so nothing of size p x p (or of size n x p for sparse data) is ever formed.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.implicit import Linear, implicit

__all__ = ["DenseDesign", "Design", "SparseDesign", "TorchSparseDesign", "as_design"]


class Design(abc.ABC):
    """An n x p matrix X of real features, in float64."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of features."""

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Device of the vectors that the design takes and gives."""

    @abc.abstractmethod
    def matmul(self, coef: Tensor) -> Tensor:
        """X B for B of shape (p,) or (p, K); differentiable in B."""

    @abc.abstractmethod
    def rmatmul(self, residual: Tensor) -> Tensor:
        """X'R for R of shape (n,) or (n, K); differentiable in R."""

    @abc.abstractmethod
    def columns(self, index: Tensor) -> Design:
        """The submatrix of the features in `index` (int64, shape (k,))."""

    @abc.abstractmethod
    def rows(self, index: Tensor) -> Design:
        """The submatrix of the samples in `index` (int64, shape (k,))."""

    @abc.abstractmethod
    def dense(self) -> Tensor:
        """X as a dense tensor; for small submatrices."""

    @abc.abstractmethod
    def gram(self, weights: Tensor) -> Tensor:
        """X' diag(weights) X, dense of shape (p, p); differentiable in the weights (n,)."""

    @abc.abstractmethod
    def squared_norms(self, weights: Tensor) -> Tensor:
        """The diagonal of `gram(weights)`, shape (p,)."""


class DenseDesign(Design):
    """A dense tensor on any device."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix

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
        return self.matrix.mT @ (self.matrix * weights[:, None])

    def squared_norms(self, weights: Tensor) -> Tensor:
        """See `Design.squared_norms`."""
        return (self.matrix.square()).mT @ weights


def plain_array(vector: Tensor) -> np.ndarray | None:
    """The tensor's memory, or None where a derivative is being recorded or a `torch.func` transform is at work."""
    if torch.is_grad_enabled() and vector.requires_grad:
        return None
    try:
        return vector.detach().numpy()
    except RuntimeError:  # wrapped by torch.func, or carrying a tangent
        return None


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
        return SparseDesign(self.matrix[:, index.numpy()])

    def rows(self, index: Tensor) -> Design:
        """See `Design.rows`."""
        return SparseDesign(self.matrix.tocsr()[index.numpy()])

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


def as_design(X: Any) -> Design:
    """Wrap a design matrix: a `Design`, a tensor (dense or sparse), a numpy array or a scipy.sparse matrix.

    Raises:
        InvalidArgument: X is not two-dimensional.
    """
    if isinstance(X, Design):
        return X
    if sp.issparse(X):
        return SparseDesign(X)
    if isinstance(X, Tensor) and X.layout is not torch.strided:
        if X.device.type == "cpu":
            coo = X.to_sparse_coo().coalesce()
            rows, cols = coo.indices().numpy()
            return SparseDesign(sp.coo_array((coo.values().numpy(), (rows, cols)), shape=tuple(X.shape)))
        return TorchSparseDesign(X)
    # torch shares memory and may not be given what is read-only
    matrix = X if isinstance(X, Tensor) else torch.as_tensor(np.require(X, requirements=["C", "W"]))
    if matrix.ndim != 2:
        raise InvalidArgument(f"X must be a matrix of shape (n_samples, n_features); got {tuple(matrix.shape)}")
    return DenseDesign(matrix.to(torch.float64))

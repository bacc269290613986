"""Products of a fixed sparse matrix with batches of vectors, by what is fastest on the device."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

__all__ = ["SparseProduct"]


class SparseProduct:
    """x -> M x + c for batches of x.

    Args:
        matrix: M, CSR, shape (size, columns).
        offset: c, shape (size,); None for zero.
    """

    def __init__(self, matrix: sp.csr_array, offset: np.ndarray | None = None) -> None:
        self.matrix = matrix
        self.size, self.columns = (int(length) for length in np.asarray(matrix.shape))
        self.offset = np.zeros(self.size) if offset is None else offset
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """M x + c for x of shape (*batch, columns), float64; shape (*batch, size)."""
        flat = x.detach().reshape(x.shape[:-1].numel(), self.columns)
        product = self._on_cpu(flat) if x.device.type == "cpu" else self._elsewhere(flat)
        return product.reshape(*x.shape[:-1], self.size)

    def _on_cpu(self, flat: Tensor) -> Tensor:
        try:
            from conelayers.native import csr_product  # only here: the package imports without a compiled engine
        except ImportError:
            return torch.from_numpy((self.matrix @ flat.numpy().T).T + self.offset)
        product = torch.empty(flat.shape[0], self.size, dtype=torch.float64)
        csr_product(
            *self._arrays, self.offset, flat.contiguous().numpy(), product.numpy(), threads=torch.get_num_threads()
        )
        return product

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        indptr, indices = (index.astype(np.int32) for index in (self.matrix.indptr, self.matrix.indices))
        return indptr, indices, self.matrix.data.astype(np.float64)

    def _elsewhere(self, flat: Tensor) -> Tensor:
        matrix, offset = self._tensors(flat.device)
        return torch.sparse.mm(matrix, flat.T.contiguous()).T + offset

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """M as a torch CSR tensor and c, on `device`; made once per device."""
        if device not in self._on_device:
            with torch.sparse.check_sparse_tensor_invariants(enable=False):
                matrix = torch.sparse_csr_tensor(
                    torch.as_tensor(self.matrix.indptr.astype(np.int64)),
                    torch.as_tensor(self.matrix.indices.astype(np.int64)),
                    torch.as_tensor(self.matrix.data.astype(np.float64)),
                    size=(self.size, self.columns),
                    device=device,
                )
            self._on_device[device] = (matrix, torch.as_tensor(self.offset, device=device))
        return self._on_device[device]

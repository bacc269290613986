"""Products of a fixed sparse matrix with batches of vectors, by what is fastest on the device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.program.shapes import broadcast

__all__ = ["SparseProduct"]

# The compiled kernel names a block by one byte and keeps the blocks' addresses on the stack.
_MOST_BLOCKS = 64


class SparseProduct:
    """(x_1, x_2, ...) -> M_1 x_1 + M_2 x_2 + ... + c for batches of vectors, which need not be joined first.

    Args:
        matrix: M = [M_1 M_2 ...], CSR, shape (size, columns).
        sizes: Columns of each M_b.
        offset: c, shape (size,); None for zero.
    """

    def __init__(self, matrix: sp.csr_array, sizes: Sequence[int], offset: np.ndarray | None = None) -> None:
        self.matrix, self.sizes = matrix, tuple(sizes)
        self.size = int(np.asarray(matrix.shape)[0])
        self.offset = np.zeros(self.size) if offset is None else offset
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, *xs: Tensor) -> Tensor:
        """The product; x_b of shape (*batch, sizes[b]), float64, batch axes broadcasting; shape (*batch, size)."""
        batch = broadcast(*(x.shape[:-1] for x in xs))
        flat = [_flatten(x.detach(), batch) for x in xs]
        if not xs[0].is_cpu:
            return self._elsewhere(flat, batch.numel()).reshape(*batch, self.size)
        return torch.from_numpy(self._on_cpu(flat, batch.numel()).reshape(*batch, self.size))

    def _on_cpu(self, flat: list[Tensor], items: int) -> np.ndarray:
        multiply = _compiled()
        if multiply is None:
            return (self.matrix @ _join(flat, items).numpy().T).T + self.offset
        product = np.empty((items, self.size))
        vectors = [_join(flat, items)] if len(flat) > _MOST_BLOCKS else flat
        blocks = [x.contiguous().numpy() for x in vectors]
        multiply(*self._arrays, self.offset, blocks, product, threads=torch.get_num_threads())
        return product

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row starts, columns within their block, blocks, and values."""
        sizes = self.sizes if len(self.sizes) <= _MOST_BLOCKS else (sum(self.sizes),)
        owners = np.repeat(np.arange(len(sizes)), sizes)
        starts = np.concatenate([[0], np.cumsum(sizes)])[owners]
        columns = self.matrix.indices
        return (
            self.matrix.indptr.astype(np.int32),
            (columns - starts[columns]).astype(np.int32),
            owners[columns].astype(np.uint8),
            self.matrix.data.astype(np.float64),
        )

    def _elsewhere(self, flat: list[Tensor], items: int) -> Tensor:
        matrix, offset = self._tensors(flat[0].device)
        return torch.sparse.mm(matrix, _join(flat, items).T.contiguous()).T + offset

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """M as a torch CSR tensor and c, on `device`; made once per device."""
        if device not in self._on_device:
            with torch.sparse.check_sparse_tensor_invariants(enable=False):
                matrix = torch.sparse_csr_tensor(
                    torch.as_tensor(self.matrix.indptr.astype(np.int64)),
                    torch.as_tensor(self.matrix.indices.astype(np.int64)),
                    torch.as_tensor(self.matrix.data.astype(np.float64)),
                    size=(self.size, sum(self.sizes)),
                ).to(device)
            self._on_device[device] = (matrix, torch.as_tensor(self.offset, device=device))
        return self._on_device[device]


def _flatten(x: Tensor, batch: torch.Size) -> Tensor:
    """(*batch, columns) to (items, columns), or to (1, columns) where all items share x."""
    if x.dim() == 2 and len(batch) == 1:
        return x
    if x.shape[:-1].numel() == 1:
        return x.reshape(1, x.shape[-1])
    return x.expand(*batch, x.shape[-1]).reshape(batch.numel(), x.shape[-1])


@functools.cache
def _compiled() -> Callable[..., None] | None:
    """The compiled product, or None where the engine is not compiled: the package imports without it."""
    try:
        from conelayers.native import csr_product
    except ImportError:
        return None
    return csr_product


def _join(flat: list[Tensor], items: int) -> Tensor:
    return flat[0].expand(items, -1) if len(flat) == 1 else torch.cat([x.expand(items, -1) for x in flat], dim=-1)

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
    """(x_1, x_2, ...) -> (z_1, z_2, ...) with z_k = sum over b of M_kb x_b, plus c_k, for batches of vectors.

    Args:
        matrix: The blocks M_kb, CSR, shape (sum of rows, sum of columns).
        rows: Entries of each z_k.
        columns: Entries of each x_b; each enters some z_k.
        offset: All c_k, one after another, shape (sum of rows,); None for zeros.
    """

    def __init__(
        self, matrix: sp.csr_array, rows: Sequence[int], columns: Sequence[int], offset: np.ndarray | None = None
    ) -> None:
        self.matrix, self.rows, self.columns = matrix, tuple(rows), tuple(columns)
        self.offset = np.zeros(sum(self.rows)) if offset is None else offset
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @cached_property
    def entering(self) -> tuple[tuple[int, ...], ...]:
        """For each z_k the numbers of the x_b that enter it."""
        if len(self.rows) == 1:
            return (tuple(range(len(self.columns))),)
        return tuple(tuple(np.unique(self._owners[part.indices]).tolist()) for part in self._split())

    def __call__(self, *xs: Tensor) -> tuple[Tensor, ...]:
        """The vectors z_k, shape (*batch, rows[k]), float64.

        Args:
            *xs: Shape (*batch, columns[b]), float64. The batch axes of z_k are those of the x_b that enter it,
                broadcast: what depends on shared vectors alone is computed once.
        """
        batches = [broadcast(*[xs[b].shape[:-1] for b in blocks]) for blocks in self.entering]
        if xs[0].is_cpu and _compiled() is not None:
            batch = max(batches, key=torch.Size.numel)
            if all(one == batch or one.numel() == 1 for one in batches):
                return self._together(xs, batch, batches)
        if len(self.rows) > 1:
            return self._one_by_one(xs)
        batch = broadcast(*(x.shape[:-1] for x in xs))
        flat = [_flatten(x.detach(), batch) for x in xs]
        found = self._by_scipy(flat, batch.numel()) if xs[0].is_cpu else self._elsewhere(flat, batch.numel())
        return (found.reshape(*batch, *self.rows),)

    def _together(self, xs: Sequence[Tensor], batch: torch.Size, batches: Sequence[torch.Size]) -> tuple[Tensor, ...]:
        """All z_k by one call of the compiled product; `batch` is the largest of their batch shapes."""
        vectors = [_flatten(x, batch).contiguous().numpy(force=True) for x in xs]
        found = self.multiply(vectors, [one.numel() for one in batches])
        return tuple(
            torch.from_numpy(z if len(one) == 1 else z.reshape(*one, z.shape[1]))
            for z, one in zip(found, batches, strict=True)
        )

    def multiply(self, vectors: Sequence[np.ndarray], items: Sequence[int]) -> list[np.ndarray]:
        """The vectors z_k by the compiled product.

        Args:
            vectors: The x_b, shape (items or 1, columns[b]), float64, contiguous.
            items: For each z_k how many items it has: 1, or as many as the others.
        """
        if len(vectors) > _MOST_BLOCKS:
            count = next((len(x) for x in vectors if len(x) != 1), 1)
            vectors = [np.concatenate([np.broadcast_to(x, (count, x.shape[1])) for x in vectors], axis=1)]
        product = _compiled()
        assert product is not None
        return product(*self._arrays, self.offset, vectors, self.rows, items, threads=torch.get_num_threads())

    def _one_by_one(self, xs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Each z_k by a product of its own, from the vectors that enter it."""
        return tuple(part(*(xs[b] for b in blocks))[0] for part, blocks in zip(self._parts, self.entering, strict=True))

    @cached_property
    def _parts(self) -> list[SparseProduct]:
        """A product for each z_k, of the vectors that enter it."""
        ends, parts = np.cumsum(self.rows, dtype=np.int64), []
        for rows, size, end, blocks in zip(self._split(), self.rows, ends, self.entering, strict=True):
            columns = np.flatnonzero(np.isin(self._owners, blocks))
            sizes, offset = [self.columns[b] for b in blocks], self.offset[end - size : end]
            parts.append(SparseProduct(sp.csr_array(rows[:, columns]), (size,), sizes, offset))
        return parts

    def _split(self) -> list[sp.csr_array]:
        """The rows of each z_k."""
        ends = np.cumsum(self.rows, dtype=np.int64)
        return [sp.csr_array(self.matrix[end - size : end]) for size, end in zip(self.rows, ends, strict=True)]

    @cached_property
    def _owners(self) -> np.ndarray:
        """The block of each column."""
        return np.repeat(np.arange(len(self.columns)), self.columns)

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Row starts, columns within their block, blocks, and values."""
        sizes = self.columns if len(self.columns) <= _MOST_BLOCKS else (sum(self.columns),)
        owners = np.repeat(np.arange(len(sizes)), sizes)
        starts = np.concatenate([[0], np.cumsum(sizes)])[owners]
        columns = self.matrix.indices
        return (
            self.matrix.indptr.astype(np.int32),
            (columns - starts[columns]).astype(np.int32),
            owners[columns].astype(np.uint8),
            self.matrix.data.astype(np.float64),
        )

    def _by_scipy(self, flat: list[Tensor], items: int) -> Tensor:
        return torch.from_numpy((self.matrix @ _join(flat, items).numpy().T).T + self.offset)

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
                    size=(sum(self.rows), sum(self.columns)),
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
def _compiled() -> Callable[..., list[np.ndarray]] | None:
    """The compiled product, or None where the engine is not compiled: the package imports without it."""
    try:
        from conelayers.native import csr_product
    except ImportError:
        return None
    return csr_product


def _join(flat: list[Tensor], items: int) -> Tensor:
    return flat[0].expand(items, -1) if len(flat) == 1 else torch.cat([x.expand(items, -1) for x in flat], dim=-1)

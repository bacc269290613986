"""Affine maps from parameters to the stored entries of P, q, A or b."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.canonicalize.sparse_product import SparseProduct

__all__ = ["AffineMap"]


@dataclasses.dataclass(frozen=True, eq=False)
class AffineMap:
    """values = M_1 theta_1 + M_2 theta_2 + ... + c for sparse M_b, applied to a batch of theta at once.

    On the CPU the compiled engine multiplies item by item, which reads and writes each batch row once and in order;
    where it is not compiled, scipy's CSR product does. Other devices use torch's sparse CSR.

    Attributes:
        matrix: [M_1 M_2 ... c], CSR, shape (size, theta_size + 1).
        sizes: Entries of each theta_b.
    """

    matrix: sp.csr_array
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values produced."""
        return _shape(self.matrix)[0]

    @property
    def theta_size(self) -> int:
        """Number of parameter entries consumed."""
        return sum(self.sizes)

    @property
    def is_constant(self) -> bool:
        """Whether no parameter enters; then `constant` has the values."""
        return self.theta_size == 0

    @cached_property
    def offset(self) -> np.ndarray:
        """The constant c, shape (size,)."""
        return self.matrix[:, [-1]].toarray()[:, 0]

    def constant(self, device: torch.device) -> Tensor:
        """The values of a constant map, shape (size,), float64."""
        return torch.as_tensor(self.offset.copy(), device=device)

    def apply(self, *thetas: Tensor) -> Tensor:
        """The values, without autograd; theta_b (*batch, sizes[b]), float64, broadcasting, to (*batch, size)."""
        return self._product(*thetas)[0]

    @cached_property
    def _product(self) -> SparseProduct:
        return SparseProduct(sp.csr_array(self.matrix[:, :-1]), (self.size,), self.sizes, self.offset)

    def __getstate__(self) -> dict[str, Any]:
        # Derived arrays and device copies are made again on demand.
        return {"matrix": self.matrix, "sizes": self.sizes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)


def _shape(matrix: sp.csr_array) -> tuple[int, int]:
    rows, columns = (int(length) for length in np.asarray(matrix.shape))
    return rows, columns

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
    """values = M theta + c for a sparse M, applied to a batch of theta at once.

    On the CPU the compiled engine multiplies item by item, which reads and writes each batch row once and in order;
    where it is not compiled, scipy's CSR product does. Other devices use torch's sparse CSR.

    Attributes:
        matrix: [M c], CSR, shape (size, theta_size + 1).
    """

    matrix: sp.csr_array

    @property
    def size(self) -> int:
        """Number of values produced."""
        return _shape(self.matrix)[0]

    @property
    def theta_size(self) -> int:
        """Number of parameter entries consumed."""
        return _shape(self.matrix)[1] - 1

    @property
    def is_constant(self) -> bool:
        """Whether no parameter enters; then `apply` needs no theta and returns values without batch axes."""
        return self.theta_size == 0

    @cached_property
    def offset(self) -> np.ndarray:
        """The constant c, shape (size,)."""
        return self.matrix[:, [-1]].toarray()[:, 0]

    @cached_property
    def _forward(self) -> SparseProduct:
        return SparseProduct(sp.csr_array(self.matrix[:, :-1]), self.offset)

    @cached_property
    def _linear(self) -> SparseProduct:
        return SparseProduct(sp.csr_array(self.matrix[:, :-1]))

    @cached_property
    def _transpose(self) -> SparseProduct:
        return SparseProduct(sp.csr_array(self.matrix[:, :-1].T))

    def constant(self, like: Tensor | None = None) -> Tensor:
        """The values of a constant map, shape (size,), float64, on the device of `like`."""
        device = torch.device("cpu") if like is None else like.device
        return torch.as_tensor(self.offset.copy(), device=device)

    def apply(self, theta: Tensor) -> Tensor:
        """M theta + c, without autograd; theta (*batch, theta_size), float64, to (*batch, size)."""
        return self._forward(theta)

    def apply_linear(self, theta: Tensor) -> Tensor:
        """M theta without the constant: the pushforward of `apply`; shapes as `apply`."""
        return self._linear(theta)

    def apply_transpose(self, values: Tensor) -> Tensor:
        """M' values, the pullback of `apply`; values (*batch, size), float64, to (*batch, theta_size)."""
        return self._transpose(values)

    def __getstate__(self) -> dict[str, Any]:
        # Derived arrays and device copies are made again on demand.
        return {"matrix": self.matrix}

    def __setstate__(self, state: dict[str, Any]) -> None:
        object.__setattr__(self, "matrix", state["matrix"])


def _shape(matrix: Any) -> tuple[int, int]:
    rows, columns = matrix.shape
    return int(rows), int(columns)

"""From cone solutions (x, y) to the variables that the user asked for."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

__all__ = ["Output"]


@dataclasses.dataclass(frozen=True, eq=False)
class Output:
    """One requested variable as a linear image of x or of y.

    Attributes:
        name: Name of the CVXPY variable.
        shape: Its shape.
        source: "primal" (reads x) or "dual" (reads y).
        matrix: CSR, one row per entry of the variable in row-major order; for complex variables the real parts, then
            the imaginary parts.
        is_complex: Whether the variable is complex.
        exponentiate: Whether exp follows: primal variables of geometric programmes.
    """

    name: str
    shape: tuple[int, ...]
    source: str
    matrix: sp.csr_array
    is_complex: bool = False
    exponentiate: bool = False

    def read(self, x: Tensor, y: Tensor) -> Tensor:
        """The variable's value, differentiable in x and y.

        Args:
            x: Primal solution, shape (*batch, n).
            y: Dual solution, shape (*batch, m).

        Returns:
            Shape (*batch, *self.shape).
        """
        source = x if self.source == "primal" else y
        entries = self._multiply(source)
        if self.is_complex:
            real, imag = entries.chunk(2, dim=-1)
            entries = torch.complex(real, imag)
        value = entries if len(self.shape) == 1 else entries.reshape((*source.shape[:-1], *self.shape))
        return value.exp() if self.exponentiate else value

    @property
    def reads(self) -> np.ndarray:
        """Indices of the entries of the source that the variable depends on."""
        return np.unique(self.matrix.indices)

    def _multiply(self, source: Tensor) -> Tensor:
        """Matrix times source along the last axis, by index operations, which vmap, jvp and double backward know."""
        rows, columns, factors, height = self._entries
        if columns is None:
            picked = source.clone()  # the caller may write on it
        else:
            picked = source.index_select(-1, torch.as_tensor(columns, device=source.device))
        if factors is not None:
            picked = picked * torch.as_tensor(factors, device=source.device, dtype=source.dtype)
        if rows is None:
            return picked
        zeros = picked.new_zeros((*picked.shape[:-1], height))
        return zeros.index_add(-1, torch.as_tensor(rows, device=source.device), picked)

    @cached_property
    def _entries(self) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None, int]:
        """Rows and columns (None if they only count) and factors (None if all are 1) of the entries, and the height."""
        coo: Any = sp.coo_array(self.matrix)
        height, width = coo.shape
        rows = None if np.array_equal(coo.row, np.arange(height)) else coo.row.astype(np.int64)
        columns = None if np.array_equal(coo.col, np.arange(width)) else coo.col.astype(np.int64)
        factors = None if np.all(coo.data == 1.0) else coo.data
        return rows, columns, factors, height

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

"""Symmetric sparse operators, of which one triangle is stored."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.linalg.operators import LinearOperator, SparsePattern

__all__ = ["SymmetricOperator"]


@dataclasses.dataclass(frozen=True, eq=False)
class SymmetricOperator(LinearOperator):
    """Symmetric matrices with one pattern, given by the upper triangle with its diagonal.

    Attributes:
        pattern: Positions of the upper triangle, square.
        values: Their values, shape (*batch, nnz).
    """

    pattern: SparsePattern
    values: Tensor

    def __post_init__(self) -> None:
        rows, columns = self.pattern.shape
        if rows != columns or (self.pattern.indices > self.pattern.columns).any():
            raise InvalidArgument("pattern must hold the upper triangle of a square matrix.")
        if self.values.dim() == 0 or self.values.shape[-1] != self.pattern.nnz:
            raise InvalidArgument(
                f"values has shape {tuple(self.values.shape)}; its last axis must have size {self.pattern.nnz}."
            )

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(rows, columns)."""
        return self.pattern.shape

    @property
    def batch_shape(self) -> torch.Size:  # type: ignore[override]
        """Leading axes of `values`."""
        return self.values.shape[:-1]

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Type of `values`."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Device of `values`."""
        return self.values.device

    def matvec(self, x: Tensor) -> Tensor:
        """A x: the stored triangle and, without the diagonal again, its mirror image."""
        rows = torch.as_tensor(self.pattern.indices, device=x.device)
        columns = torch.as_tensor(self.pattern.columns, device=x.device)
        above = self.values * x[..., columns]
        out = above.new_zeros(*above.shape[:-1], self.shape[0]).index_add(-1, rows, above)
        below = self.values * (rows != columns).to(x.dtype) * x[..., rows]
        return out.index_add(-1, columns, below)

    def rmatvec(self, y: Tensor) -> Tensor:
        """A'y = A y."""
        return self.matvec(y)

    def transpose(self) -> SymmetricOperator:
        """The operator itself."""
        return self

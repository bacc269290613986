"""Linear operators with one fixed shape or pattern and batched values.

Vectors carry their entries on the last axis. The axes before it are, from the right, the operator's batch axes and then
any number of further leading axes: several right-hand sides of one batch have shape (*rhs, *batch, n).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument, UnsupportedError

__all__ = ["DenseOperator", "FunctionOperator", "IdentityMinus", "LinearOperator"]


class LinearOperator(abc.ABC):
    """A batch of matrices, known by their products with vectors.

    Attributes:
        shape: (rows, columns) of each matrix.
        batch_shape: Batch axes of the values; empty for a single matrix.
        dtype: Type of the values.
        device: Where the values are.
    """

    shape: tuple[int, int]
    batch_shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @abc.abstractmethod
    def matvec(self, x: Tensor) -> Tensor:
        """A x for x of shape (*rhs, *batch, columns); shape (*rhs, *batch, rows)."""

    @abc.abstractmethod
    def rmatvec(self, y: Tensor) -> Tensor:
        """A'y for y of shape (*rhs, *batch, rows); shape (*rhs, *batch, columns)."""

    def transpose(self) -> LinearOperator:
        """The operator A'."""
        return _Transposed(self)

    def as_matrix(self) -> Tensor:
        """The dense matrices, shape (*batch, rows, columns); one product per column."""
        identity = torch.eye(self.shape[1], dtype=self.dtype, device=self.device)
        depth = len(self.batch_shape)
        columns = identity.reshape(self.shape[1], *(1,) * depth, self.shape[1])
        product = self.matvec(columns.expand(self.shape[1], *self.batch_shape, self.shape[1]))
        return product.movedim(0, -1)


@dataclasses.dataclass(frozen=True, eq=False)
class DenseOperator(LinearOperator):
    """Matrices stored in full.

    Attributes:
        matrix: Shape (*batch, rows, columns).
    """

    matrix: Tensor

    def __post_init__(self) -> None:
        if self.matrix.dim() < 2:
            raise InvalidArgument(f"matrix has shape {tuple(self.matrix.shape)}; it needs two matrix axes.")

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(rows, columns)."""
        return self.matrix.shape[-2], self.matrix.shape[-1]

    @property
    def batch_shape(self) -> torch.Size:  # type: ignore[override]
        """Leading axes of `matrix`."""
        return self.matrix.shape[:-2]

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Type of `matrix`."""
        return self.matrix.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Device of `matrix`."""
        return self.matrix.device

    def matvec(self, x: Tensor) -> Tensor:
        """A x, shape (*rhs, *batch, rows)."""
        return torch.einsum("...ij,...j->...i", self.matrix, x)

    def rmatvec(self, y: Tensor) -> Tensor:
        """A'y, shape (*rhs, *batch, columns)."""
        return torch.einsum("...ij,...i->...j", self.matrix, y)

    def transpose(self) -> DenseOperator:
        """A', a view of the same numbers."""
        return DenseOperator(self.matrix.mT)

    def as_matrix(self) -> Tensor:
        """The stored tensor."""
        return self.matrix


@dataclasses.dataclass(frozen=True, eq=False)
class FunctionOperator(LinearOperator):
    """An operator given by functions, for example Jacobian-vector products.

    Attributes:
        forward: x of shape (*rhs, *batch, columns) to A x.
        adjoint: y of shape (*rhs, *batch, rows) to A'y; None for solvers that never transpose.
        shape: (rows, columns).
        batch_shape: Batch axes that the functions expect.
        dtype: Type of the vectors.
        device: Device of the vectors.
    """

    forward: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor] | None
    shape: tuple[int, int]
    batch_shape: torch.Size = torch.Size()
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")

    def matvec(self, x: Tensor) -> Tensor:
        """A x."""
        return self.forward(x)

    def rmatvec(self, y: Tensor) -> Tensor:
        """A'y.

        Raises:
            UnsupportedError: If the operator was made without `adjoint`.
        """
        if self.adjoint is None:
            raise UnsupportedError("this FunctionOperator has no adjoint; pass adjoint= to use its transpose.")
        return self.adjoint(y)


@dataclasses.dataclass(frozen=True, eq=False)
class IdentityMinus(LinearOperator):
    """I - J, with J given by functions: what linearised fixed points z = f(z) lead to.

    Attributes:
        complement: t of shape (*rhs, *batch, n) to J t.
        adjoint: u to J'u.
        size: n.
        batch_shape: Batch axes that the functions expect.
        dtype: Type of the vectors.
        device: Device of the vectors.
    """

    complement: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    size: int
    batch_shape: torch.Size = torch.Size()
    dtype: torch.dtype = torch.float64
    device: torch.device = torch.device("cpu")

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        """(n, n)."""
        return self.size, self.size

    def matvec(self, x: Tensor) -> Tensor:
        """(I - J) x."""
        return x - self.complement(x)

    def rmatvec(self, y: Tensor) -> Tensor:
        """(I - J)'y."""
        return y - self.adjoint(y)

    def transpose(self) -> IdentityMinus:
        """I - J'."""
        return dataclasses.replace(self, complement=self.adjoint, adjoint=self.complement)


@dataclasses.dataclass(frozen=True, eq=False)
class _Transposed(LinearOperator):
    """The transpose of an operator that knows its two products."""

    operator: LinearOperator

    @property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.operator.shape[1], self.operator.shape[0]

    @property
    def batch_shape(self) -> torch.Size:  # type: ignore[override]
        return self.operator.batch_shape

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.operator.dtype

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.operator.device

    def matvec(self, x: Tensor) -> Tensor:
        return self.operator.rmatvec(x)

    def rmatvec(self, y: Tensor) -> Tensor:
        return self.operator.matvec(y)

    def transpose(self) -> LinearOperator:
        return self.operator

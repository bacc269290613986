"""A batch of cone programmes: one structure, batched values."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.program import products
from conelayers.program.shapes import broadcast
from conelayers.program.structure import ConeStructure

__all__ = ["ConeProgram"]


@dataclasses.dataclass(frozen=True, eq=False)
class ConeProgram:
    """Values of a batch of programmes  minimise 1/2 x'Px + q'x  subject to  Ax + s = b, s in K.

    The leading axes of the four tensors are batch axes that broadcast against each other as NumPy's do. A tensor that
    is the same for the whole batch is given once, without batch axes, and is never copied per item.

    Attributes:
        structure: Patterns, shapes and cone.
        P: Values on the upper-triangle pattern of P, shape (*batch, P_nnz).
        q: Linear objective, shape (*batch, n).
        A: Values on the pattern of A, shape (*batch, A_nnz).
        b: Right-hand side, shape (*batch, m).
        batch_shape: The broadcast batch axes of the four tensors.
    """

    structure: ConeStructure
    P: Tensor
    q: Tensor
    A: Tensor
    b: Tensor
    batch_shape: torch.Size = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        s = self.structure
        sizes = (("P", self.P, s.P_nnz), ("q", self.q, s.n), ("A", self.A, s.A_nnz), ("b", self.b, s.m))
        for name, values, size in sizes:
            if values.dim() == 0 or values.shape[-1] != size:
                raise InvalidArgument(f"{name} has shape {tuple(values.shape)}; its last axis must have size {size}.")
        try:
            self.__dict__["batch_shape"] = _broadcast(self.P, self.q, self.A, self.b)
        except RuntimeError as error:
            raise InvalidArgument(f"batch axes of P, q, A and b do not broadcast: {error}") from None

    def detach(self) -> ConeProgram:
        """The same values, cut from the autograd graph."""
        if not any(values.requires_grad for values in (self.P, self.q, self.A, self.b)):
            return self
        return self.unchecked(self.structure, self.P.detach(), self.q.detach(), self.A.detach(), self.b.detach())

    def flatten(self) -> ConeProgram:
        """One batch axis at most per tensor: shared tensors become (1, size), the others (B, size), B = batch items."""
        batch_shape = self.batch_shape
        if len(batch_shape) == 1 and all(values.dim() == 2 for values in (self.P, self.q, self.A, self.b)):
            return self

        def flat(values: Tensor) -> Tensor:
            if values.dim() == 2 and len(batch_shape) == 1:
                return values
            if values.shape[:-1].numel() == 1:
                return values.reshape(1, values.shape[-1])
            return values.expand(*batch_shape, values.shape[-1]).reshape(batch_shape.numel(), values.shape[-1])

        return self.unchecked(self.structure, flat(self.P), flat(self.q), flat(self.A), flat(self.b))

    @classmethod
    def unchecked(cls, structure: ConeStructure, P: Tensor, q: Tensor, A: Tensor, b: Tensor) -> ConeProgram:
        """Values whose shapes are known to be right, where a check would cost as much as a small solve."""
        made = object.__new__(cls)
        made.__dict__.update(structure=structure, P=P, q=q, A=A, b=b, batch_shape=_broadcast(P, q, A, b))
        return made

    def A_times(self, x: Tensor) -> Tensor:
        """A x for x of shape (*batch, n); shape (*batch, m)."""
        return products.A_times(self.structure, self.A, x)

    def A_transpose_times(self, y: Tensor) -> Tensor:
        """A'y for y of shape (*batch, m); shape (*batch, n)."""
        return products.A_transpose_times(self.structure, self.A, y)

    def P_times(self, x: Tensor) -> Tensor:
        """P x for x of shape (*batch, n); shape (*batch, n)."""
        return products.P_times(self.structure, self.P, x)


def _broadcast(*values: Tensor) -> torch.Size:
    """Batch axes of vectors."""
    return broadcast(*[value.shape[:-1] for value in values])

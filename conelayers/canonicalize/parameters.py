"""From the user's parameter tensors to the vectors that the affine maps act on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.program.shapes import broadcast

__all__ = ["Block", "ParameterLayout"]


@dataclasses.dataclass(frozen=True)
class Block:
    """One real vector read off one parameter: its entries in row-major order, through `part`.

    Attributes:
        parameter: Index of the parameter in the user's order.
        part: "value" for a real parameter; "real" or "imag" part of a complex one; "log" in a geometric programme.
        size: Number of entries.
    """

    parameter: int
    part: str
    size: int


@dataclasses.dataclass(frozen=True)
class ParameterLayout:
    """Names and shapes of the parameters, and their flattening.

    Attributes:
        names: Names of the CVXPY parameters, in the user's order.
        shapes: Their shapes.
        complexes: Which of them are complex.
        symmetric: Indices of those that are symmetric or Hermitian matrices.
        domains: What the user declared of their values, in CVXPY's words ("nonneg", "PSD", ...).
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    complexes: tuple[bool, ...]
    domains: tuple[tuple[str, ...], ...] = ()
    symmetric: tuple[int, ...] = ()

    def validate(self, values: Sequence[Tensor]) -> torch.Size:
        """Check number, types and shapes of the tensors and return their common batch shape.

        A parameter has no batch axes or all of them; batch axes of size 1 broadcast.

        Args:
            values: One tensor per parameter, each of shape (*batch, *parameter.shape).

        Raises:
            InvalidArgument: If a tensor is missing, is not a tensor, or has a shape that does not fit.
        """
        if len(values) != len(self.shapes):
            raise InvalidArgument(
                "A tensor must be provided for each CVXPY parameter; "
                f"received {len(values)} tensors, expected {len(self.shapes)}."
            )
        for index, value in enumerate(values):
            self._check_type(index, value)
        rank = max([0, *(value.dim() - len(shape) for value, shape in zip(values, self.shapes, strict=True))])
        batches: list[Any] = [self._batch(index, value, rank) for index, value in enumerate(values)]
        if None in batches:
            raise self._fault(values)
        try:
            return broadcast(*batches)
        except RuntimeError:
            listed = ", ".join(f"{name}: {tuple(batch)}" for name, batch in zip(self.names, batches, strict=True))
            raise InvalidArgument(
                "Inconsistent batch sizes. All batched parameters must have the same batch axes "
                f"(size 1 broadcasts), but got {listed}."
            ) from None

    def read(self, values: Sequence[Tensor], blocks: Sequence[Block]) -> list[Tensor]:
        """The vectors that an affine map acts on, differentiably.

        Args:
            values: Parameters as `validate` accepts them.
            blocks: Which vectors to read, in order.

        Returns:
            One float64 tensor of shape (*batch, block.size) per block, with the batch axes of its own parameter.
        """
        return [self._read(values[block.parameter], block) for block in blocks]

    def _read(self, value: Tensor, block: Block) -> Tensor:
        """One block as a float64 vector, shape (*batch, block.size)."""
        axes = len(self.shapes[block.parameter])
        flat = value if axes == 1 else value.reshape((*value.shape[: value.dim() - axes], block.size))
        if block.part == "real":
            flat = flat.real if flat.is_complex() else flat
        elif block.part == "imag":
            flat = flat.imag if flat.is_complex() else torch.zeros_like(flat)
        flat = flat if flat.dtype is torch.float64 else flat.to(torch.float64)
        # Not positive is NaN, with a gradient of zero: the item fails, and 0/0 would be the gradient of log at zero.
        return torch.where(flat > 0, flat, torch.nan).log() if block.part == "log" else flat

    def _check_type(self, index: int, value: object) -> None:
        if not isinstance(value, Tensor):
            raise InvalidArgument(
                f"A tensor must be provided for each CVXPY parameter; "
                f"parameter {index} ({self.names[index]}) is a {type(value).__name__}."
            )
        if value.layout is not torch.strided:
            raise InvalidArgument(f"parameter {index} ({self.names[index]}) is a sparse tensor; pass its to_dense().")
        if value.is_complex() and not self.complexes[index]:
            raise InvalidArgument(
                f"parameter {index} ({self.names[index]}) is real but its tensor is complex; pass its real part, or "
                "declare the CVXPY parameter with complex=True."
            )

    def _batch(self, index: int, value: Tensor, rank: int) -> torch.Size | None:
        """Batch axes of one parameter, None if they do not fit; `rank` is the number of those of the most batched."""
        shape = self.shapes[index]
        extra = value.dim() - len(shape)
        return value.shape[:extra] if extra in (0, rank) and value.shape[extra:] == shape else None

    def _fault(self, values: Sequence[Tensor]) -> InvalidArgument:
        """The error of the parameter at fault: batch axes are those of the parameters whose last axes fit."""
        pairs = list(zip(values, self.shapes, strict=True))
        fitting = [(v.dim() - len(shape), shape) for v, shape in pairs if v.shape[v.dim() - len(shape) :] == shape]
        # Anything fits a scalar, so the others have more to say.
        rank = _common([r for r, shape in fitting if shape]) or _common([r for r, _ in fitting])
        faults = [i for i, (v, s) in enumerate(pairs) if v.dim() - len(s) not in (0, rank) or self._misfits(i, v)]
        index = faults[0]
        value, shape = pairs[index]
        label, extra = f"parameter {index} ({self.names[index]})", value.dim() - len(shape)
        batch = next((tuple(v.shape[:rank]) for v, s in pairs if rank and v.dim() - len(s) == rank), ())
        wanted = f"{shape} or {(*batch, *shape)}" if batch else f"{shape} or (*batch, {', '.join(map(str, shape))})"
        if extra not in (0, rank):
            numbers = f"{len(shape)}" + (f" or {len(shape) + rank}" if rank else "")
            return InvalidArgument(
                f"Invalid parameter dimensionality for {label}. Expected {numbers} dimensions, shape {wanted} (no "
                f"batch axes, or those of the other parameters), Got: {value.dim()} dimensions, shape "
                f"{tuple(value.shape)}."
            )
        expected = f"Expected: {shape}" if extra == 0 else f"Expected: (*batch, {', '.join(map(str, shape))})"
        return InvalidArgument(f"Invalid parameter shape for {label}. {expected}, Got: {tuple(value.shape)}.")

    def _misfits(self, index: int, value: Tensor) -> bool:
        shape = self.shapes[index]
        return value.shape[max(value.dim() - len(shape), 0) :] != shape


def _common(ranks: Sequence[int]) -> int:
    """The number of batch axes that most batched parameters have; the largest in a tie."""
    batched = [rank for rank in ranks if rank > 0]
    return max(sorted(set(batched), reverse=True), key=batched.count) if batched else 0

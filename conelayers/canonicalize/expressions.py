"""Expressions of a problem's variables and parameters as differentiable torch functions of their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.program.shapes import broadcast

__all__ = ["Apply", "Constant", "Expression", "Linear", "ParameterValue", "VariableValue"]


class Expression:
    """A node of an expression's tree; values of nodes have shape (*batch, *shape), batch axes of size 1 broadcasting.

    Attributes:
        shape: The shape of its value for one problem.
    """

    shape: tuple[int, ...]

    def __call__(self, variables: Sequence[Tensor], parameters: Sequence[Tensor], rank: int) -> Tensor:
        """The value, differentiable in the variables and parameters.

        Args:
            variables: Values of variables, shape (*batch, *shape).
            parameters: Values of parameters, with all batch axes or none.
            rank: The number of batch axes.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class VariableValue(Expression):
    """A variable, by its position among the variables' values."""

    position: int
    shape: tuple[int, ...]

    def __call__(self, variables: Sequence[Tensor], parameters: Sequence[Tensor], rank: int) -> Tensor:
        """The variable's value."""
        return _with_axes(variables[self.position], self.shape, rank)


@dataclasses.dataclass(frozen=True, eq=False)
class ParameterValue(Expression):
    """A parameter, by its position; `symmetric` ones are read as the mean of X and X' (of X and X^H)."""

    position: int
    shape: tuple[int, ...]
    symmetric: bool = False

    def __call__(self, variables: Sequence[Tensor], parameters: Sequence[Tensor], rank: int) -> Tensor:
        """The parameter's value in double precision."""
        value = parameters[self.position]
        value = _with_axes(value.to(torch.complex128 if value.is_complex() else torch.float64), self.shape, rank)
        return (value + value.mH) / 2 if self.symmetric else value


@dataclasses.dataclass(frozen=True, eq=False)
class Constant(Expression):
    """A number or an array."""

    value: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """The array's shape."""
        return self.value.shape

    def __call__(self, variables: Sequence[Tensor], parameters: Sequence[Tensor], rank: int) -> Tensor:
        """The array, with batch axes of size 1."""
        like = [*variables, *parameters]
        device = like[0].device if like else torch.device("cpu")
        return torch.as_tensor(self.value, device=device).reshape((1,) * rank + self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Linear(Expression):
    """A fixed linear map of the entries of several expressions together, such as an index, a sum or a transpose.

    Attributes:
        matrix: CSR; its columns are the arguments' entries in row-major order, one argument after another.
        arguments: What it acts on.
        shape: Shape of the result, whose entries in row-major order are the matrix's rows.
    """

    matrix: sp.csr_array
    arguments: tuple[Expression, ...]
    shape: tuple[int, ...]

    def __call__(self, variables: Sequence[Tensor], parameters: Sequence[Tensor], rank: int) -> Tensor:
        """Matrix times the arguments' entries, by index operations, which every transform of torch knows."""
        values = [argument(variables, parameters, rank) for argument in self.arguments]
        batch = broadcast(*(value.shape[:rank] for value in values))
        dtype = values[0].dtype
        for value in values[1:]:
            dtype = torch.promote_types(dtype, value.dtype)
        flat = [v.reshape((*v.shape[:rank], v.shape[rank:].numel())).expand(*batch, -1).to(dtype) for v in values]
        entries: Any = sp.coo_array(self.matrix)
        rows, columns, factors = (
            torch.as_tensor(np.ascontiguousarray(a), device=flat[0].device)
            for a in (entries.row.astype(np.int64), entries.col.astype(np.int64), entries.data)
        )
        picked = torch.cat(flat, dim=-1).index_select(-1, columns) * factors
        found = picked.new_zeros((*batch, _height(self.matrix))).index_add(-1, rows, picked)
        return found.reshape((*batch, *self.shape))


@dataclasses.dataclass(frozen=True, eq=False)
class Apply(Expression):
    """A torch function of the arguments' values; it keeps leading axes and acts on the trailing ones.

    Attributes:
        function: function(*values, **options), a function of this package or of torch, so that it can be pickled.
        arguments: Its arguments.
        shape: Shape of the result.
        options: Further arguments.
        elementwise: Whether the arguments broadcast against each other.
    """

    function: Callable[..., Tensor]
    arguments: tuple[Expression, ...]
    shape: tuple[int, ...]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    elementwise: bool = False

    def __call__(self, variables: Sequence[Tensor], parameters: Sequence[Tensor], rank: int) -> Tensor:
        """The function's value."""
        values = [argument(variables, parameters, rank) for argument in self.arguments]
        if self.elementwise:
            axes = len(self.shape)
            values = [v.reshape((*v.shape[:rank], *(1,) * (axes - v.dim() + rank), *v.shape[rank:])) for v in values]
        found = self.function(*values, **self.options)
        batch = found.shape[:rank]
        return found if found.shape[rank:] == self.shape else found.reshape((*batch, *self.shape))


def _with_axes(value: Tensor, shape: tuple[int, ...], rank: int) -> Tensor:
    """The value with batch axes of size 1 in place of those that it lacks."""
    missing = rank + len(shape) - value.dim()
    return value.reshape((1,) * missing + tuple(value.shape)) if missing else value


def _height(matrix: sp.csr_array) -> int:
    return int(np.asarray(matrix.shape)[0])

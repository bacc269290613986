"""The interface of design matrices.

Solvers and derivatives touch a design only through products with it, through the submatrix of a few columns, and
through the Gram matrix of that submatrix, so nothing of size p x p (or of size n x p for sparse data) is ever formed.
"""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument

__all__ = ["Design", "TensorDesign", "constant", "plain_array", "plain_numbers", "require_finite"]


class Design(abc.ABC):
    """An n x p matrix X of real features; products are in float64, however X is stored."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of features."""

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Device of the vectors that the design takes and gives."""

    @abc.abstractmethod
    def matmul(self, coef: Tensor) -> Tensor:
        """X B for B of shape (p,) or (p, K); differentiable in B."""

    @abc.abstractmethod
    def rmatmul(self, residual: Tensor) -> Tensor:
        """X'R for R of shape (n,) or (n, K); differentiable in R."""

    @abc.abstractmethod
    def columns(self, index: Tensor) -> Design:
        """The submatrix of the features in `index` (int64, shape (k,))."""

    @abc.abstractmethod
    def rows(self, index: Tensor) -> Design:
        """The submatrix of the samples in `index` (int64, shape (k,))."""

    @abc.abstractmethod
    def dense(self) -> Tensor:
        """X as a dense tensor; for small submatrices."""

    @abc.abstractmethod
    def gram(self, weights: Tensor) -> Tensor:
        """X' diag(weights) X, dense of shape (p, p); differentiable in the weights (n,)."""

    @abc.abstractmethod
    def squared_norms(self, weights: Tensor) -> Tensor:
        """The diagonal of `gram(weights)`, shape (p,)."""


class TensorDesign(Design):
    """A design that is one torch tensor, dense or sparse, on any device: `matrix`, of shape (n, p)."""

    matrix: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of samples and of features."""
        return (self.matrix.shape[0], self.matrix.shape[1])

    @property
    def device(self) -> torch.device:
        """Where vectors live."""
        return self.matrix.device


def plain_array(vector: Tensor) -> np.ndarray | None:
    """The tensor's memory; None off the CPU, while a derivative is recorded, and inside `torch.func` transforms."""
    if vector.device.type != "cpu" or (torch.is_grad_enabled() and vector.requires_grad):
        return None
    try:
        return vector.detach().numpy()
    except RuntimeError:  # wrapped by torch.func, or carrying a tangent
        return None


def plain_numbers(constants: Tensor) -> np.ndarray:
    """Numbers as an array, inside `torch.func` transforms too, where a tensor's memory is out of reach."""
    array = plain_array(constants)
    kind = np.float64 if constants.is_floating_point() else np.int64
    return np.array(constants.tolist(), dtype=kind) if array is None else array


def constant(tensor: Tensor) -> Tensor:
    """A tensor that was made of numbers, without the wrapping of the `torch.func` transform that it was made in.

    A design outlives the innermost transform, in what is computed by an outer one.
    """
    wrapper: Any = torch._C._functorch  # pyright: ignore
    while wrapper.is_functorch_wrapped_tensor(tensor):
        tensor = wrapper.get_unwrapped(tensor)
    return tensor


def require_finite(name: str, values: Tensor | np.ndarray) -> None:
    """Look for NaN and infinity, where numbers can be looked at (not inside `torch.func` transforms).

    Raises:
        InvalidArgument: There are some.
    """
    array = plain_array(values.detach()) if isinstance(values, Tensor) else values
    if array is not None and not np.isfinite(array).all():
        raise InvalidArgument(f"{name} must be finite; it holds NaN or infinity")

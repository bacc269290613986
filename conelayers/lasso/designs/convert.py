"""From the matrices that users have to designs."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso._compiled import compiled
from conelayers.lasso.designs.base import Design, constant, plain_array, plain_numbers, require_finite
from conelayers.lasso.designs.dense import DenseDesign
from conelayers.lasso.designs.sparse import SparseDesign
from conelayers.lasso.designs.torch_sparse import TorchSparseDesign

__all__ = ["as_design", "as_values"]


def as_values(values: Any, device: torch.device | None = None, name: str = "values") -> Tensor:
    """A tensor of numbers, lists, arrays or pandas objects.

    Raises:
        InvalidArgument: They are no numbers; the message calls them `name`.
    """
    if isinstance(values, Tensor):
        if values.is_complex():
            raise InvalidArgument(f"{name} must hold real numbers, got {values.dtype}")
        return torch.as_tensor(values, device=device)
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise InvalidArgument(f"{name} must hold real numbers in rows of one length: {error}") from error
    if array.dtype.kind not in "biuf":
        raise InvalidArgument(f"{name} must hold real numbers, got {values!r}")
    # torch takes no negative strides, and nothing that is read-only
    return torch.as_tensor(np.require(array, requirements=["C", "W"]), device=device)


def as_design(X: Any) -> Design:
    """Wrap a design matrix: a `Design`, a tensor (dense or sparse), a numpy array or a scipy.sparse matrix.

    Raises:
        InvalidArgument: X is not two-dimensional, not real, or not finite.
    """
    if isinstance(X, Design):
        return X
    if sp.issparse(X):
        if X.dtype.kind not in "biuf":
            raise InvalidArgument(f"X must hold real numbers, got {X.dtype}")
        require_finite("X", X.tocoo().data)
        return SparseDesign(X)
    if isinstance(X, Tensor) and X.layout is not torch.strided and not X.is_complex():
        if X.device.type == "cpu":
            coo = X.detach().to_sparse_coo().coalesce()
            values, (rows, cols) = plain_numbers(coo.values()), plain_numbers(coo.indices())
            require_finite("X", values)
            return SparseDesign(sp.coo_array((values, (rows, cols)), shape=tuple(X.shape)))
        return TorchSparseDesign(X)
    matrix = as_values(X, name="X")
    if matrix.ndim != 2:
        raise InvalidArgument(f"X must be a matrix of shape (n_samples, n_features); got {tuple(matrix.shape)}")
    require_finite("X", matrix)
    single = matrix.dtype == torch.float32 and matrix.device.type == "cpu" and compiled() is not None
    if not (single and matrix.is_contiguous() and plain_array(matrix) is not None):
        matrix = matrix.to(torch.float64)
    return DenseDesign(matrix if isinstance(X, Tensor) else constant(matrix))

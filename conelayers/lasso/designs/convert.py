"""From the matrices that users have to designs."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.lasso.designs.base import Design, require_finite
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
        return torch.as_tensor(values, device=device)
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise InvalidArgument(f"{name} must hold real numbers, got {values!r}")
    # torch takes no negative strides, and nothing that is read-only
    return torch.as_tensor(np.require(array, requirements=["C", "W"]), device=device)


def as_design(X: Any) -> Design:
    """Wrap a design matrix: a `Design`, a tensor (dense or sparse), a numpy array or a scipy.sparse matrix.

    Raises:
        InvalidArgument: X is not two-dimensional, or not finite.
    """
    if isinstance(X, Design):
        return X
    if sp.issparse(X):
        require_finite("X", X.tocoo().data)
        return SparseDesign(X)
    if isinstance(X, Tensor) and X.layout is not torch.strided:
        if X.device.type == "cpu":
            coo = X.to_sparse_coo().coalesce()
            require_finite("X", coo.values())
            rows, cols = coo.indices().numpy()
            return SparseDesign(sp.coo_array((coo.values().numpy(), (rows, cols)), shape=tuple(X.shape)))
        return TorchSparseDesign(X)
    # torch shares memory and may not be given what is read-only
    matrix = X if isinstance(X, Tensor) else torch.as_tensor(np.require(X, requirements=["C", "W"]))
    if matrix.ndim != 2:
        raise InvalidArgument(f"X must be a matrix of shape (n_samples, n_features); got {tuple(matrix.shape)}")
    require_finite("X", matrix)
    return DenseDesign(matrix.to(torch.float64))

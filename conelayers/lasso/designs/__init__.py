"""Design matrices: one interface over dense tensors, scipy.sparse matrices and torch sparse tensors."""

from conelayers.lasso.designs.base import Design, plain_array, require_finite
from conelayers.lasso.designs.convert import as_design, as_values
from conelayers.lasso.designs.dense import DenseDesign
from conelayers.lasso.designs.sparse import SparseDesign
from conelayers.lasso.designs.torch_sparse import TorchSparseDesign

__all__ = [
    "DenseDesign",
    "Design",
    "SparseDesign",
    "TorchSparseDesign",
    "as_design",
    "as_values",
    "plain_array",
    "require_finite",
]

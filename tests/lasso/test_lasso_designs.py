"""The contract of design matrices: every kind does what the dense tensor does."""

import pytest
import scipy.sparse as sp
import torch

from conelayers.lasso.designs.convert import as_design
from conelayers.lasso.designs.torch_sparse import TorchSparseDesign

N, P = 7, 5
INDICES = {"rows": torch.tensor([5, 0, 3]), "columns": torch.tensor([4, 1, 2])}


def matrix():
    generator = torch.Generator().manual_seed(0)
    full = torch.randn(N, P, generator=generator, dtype=torch.float64)
    return torch.where(torch.rand(N, P, generator=generator) < 0.6, full, 0.0)


KINDS = {
    "dense": lambda X: X,
    "numpy": lambda X: X.numpy(),
    "scipy csr": lambda X: sp.csr_array(X.numpy()),
    "scipy csc": lambda X: sp.csc_array(X.numpy()),
    "torch coo": lambda X: X.to_sparse_coo(),
    "torch csr": lambda X: X.to_sparse_csr(),
}


@pytest.mark.parametrize("kind", [*KINDS, "torch sparse"])  # the last is what sparse tensors become off the CPU
@pytest.mark.parametrize("part", ["whole", "rows", "columns"])
def test_every_design_is_its_dense_matrix(kind, part):
    X = matrix()
    design = TorchSparseDesign(X.to_sparse_coo()) if kind == "torch sparse" else as_design(KINDS[kind](X))
    if part == "rows":  # not in order: submatrices follow the index
        design, X = design.rows(INDICES["rows"]), X[INDICES["rows"]]
    elif part == "columns":
        design, X = design.columns(INDICES["columns"]), X[:, INDICES["columns"]]
    n, p = X.shape
    coef, residual, weights = (torch.linspace(1, 2, size, dtype=torch.float64) for size in (p, n, n))
    assert tuple(design.shape) == (n, p) and design.device == X.device
    torch.testing.assert_close(design.dense(), X)
    torch.testing.assert_close(design.matmul(coef), X @ coef)
    torch.testing.assert_close(design.rmatmul(residual), X.mT @ residual)
    torch.testing.assert_close(design.gram(weights), X.mT @ (X * weights[:, None]))
    torch.testing.assert_close(design.squared_norms(weights), X.square().mT @ weights)

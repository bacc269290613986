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


def _with_long_indices(X):
    matrix = sp.csc_array(X)
    matrix.indptr, matrix.indices = matrix.indptr.astype("int64"), matrix.indices.astype("int64")
    return matrix


KINDS = {
    "dense": lambda X: X,
    "numpy": lambda X: X.numpy(),
    "scipy csr": lambda X: sp.csr_array(X.numpy()),
    "scipy csc": lambda X: sp.csc_array(X.numpy()),
    "numpy single": lambda X: X.numpy().astype("float32"),
    "torch single": lambda X: X.float(),
    "scipy single": lambda X: sp.csc_array(X.numpy().astype("float32")),
    "scipy long": lambda X: _with_long_indices(X.numpy()),
    "torch coo": lambda X: X.to_sparse_coo(),
    "torch csr": lambda X: X.to_sparse_csr(),
}


@pytest.mark.parametrize("kind", [*KINDS, "torch sparse"])  # the last is what sparse tensors become off the CPU
@pytest.mark.parametrize("part", ["whole", "rows", "columns"])
def test_every_design_is_its_dense_matrix(kind, part):
    X = matrix().float().double() if "single" in kind else matrix()
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
    one = torch.zeros_like(coef).index_fill(0, torch.tensor(1), 2.0)  # few in use
    torch.testing.assert_close(design.matmul(one), X @ one)
    pairs, both = torch.stack([coef, one], 1), torch.stack([residual, residual.flip(0)], 1)
    torch.testing.assert_close(design.matmul(pairs), X @ pairs)
    torch.testing.assert_close(design.rmatmul(both), X.mT @ both)
    torch.testing.assert_close(design.columns(torch.tensor([2, 0])).dense(), X[:, [2, 0]])
    torch.testing.assert_close(design.gram(weights), X.mT @ (X * weights[:, None]))
    torch.testing.assert_close(design.squared_norms(weights), X.square().mT @ weights)


def test_large_products_are_those_of_small_ones():
    # beyond the sizes at which blocks, threads and picked columns begin
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(900, 700, generator=generator, dtype=torch.float64)
    index = torch.randperm(900, generator=generator)[:800]
    coef, few = torch.linspace(-1, 1, 700, dtype=torch.float64), torch.zeros(700, dtype=torch.float64)
    few[[3, 500]] = torch.tensor([1.0, -2.0], dtype=torch.float64)
    residual, weights = torch.linspace(-1, 1, 800, dtype=torch.float64), torch.linspace(0, 1, 800, dtype=torch.float64)
    for kind in ("dense", "numpy single", "scipy csc", "scipy single"):
        design = as_design(KINDS[kind](X)).rows(index)
        part = (X.float().double() if "single" in kind else X)[index]
        for w in (coef, few):
            torch.testing.assert_close(design.matmul(w), part @ w)
        torch.testing.assert_close(design.rmatmul(residual), part.mT @ residual)
        torch.testing.assert_close(design.gram(weights), part.mT @ (part * weights[:, None]))


def test_designs_are_read_where_they_lie():
    X = matrix().numpy()
    for dtype in ("float64", "float32"):
        dense = X.astype(dtype)
        assert as_design(dense).matrix.data_ptr() == dense.ctypes.data
        rows = as_design(dense).rows(INDICES["rows"])
        assert rows.matrix.data_ptr() == dense.ctypes.data and rows.rows(torch.tensor([1])).shape == (1, P)
        sparse = sp.csc_array(dense)
        assert as_design(sparse).rows(INDICES["rows"])._stored.data is sparse.data

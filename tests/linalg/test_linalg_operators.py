"""The contract of operators: products, transposes and dense forms agree."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.linalg import DenseOperator, FunctionOperator, SparseOperator, SparsePattern, SymmetricOperator


def sparse(batch, generator):
    matrix = sp.random_array((5, 7), density=0.5, rng=np.random.default_rng(0), format="csc")
    matrix.sort_indices()
    pattern = SparsePattern((5, 7), matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
    return SparseOperator(pattern, torch.randn(*batch, pattern.nnz, generator=generator, dtype=torch.float64))


def dense(batch, generator):
    return DenseOperator(torch.randn(*batch, 5, 7, generator=generator, dtype=torch.float64))


def function(batch, generator):
    inner = dense(batch, generator)
    return FunctionOperator(inner.matvec, inner.rmatvec, inner.shape, inner.batch_shape)


def symmetric(batch, generator):
    matrix = sp.triu(sp.random_array((6, 6), density=0.5, rng=np.random.default_rng(1)), format="csc")
    matrix.sort_indices()
    pattern = SparsePattern((6, 6), matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
    return SymmetricOperator(pattern, torch.randn(*batch, pattern.nnz, generator=generator, dtype=torch.float64))


each_operator = pytest.mark.parametrize("make", [dense, sparse, function, symmetric])
each_batch = pytest.mark.parametrize("batch", [(), (3,), (2, 1, 3)], ids=str)


@each_operator
@each_batch
def test_products_agree_with_the_matrix(make, batch):
    generator = torch.Generator().manual_seed(0)
    operator = make(batch, generator)
    matrix = operator.as_matrix()
    assert matrix.shape == (*batch, *operator.shape)
    x = torch.randn(4, *batch, operator.shape[1], generator=generator, dtype=torch.float64)
    y = torch.randn(4, *batch, operator.shape[0], generator=generator, dtype=torch.float64)
    torch.testing.assert_close(operator.matvec(x), (matrix @ x.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(operator.rmatvec(y), (matrix.mT @ y.unsqueeze(-1)).squeeze(-1))
    transposed = operator.transpose()
    assert transposed.shape == operator.shape[::-1]
    torch.testing.assert_close(transposed.as_matrix(), matrix.mT)
    torch.testing.assert_close(transposed.matvec(y), operator.rmatvec(y))
    torch.testing.assert_close(transposed.transpose().matvec(x), operator.matvec(x))


def test_sparse_values_land_where_scipy_puts_them():
    operator = sparse((), torch.Generator().manual_seed(2))
    pattern = operator.pattern
    expected = sp.csc_array((operator.values.numpy(), pattern.indices, pattern.indptr), shape=pattern.shape)
    np.testing.assert_array_equal(operator.as_matrix().numpy(), expected.toarray())


def test_bad_arguments_are_named():
    with pytest.raises(InvalidArgument, match="values"):
        pattern = sparse((), torch.Generator()).pattern
        SparseOperator(pattern, torch.zeros(3, pattern.nnz + 1))
    with pytest.raises(InvalidArgument, match="matrix"):
        DenseOperator(torch.zeros(3))
    with pytest.raises(InvalidArgument, match="upper"):
        lower = SparsePattern((2, 2), np.array([0, 1, 1]), np.array([1]))
        SymmetricOperator(lower, torch.zeros(1))
    with pytest.raises(UnsupportedError, match="adjoint"):
        FunctionOperator(lambda x: x, None, (2, 2)).rmatvec(torch.zeros(2))

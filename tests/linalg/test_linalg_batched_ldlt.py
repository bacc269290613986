"""The compiled batched LDL' as a linear solver: against dense solves, over scales, batches and broadcast axes."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conelayers.errors import InvalidArgument
from conelayers.linalg import BatchedLDLT, DenseOperator, SparseLDLT, SparsePattern, SymmetricOperator

pytest.importorskip("conelayers.native")


def quasidefinite(n, m, batch, seed, spread=0.0, density=0.4):
    """A sparse [[H, B'], [B, -G]] per item, rows and columns scaled by 10^(+-spread), as operator and dense."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    size = n + m
    mask = np.triu(rng.random((size, size)) < density) | np.eye(size, dtype=bool)
    pattern = sp.csc_matrix(mask.astype(float))
    pattern.sort_indices()
    mask = torch.as_tensor(mask)
    upper = torch.randn(*batch, size, size, generator=generator, dtype=torch.float64) * mask
    dense = upper + upper.triu(1).mT
    sign = torch.cat([torch.ones(n), -torch.ones(m)]).to(torch.float64)
    dense = dense.masked_fill(torch.eye(size, dtype=torch.bool), 0.0)
    dense = dense + torch.diag_embed(sign * (1 + dense.abs().sum(-1)))
    scale = 10 ** (spread * (2 * torch.rand(*batch, size, generator=generator, dtype=torch.float64) - 1))
    dense = scale[..., :, None] * dense * scale[..., None, :]
    sparse = SparsePattern((size, size), pattern.indptr.astype(np.int64), pattern.indices.astype(np.int64))
    values = dense[..., torch.as_tensor(sparse.indices), torch.as_tensor(sparse.columns)]
    return SymmetricOperator(sparse, values), dense, scale


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 12),
    m=st.integers(0, 8),
    items=st.sampled_from([1, 3, 8, 9, 130]),
    spread=st.sampled_from([0.0, 2.0, 4.0]),
    size=st.sampled_from([1e-8, 1.0, 1e8]),
    seed=st.integers(0, 10_000),
)
@example(n=5, m=4, items=8, spread=4.0, size=1e-8, seed=0)  # entries down to 1e-16
def test_against_dense_solves(n, m, items, spread, size, seed):
    operator, dense, scale = quasidefinite(n, m, (items,), seed, spread)
    operator = SymmetricOperator(operator.pattern, size * operator.values)
    rhs = torch.randn(2, items, n + m, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    solver = BatchedLDLT(threads=2)
    x, info = solver.solve(solver.init(operator), rhs)
    # In the scaled unknowns the matrices are well conditioned whatever `spread`: compare there.
    expected = torch.linalg.solve(size * dense / (scale[..., :, None] * scale[..., None, :]), (rhs / scale)[..., None])
    error = (x * scale - expected[..., 0]).norm(dim=-1) / expected[..., 0].norm(dim=-1)
    assert error.max() < 1e-12
    assert info.residual.shape == (2, items)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("operator_batch", "rhs_batch"),
    [((), ()), ((), (4,)), ((3,), (3,)), ((3, 1), (3, 4)), ((1, 4), (3, 1)), ((2, 1, 3), (5, 2, 4, 1)), ((3,), (0, 3))],
    ids=str,
)
def test_batch_axes_broadcast(operator_batch, rhs_batch, dtype):
    operator, dense, _ = quasidefinite(4, 3, operator_batch, 1)
    operator = SymmetricOperator(operator.pattern, operator.values.to(dtype))
    rhs = torch.randn(*rhs_batch, 7, dtype=dtype)
    x, info = BatchedLDLT().solve(BatchedLDLT().init(operator), rhs)
    batch = torch.broadcast_shapes(operator_batch, rhs_batch)
    expected = torch.linalg.solve(dense.to(dtype).expand(*batch, 7, 7), rhs.expand(*batch, 7)[..., None])[..., 0]
    assert x.dtype == dtype
    torch.testing.assert_close(
        x, expected, rtol=1e-4 if dtype == torch.float32 else 1e-12, atol=1e-5 * (dtype == torch.float32)
    )
    assert info.residual.shape == info.iterations.shape == batch


def test_no_items_and_no_unknowns():
    operator, _, _ = quasidefinite(2, 1, (0,), 2)
    x, info = BatchedLDLT().solve(BatchedLDLT().init(operator), torch.zeros(5, 0, 3))
    assert x.shape == (5, 0, 3) and info.residual.shape == (5, 0)
    empty = SparsePattern((0, 0), np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64))
    x, _ = BatchedLDLT().solve(BatchedLDLT().init(SymmetricOperator(empty, torch.zeros(4, 0))), torch.zeros(4, 0))
    assert x.shape == (4, 0)


def test_vanishing_pivot_is_refined_away_where_the_matrix_is_regular():
    """[[0, 1], [1, 0]] has no LDL' without a replaced pivot, and zero diagonal entries need not be stored."""
    pattern = SparsePattern((2, 2), np.array([0, 0, 1]), np.array([0]))
    solver = BatchedLDLT()
    x, info = solver.solve(solver.init(SymmetricOperator(pattern, torch.ones(3, 1))), torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(x, torch.tensor([2.0, 1.0]).expand(3, 2), rtol=1e-10, atol=0)
    assert info.residual.max() < 1e-10


def test_singular_item_is_reported_by_its_residual():
    pattern = SparsePattern((1, 1), np.array([0, 1]), np.array([0]))
    solver = BatchedLDLT()
    x, info = solver.solve(solver.init(SymmetricOperator(pattern, torch.tensor([[2.0], [0.0]]))), torch.ones(2, 1))
    assert x[0] == 0.5 and info.residual[0] == 0 and info.residual[1] > 0.5


def test_agrees_with_qdldl_and_refuses_other_operators():
    operator, _, _ = quasidefinite(20, 15, (3,), 4, density=0.1)
    rhs = torch.randn(2, 3, 35)
    ours, theirs = (s.solve(s.init(operator), rhs)[0] for s in (BatchedLDLT(), SparseLDLT()))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)
    with pytest.raises(InvalidArgument, match="SymmetricOperator"):
        BatchedLDLT().init(DenseOperator(torch.eye(2)))
    with pytest.raises(InvalidArgument, match="refinements"):
        BatchedLDLT(refinements=-1)

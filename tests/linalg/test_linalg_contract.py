"""The contract of linear solvers: a new one gets the whole suite by joining `SOLVERS`."""

import numpy as np
import pytest
import torch

from conelayers.errors import InvalidArgument
from conelayers.linalg import (
    CG,
    GMRES,
    LSMR,
    MINRES,
    BatchedLDLT,
    BiCGSTAB,
    DenseLDL,
    DenseLU,
    DenseOperator,
    FunctionOperator,
    MinimumNorm,
    SparseLDLT,
    SparsePattern,
    SymmetricOperator,
)

SOLVERS = [
    DenseLU(),
    DenseLDL(),
    MinimumNorm(),
    SparseLDLT(),
    BatchedLDLT(),
    CG(),
    MINRES(),
    GMRES(),
    GMRES(restart=5, max_iterations=2000),
    BiCGSTAB(),
    LSMR(),
]
ITERATIVE = tuple(type(solver) for solver in (CG(), MINRES(), GMRES(), BiCGSTAB(), LSMR()))
each_solver = pytest.mark.parametrize("solver", SOLVERS, ids=repr)
each_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])

BATCHES = [((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((3,), (4, 3)), ((), (2, 5)), ((2, 1), (2, 3))]


def tolerance(dtype, solver):
    if isinstance(solver, ITERATIVE):
        return 2e-9 if dtype == torch.float64 else 2e-4
    return 1e-11 if dtype == torch.float64 else 1e-4


def matrix_for(solver, batch, n, generator, dtype=torch.float64):
    """Well-conditioned matrices of the kind the solver declares."""
    M = torch.randn(*batch, n, n, generator=generator, dtype=torch.float64)
    if solver.definite:
        M = M @ M.mT / n + torch.eye(n)
    elif solver.symmetric:
        # Quasidefinite: indefinite, and every LDL' exists.
        half = n // 2
        M = (M + M.mT) / 4
        M[..., :half, :half] = M[..., :half, :half] @ M[..., :half, :half].mT + torch.eye(half)
        M[..., half:, half:] = -M[..., half:, half:] @ M[..., half:, half:].mT - torch.eye(n - half)
    else:
        M = M / n**0.5 + 2.5 * torch.eye(n)
    return M.to(dtype)


def operator_for(solver, matrix):
    if isinstance(solver, SparseLDLT | BatchedLDLT):
        return symmetric_operator(matrix)
    return DenseOperator(matrix)


def symmetric_operator(matrix):
    n = matrix.shape[-1]
    columns, rows = np.tril_indices(n)
    pattern = SparsePattern((n, n), np.concatenate([[0], np.cumsum(np.arange(1, n + 1))]), rows.astype(np.int64))
    return SymmetricOperator(pattern, matrix[..., torch.as_tensor(rows), torch.as_tensor(columns)])


def rand(*shape, generator, dtype=torch.float64):
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


@each_solver
@each_dtype
@pytest.mark.parametrize(("operator_batch", "rhs_batch"), BATCHES, ids=str)
def test_solves_batches_and_several_right_hand_sides(solver, dtype, operator_batch, rhs_batch, generator):
    matrix = matrix_for(solver, operator_batch, 8, generator, dtype)
    rhs = rand(*rhs_batch, 8, generator=generator, dtype=dtype)
    solution, info = solver.solve(solver.init(operator_for(solver, matrix)), rhs)
    batch = torch.broadcast_shapes(operator_batch, rhs_batch)
    expected = torch.linalg.solve(matrix.expand(*batch, 8, 8), rhs.expand(*batch, 8).unsqueeze(-1)).squeeze(-1)
    assert solution.dtype == dtype
    assert solution.shape == expected.shape
    assert info.residual.shape == info.iterations.shape == batch
    assert info.iterations.dtype == torch.int64
    scale = expected.norm(dim=-1, keepdim=True)
    assert ((solution - expected).abs() / scale).max() < tolerance(dtype, solver) * 10
    measured = (torch.einsum("...ij,...j->...i", matrix, solution) - rhs).norm(dim=-1) / rhs.norm(dim=-1)
    torch.testing.assert_close(info.residual, measured, rtol=0.5, atol=10 * torch.finfo(dtype).eps)


@each_solver
def test_transpose_law(solver, generator):
    matrix = matrix_for(solver, (3,), 7, generator)
    rhs = rand(2, 3, 7, generator=generator)
    operator = operator_for(solver, matrix)
    transposed_state, _ = solver.solve(solver.transpose(solver.init(operator)), rhs)
    transposed_operator, _ = solver.solve(solver.init(operator.transpose()), rhs)
    expected = torch.linalg.solve(matrix.mT, rhs.unsqueeze(-1)).squeeze(-1)
    limit = 10 * tolerance(torch.float64, solver)
    torch.testing.assert_close(transposed_state, expected, rtol=limit, atol=limit)
    torch.testing.assert_close(transposed_operator, expected, rtol=limit, atol=limit)
    twice, _ = solver.solve(solver.transpose(solver.transpose(solver.init(operator))), rhs)
    again, _ = solver.solve(solver.init(operator), rhs)
    torch.testing.assert_close(twice, again, rtol=0, atol=0)


@each_solver
def test_items_do_not_depend_on_their_neighbours(solver, generator):
    matrix = matrix_for(solver, (3,), 6, generator)
    matrix[1] *= 1e6
    matrix[2] *= 1e-6
    rhs = rand(3, 6, generator=generator) * torch.tensor([1.0, 1e-9, 1e9], dtype=torch.float64).unsqueeze(-1)
    together, info = solver.solve(solver.init(operator_for(solver, matrix)), rhs)
    for item in range(3):
        alone, alone_info = solver.solve(solver.init(operator_for(solver, matrix[item])), rhs[item])
        torch.testing.assert_close(together[item], alone, rtol=1e-12, atol=0)
        assert info.iterations[item] == alone_info.iterations


@each_solver
def test_zero_right_hand_side_gives_zero(solver, generator):
    matrix = matrix_for(solver, (2,), 5, generator)
    rhs = rand(2, 5, generator=generator)
    rhs[0] = 0
    solution, info = solver.solve(solver.init(operator_for(solver, matrix)), rhs)
    assert (solution[0] == 0).all()
    assert info.residual[0] == 0
    assert solution[1].norm() > 0


@each_solver
@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e140])
def test_solution_scales_with_the_right_hand_side(solver, scale, generator):
    matrix = matrix_for(solver, (), 5, generator)
    rhs = rand(5, generator=generator)
    state = solver.init(operator_for(solver, matrix))
    solution, _ = solver.solve(state, rhs)
    scaled, info = solver.solve(state, rhs * scale)
    torch.testing.assert_close(scaled / scale, solution, rtol=1e-9, atol=1e-9)
    assert info.residual < 1e-9


@each_solver
def test_bad_item_spoils_only_itself(solver, generator):
    matrix = matrix_for(solver, (3,), 5, generator)
    rhs = rand(3, 5, generator=generator)
    good, _ = solver.solve(solver.init(operator_for(solver, matrix)), rhs)
    if isinstance(solver, (MinimumNorm, DenseLDL)):
        rhs[1, 0] = torch.nan  # LAPACK's SVD and sytrf refuse NaN matrices as a whole
    else:
        matrix[1, 0, 0] = torch.nan
    solution, info = solver.solve(solver.init(operator_for(solver, matrix)), rhs)
    torch.testing.assert_close(solution[[0, 2]], good[[0, 2]], rtol=1e-12, atol=0)
    assert not info.residual[1] < 1e-3


@each_solver
def test_one_unknown_and_none(solver):
    value = torch.full((2, 1, 1), 2.0, dtype=torch.float64)
    solution, _ = solver.solve(solver.init(operator_for(solver, value)), torch.ones(2, 1, dtype=torch.float64))
    torch.testing.assert_close(solution, torch.full((2, 1), 0.5, dtype=torch.float64))
    empty = torch.zeros(2, 0, 0, dtype=torch.float64)
    solution, info = solver.solve(solver.init(operator_for(solver, empty)), torch.zeros(2, 0, dtype=torch.float64))
    assert solution.shape == (2, 0)
    assert (info.residual == 0).all()


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s.singular], ids=repr)
def test_consistent_singular_systems(solver, generator):
    """A has a null space that the right-hand side does not touch, beside a regular item."""
    singular = matrix_for(solver, (2,), 6, generator)
    basis = torch.linalg.qr(rand(6, 6, generator=generator)).Q[:, :4]
    if solver.symmetric or not solver.square:
        singular[0] = basis @ matrix_for(solver, (), 4, generator) @ basis.mT
    else:
        # Range and null space must meet only in zero for Krylov methods: an orthogonally similar block matrix.
        singular[0] = basis @ matrix_for(solver, (), 4, generator) @ basis.mT
    wanted = rand(2, 6, generator=generator)
    rhs = torch.einsum("bij,bj->bi", singular, wanted)
    solution, info = solver.solve(solver.init(operator_for(solver, singular)), rhs)
    assert info.residual.max() < 1e-9
    assert solution.isfinite().all()
    if solver.minimum_norm:
        expected = torch.linalg.pinv(singular, rtol=1e-10) @ rhs.unsqueeze(-1)
        torch.testing.assert_close(solution, expected.squeeze(-1), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not s.square], ids=repr)
@pytest.mark.parametrize("shape", [(9, 5), (5, 9)], ids=str)
def test_least_squares_and_minimum_norm(solver, shape, generator):
    matrix = rand(3, *shape, generator=generator)
    rhs = rand(2, 3, shape[0], generator=generator)
    matrix[1, :, 0] = matrix[1, :, 1]  # one item with dependent columns
    solution, info = solver.solve(solver.init(DenseOperator(matrix)), rhs)
    expected = (torch.linalg.pinv(matrix, rtol=1e-12) @ rhs.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(solution, expected, rtol=1e-8, atol=1e-8)
    measured = (torch.einsum("bij,kbj->kbi", matrix, solution) - rhs).norm(dim=-1) / rhs.norm(dim=-1)
    torch.testing.assert_close(info.residual, measured, rtol=1e-6, atol=1e-14)


def test_rank_tolerance_decides_what_counts_as_zero():
    matrix = torch.diag(torch.tensor([1.0, 1e-6], dtype=torch.float64))
    rhs = torch.ones(2, dtype=torch.float64)
    exact, _ = MinimumNorm().solve(MinimumNorm().init(DenseOperator(matrix)), rhs)
    torch.testing.assert_close(exact, torch.tensor([1.0, 1e6], dtype=torch.float64))
    coarse = MinimumNorm(rank_tolerance=1e-3)
    truncated, _ = coarse.solve(coarse.init(DenseOperator(matrix)), rhs)
    torch.testing.assert_close(truncated, torch.tensor([1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("solver", [s for s in SOLVERS if s.square], ids=repr)
def test_rectangular_operator_is_refused(solver):
    with pytest.raises(InvalidArgument, match="square"):
        solver.init(DenseOperator(torch.zeros(3, 2, dtype=torch.float64)))


@pytest.mark.parametrize("solver", [CG(), MINRES(), GMRES(), BiCGSTAB()], ids=repr)
def test_preconditioner_cuts_iterations(solver, generator):
    n = 60
    matrix = matrix_for(solver, (2,), n, generator)
    scales = torch.logspace(-2, 2, n, dtype=torch.float64)
    matrix = scales.unsqueeze(-1) * matrix * scales
    rhs = rand(2, n, generator=generator)
    inverse = torch.diag_embed(1 / matrix.diagonal(dim1=-2, dim2=-1).abs())
    plain, slow = solver.solve(solver.init(DenseOperator(matrix)), rhs)
    fast_solution, fast = solver.solve(solver.init(DenseOperator(matrix), DenseOperator(inverse)), rhs)
    expected = torch.linalg.solve(matrix, rhs.unsqueeze(-1)).squeeze(-1)
    assert (fast_solution - expected).norm() / expected.norm() < 1e-4
    assert fast.residual.max() < 1e-9
    assert (fast.iterations < slow.iterations).all()


@pytest.mark.parametrize("solver", [CG(), MINRES(), GMRES(), BiCGSTAB()], ids=repr)
def test_initial_guess_is_used(solver, generator):
    matrix = matrix_for(solver, (2,), 30, generator)
    rhs = rand(2, 30, generator=generator)
    state = solver.init(DenseOperator(matrix))
    solution, cold = solver.solve(state, rhs)
    again, warm = solver.solve(state, rhs, initial=solution)
    assert (warm.iterations == 0).all()
    assert (cold.iterations > 0).all()
    torch.testing.assert_close(again, solution)


@pytest.mark.parametrize("solver", [CG(), MINRES(), GMRES(), BiCGSTAB(), LSMR()], ids=repr)
def test_iteration_limit_is_respected_and_reported(solver, generator):
    matrix = matrix_for(solver, (), 50, generator)
    rhs = rand(50, generator=generator)
    short = type(solver)(max_iterations=3)
    _, info = short.solve(short.init(DenseOperator(matrix)), rhs)
    assert info.iterations <= 3
    assert info.residual > 1e-9


def test_gmres_with_functions_only(generator):
    matrix = matrix_for(GMRES(), (3,), 20, generator)
    rhs = rand(3, 20, generator=generator)
    operator = FunctionOperator(
        lambda x: torch.einsum("bij,...bj->...bi", matrix, x),
        lambda y: torch.einsum("bij,...bi->...bj", matrix, y),
        (20, 20),
        torch.Size([3]),
    )
    solver = GMRES()
    solution, _ = solver.solve(solver.init(operator), rhs)
    transposed, _ = solver.solve(solver.transpose(solver.init(operator)), rhs)
    torch.testing.assert_close(solution, torch.linalg.solve(matrix, rhs.unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(transposed, torch.linalg.solve(matrix.mT, rhs.unsqueeze(-1)).squeeze(-1))

"""Programmes that are hard for their numbers: what a regularisation hides, contradictions by little, missing bounds."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers.backends.batched import Batched
from conelayers.cones import Exponential, Nonnegative, PositiveSemidefinite, Power, ProductCone, SecondOrder, Zero
from conelayers.program import ConeProgram, ConeStructure, Status


def programme(q, A, b, cones, P=None):
    """A programme, or a batch of them with A and b of one pattern: (B, m, n) and (B, m)."""
    A, b, q = (np.asarray(value, float) for value in (A.toarray() if sp.issparse(A) else A, b, q))
    structure = ConeStructure.from_matrices(P, sp.csc_array(np.ones(A.shape[-2:])), ProductCone(cones))
    P_values = np.zeros(0) if P is None else P.data
    values = (P_values, q, np.swapaxes(A, -1, -2).reshape(*A.shape[:-2], -1), b)
    return ConeProgram(structure, *(torch.from_numpy(np.ascontiguousarray(value)) for value in values))


@pytest.mark.parametrize("order", [20, 40])
def test_hilbert_matrix(order):
    i = np.arange(order)
    H = 1 / (i[:, None] + i + 1)
    solution = Batched(threads=1).solve(programme(H.sum(1), -H, -H.sum(1), [Nonnegative(order)]))
    assert solution.status_code == Status.SOLVED
    assert max(solution.primal_residual, solution.dual_residual, solution.gap) <= 1e-9


def test_convex_regression():
    # As in the Maros-Meszaros problem YAO: nearly dependent rows, of which many are active.
    count = 2000
    rows = sp.diags_array([1.0, -2.0, 1.0], offsets=[0, 1, 2], shape=(count, count + 2))
    A = sp.csc_array(-rows)
    structure = ConeStructure.from_matrices(sp.eye_array(count + 2, format="csc"), A, ProductCone([Nonnegative(count)]))
    q = -np.sin(np.arange(1, count + 3) / (count + 2))
    q[0] = -0.08
    values = (np.ones(count + 2), q, A.data, np.zeros(count))
    solution = Batched(threads=1).solve(ConeProgram(structure, *map(torch.from_numpy, values)))
    assert solution.status_code == Status.SOLVED


def nearly_consistent(distance, size, count=40):
    """Minimise q'x over x >= 0 with equations of which the last one contradicts the others by so much."""
    rng = np.random.default_rng(0)
    n, m = 10, 9
    A = rng.standard_normal((count, m, n))
    A[:, -1] = np.einsum("bij,bi->bj", A[:, :-1], rng.standard_normal((count, m - 1)))
    b = np.einsum("bij,bj->bi", A, size * rng.random((count, n)))
    b[:, -1] -= distance
    A = np.concatenate([A, np.broadcast_to(-np.eye(n), (count, n, n))], axis=1)
    return programme(rng.standard_normal((count, n)), A, np.pad(b, ((0, 0), (0, n))), [Zero(m), Nonnegative(n)])


@pytest.mark.parametrize(("distance", "size"), [(1e-3, 100.0), (1e-5, 1.0)])
def test_nearly_consistent_equations(distance, size):
    status = Batched(threads=1).solve(nearly_consistent(distance, size)).status_code
    assert (status == Status.PRIMAL_INFEASIBLE).all()


@pytest.mark.parametrize("bound", [1e20, 1e25])
def test_bounds_that_stand_for_infinity(bound):
    rng = np.random.default_rng(1)
    n, count = 5, 9
    q = rng.standard_normal((count, n))
    A = np.concatenate([np.eye(n), -np.eye(n), np.zeros((1, n)), -np.eye(n)])
    b = np.tile(np.concatenate([np.ones(2 * n), [4.0], np.zeros(n)]), (count, 1))
    some = rng.random((count, n)) < 0.5  # upper bounds that are not there where the cost does not need them
    b[:, :n][some & (q > 0)] = bound
    program = programme(q, A, b, [Nonnegative(2 * n), SecondOrder(n + 1)])
    expected = Batched(threads=1).solve(programme(q, A, np.minimum(b, 1e3), [Nonnegative(2 * n), SecondOrder(n + 1)]))
    solution = Batched(threads=1).solve(program)
    assert (solution.status_code == Status.SOLVED).all()
    torch.testing.assert_close(solution.x, expected.x, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(solution.y, expected.y, rtol=1e-9, atol=1e-9)
    assert (solution.s[:, :n][program.b[:, :n] >= 1e20] == bound).all()
    again = Batched(threads=1).solve(program, warm_start=solution)
    assert (again.iterations == 0).all()


def test_a_large_bound_of_a_large_row_is_kept():
    """1e20 x <= 3e20 in one item says x <= 3; in the next one x <= 3e20 says nothing."""
    A = np.array([[[1e20], [1.0]], [[1.0], [1.0]]])
    b = np.array([[3e20, 7.0], [3e20, 7.0]])
    solution = Batched(threads=1).solve(programme(-np.ones(1), A, b, [Nonnegative(2)]))
    assert (solution.status_code == Status.SOLVED).all()
    torch.testing.assert_close(solution.x[:, 0], torch.tensor([3.0, 7.0], dtype=torch.float64), rtol=1e-8, atol=0)


@pytest.mark.parametrize(("seed", "n"), [(0, 9), (3, 8)])
@pytest.mark.parametrize("cone", [Exponential(), Power(0.45)])
def test_unbounded_with_more_unknowns_than_rows(cone, seed, n):
    """What solves leave in the directions that only the regularisation holds is rounding: no reason to lower it."""
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((40, n, 2))
    P = np.einsum("bik,bjk->bij", half, half)
    A, b, q = rng.standard_normal((40, 4, n)), rng.standard_normal((40, 4)), rng.standard_normal((40, n))
    cones = [Zero(1), cone]
    pattern = sp.triu(np.ones((n, n)), format="csc")
    program = programme(q, A, b, cones, pattern)
    rows, columns = pattern.nonzero()
    order = np.lexsort((rows, columns))
    values = torch.from_numpy(np.ascontiguousarray(P[:, rows[order], columns[order]]))
    status = (
        Batched(threads=1).solve(ConeProgram(program.structure, values, program.q, program.A, program.b)).status_code
    )
    assert (status == Status.DUAL_INFEASIBLE).all()


def test_minus_infinity_is_not_dropped():
    solution = Batched(threads=1).solve(programme(np.ones(1), np.ones((1, 1)), [-1e20], [Nonnegative(1)]))
    assert solution.status_code == Status.DUAL_INFEASIBLE
    solution = Batched(threads=1).solve(programme(np.ones(1), [[1.0], [-1.0]], [-1e20, 1.0], [Nonnegative(2)]))
    assert solution.status_code == Status.PRIMAL_INFEASIBLE


def held_by_the_regularisation(seed, nonnegative):
    """Feasible programmes with P of rank one and equations of few entries: many directions without curvature."""
    rng = np.random.default_rng(seed)
    n, m, count = int(rng.integers(4, 16)), 2, 16
    rows = m + nonnegative
    pattern = rng.random((rows, n)) < 0.5
    pattern[:, rng.random(n) < 0.3] = False
    A = sp.csc_array(pattern.astype(float))
    values = rng.standard_normal((count, A.nnz))
    dense = np.zeros((count, rows, n))
    dense[:, A.indices, np.repeat(np.arange(n), np.diff(A.indptr))] = values
    half = rng.standard_normal((count, n))
    x, y, s = rng.standard_normal((count, n)), rng.standard_normal((count, rows)), np.zeros((count, rows))
    free = rng.random((count, nonnegative)) < 0.5
    s[:, m:], y[:, m:] = free * np.abs(y[:, m:]), ~free * np.abs(y[:, m:])
    q = -half * np.einsum("bi,bi->b", half, x)[:, None] - np.einsum("bji,bj->bi", dense, y)
    b = np.einsum("bij,bj->bi", dense, x) + s
    upper = sp.csc_array(np.triu(np.ones((n, n))))
    columns = np.repeat(np.arange(n), np.diff(upper.indptr))
    structure = ConeStructure.from_matrices(upper, A, ProductCone([Zero(m), Nonnegative(nonnegative)]))
    arrays = (half[:, upper.indices] * half[:, columns], q, values, b)
    return ConeProgram(structure, *(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


@pytest.mark.parametrize("nonnegative", [0, 6])
def test_unknowns_that_only_the_regularisation_holds(nonnegative):
    """Pivots of the equations bring rounding as large as the regularisation: raised where it spoils a solve."""
    solutions = [Batched(threads=1).solve(held_by_the_regularisation(seed, nonnegative)) for seed in range(150)]
    status = torch.cat([solution.status_code for solution in solutions])
    assert (status != Status.SOLVED).sum() <= 4  # of 2400: rounding differs from machine to machine
    assert not ((status == Status.PRIMAL_INFEASIBLE) | (status == Status.DUAL_INFEASIBLE)).any()


def test_semidefinite_point_on_the_border_to_begin_with():
    """Minimise b'y over y in the cone with A'y = -q: where that has one solution, of rank one, the start is there."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, count = 12, 16
        A = rng.standard_normal((count, 3, n))
        w = rng.standard_normal((count, 2))
        v = np.stack([-w[:, 1], w[:, 0]], axis=1)
        y, s = (np.stack([u[:, 0] ** 2, 2**0.5 * u[:, 0] * u[:, 1], u[:, 1] ** 2], axis=1) for u in (w, v))
        q = -np.einsum("bji,bj->bi", A, y)
        b = np.einsum("bij,bj->bi", A, rng.standard_normal((count, n))) + s
        solution = Batched(threads=1).solve(programme(q, A, b, [PositiveSemidefinite(2)]))
        assert (solution.status_code == Status.SOLVED).all(), seed
        torch.testing.assert_close(solution.y, torch.from_numpy(y), rtol=1e-7, atol=1e-7)

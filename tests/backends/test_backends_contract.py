"""The contract of backends: a new one gets the whole suite by joining `BACKENDS`."""

import copy
import gc
import multiprocessing
import pickle
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers.backends import SCS, Batched, Clarabel, Diffcp, default_backend, get_backend
from conelayers.backends.rescued import Rescued
from conelayers.cones import (
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
)
from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.program import ConeProgram, ConeStructure, Status

BACKENDS = [Clarabel(), SCS(), Diffcp(tol=1e-8), Rescued()]
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
MIXED = [
    PositiveSemidefinite(3),
    Exponential(),
    Zero(2),
    SecondOrder(4),
    Nonnegative(3),
    DualExponential(),
    PositiveSemidefinite(2),
    SecondOrder(1),
]
POWERS = [Power(0.3), DualPower(0.6), Nonnegative(2), DualPower(0.25)]
ACCURACY = {"CLARABEL": 1e-6, "SCS": 1e-6, "DIFFCP": 1e-6, "BATCHED": 1e-6}


def random_programs(cones, n, batch, seed=0, quadratic=True):
    """Feasible, bounded programmes made from a complementary pair y = Pi_{K*}(v), s = Pi_K(-v) at a random v."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cone = ProductCone(cones)
    m = cone.dim
    A = randn(*batch, m, n)
    zero = torch.rand(m, n, generator=generator) < 0.3
    A[..., zero] = 0.0
    root = randn(*batch, n, n)
    P = root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64) if quadratic else torch.zeros(*batch, n, n)
    x, v = randn(*batch, n), randn(*batch, m)
    y = cone.project_dual(v)
    s = y - v
    q = -(P.double() @ x.unsqueeze(-1)).squeeze(-1) - (A.mT @ y.unsqueeze(-1)).squeeze(-1)
    b = (A @ x.unsqueeze(-1)).squeeze(-1) + s
    pattern = sp.csc_array((~zero).numpy().astype(float))
    P_pattern = sp.csc_array(np.ones((n, n))) if quadratic else None
    structure = ConeStructure.from_matrices(P_pattern, pattern, cone)
    A_values = A[..., structure.A_indices, structure.A_columns]
    P_values = P[..., structure.P_indices, structure.P_columns].double()
    return ConeProgram(structure, P_values, q, A_values, b), (x, y, s)


def objective(program, x):
    return (0.5 * (x * program.P_times(x)).sum(-1) + (program.q * x).sum(-1)).numpy()


@each_backend
@pytest.mark.parametrize("batch", [(), (3,), (2, 2), (1,), (0,)], ids=str)
def test_solves_every_cone_and_batch_shape(backend, batch):
    program, (x, y, s) = random_programs(MIXED, 9, batch, quadratic=backend.quadratic)
    solution = backend.solve(program)
    assert solution.x.shape == (*batch, 9)
    assert solution.status_code.shape == solution.iterations.shape == solution.gap.shape == batch
    assert solution.status_code.dtype == torch.int8
    assert (solution.status_code == int(Status.SOLVED)).all()
    limit = ACCURACY[backend.name]
    for residual in (solution.primal_residual, solution.dual_residual, solution.gap):
        assert (residual <= limit).all()
    np.testing.assert_allclose(objective(program, solution.x), objective(program, x), rtol=limit, atol=limit)
    if backend.quadratic:
        torch.testing.assert_close(solution.x, x, rtol=1e-3, atol=1e-3)
    cone = program.structure.cone
    torch.testing.assert_close(cone.project(solution.s), solution.s, rtol=0, atol=1e-6)
    torch.testing.assert_close(cone.project_dual(solution.y), solution.y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", [Clarabel(), SCS()], ids=lambda backend: backend.name)
def test_power_cones_and_their_duals(backend):
    program, (x, _, _) = random_programs(POWERS, 5, (3,), seed=1)
    solution = backend.solve(program)
    assert (solution.status_code == 0).all()
    torch.testing.assert_close(solution.x, x, rtol=1e-4, atol=1e-4)
    cone = program.structure.cone
    torch.testing.assert_close(cone.project_dual(solution.y), solution.y, rtol=0, atol=1e-6)


def linear_program(q, A, b, cones):
    """A batch of small linear programmes with a dense A shared by all."""
    structure = ConeStructure.from_matrices(None, np.ones_like(A), ProductCone(cones))
    values = torch.as_tensor(A.T.reshape(-1))
    q, b = torch.as_tensor(q), torch.as_tensor(b)
    return ConeProgram(structure, values.new_zeros(0), q, values, b)


@each_backend
def test_bad_items_have_their_own_status(backend):
    # minimise q x subject to x <= b1, x >= -b2
    A = np.array([[1.0], [-1.0]])
    b = np.array([[1.0, 1.0], [-2.0, 1.0], [np.nan, 1.0], [1.0, 3.0]])
    program = linear_program(np.array([[1.0], [1.0], [1.0], [-1.0]]), A, b, [Nonnegative(2)])
    solution = backend.solve(program)
    assert list(solution.status) == [Status.SOLVED, Status.PRIMAL_INFEASIBLE, Status.FAILED, Status.SOLVED]
    np.testing.assert_allclose(solution.x[[0, 3]].squeeze(-1).numpy(), [-1.0, 1.0], atol=1e-6)
    assert solution.x.isfinite().all()
    unbounded = linear_program(np.array([[1.0], [-1.0]]), np.array([[1.0]]), np.ones((2, 1)), [Nonnegative(1)])
    statuses = list(backend.solve(unbounded).status)
    assert statuses == [Status.DUAL_INFEASIBLE, Status.SOLVED]


@pytest.mark.parametrize("backend", [Clarabel(max_iter=2), SCS(max_iter=2)], ids=lambda backend: backend.name)
def test_iteration_limit_is_reported(backend):
    program, _ = random_programs([Nonnegative(8), SecondOrder(5)], 6, (2,))
    assert list(backend.solve(program).status) == [Status.ITERATION_LIMIT] * 2


@each_backend
def test_shared_values_are_given_once(backend):
    program, _ = random_programs([Nonnegative(6), SecondOrder(3)], 5, (), quadratic=backend.quadratic)
    q = program.q + 0.1 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    together = backend.solve(ConeProgram(program.structure, program.P, q, program.A, program.b))
    for item in range(4):
        alone = backend.solve(ConeProgram(program.structure, program.P, q[item], program.A, program.b))
        torch.testing.assert_close(together.x[item], alone.x, rtol=1e-5, atol=1e-5)


@each_backend
def test_inputs_are_not_changed(backend):
    program, _ = random_programs([Zero(1), Nonnegative(6), SecondOrder(3)], 5, (2,), quadratic=backend.quadratic)
    program.A[..., 0] = 0.0  # an explicit zero, which some solvers drop
    before = [getattr(program, name).clone() for name in ("P", "q", "A", "b")]
    pattern = program.structure.A_indices.copy()
    first = backend.solve(program)
    backend.solve(program, warm_start=first)
    for name, value in zip(("P", "q", "A", "b"), before, strict=True):
        assert torch.equal(getattr(program, name), value)
    np.testing.assert_array_equal(program.structure.A_indices, pattern)


@pytest.mark.parametrize("backend", [Clarabel(), SCS()], ids=lambda backend: backend.name)
def test_no_rows_and_no_quadratic_part(backend):
    structure = ConeStructure.from_matrices(sp.eye_array(2), sp.csc_array((0, 2)), ProductCone([]))
    free = torch.zeros(0, dtype=torch.float64)
    q = torch.tensor([[1.0, -2.0], [0.0, 3.0]], dtype=torch.float64)
    solution = backend.solve(ConeProgram(structure, torch.ones(2, dtype=torch.float64), q, free, free))
    torch.testing.assert_close(solution.x, -q, rtol=1e-6, atol=1e-6)
    assert solution.y.shape == (2, 0)


@each_backend
def test_no_rows_or_no_columns(backend):
    nothing = torch.zeros(0, dtype=torch.float64)
    structure = ConeStructure.from_matrices(None, sp.csc_array((0, 2)), ProductCone([]))
    q = torch.tensor([[0.0, 0.0], [0.0, 3.0]], dtype=torch.float64)
    solution = backend.solve(ConeProgram(structure, nothing, q, nothing, nothing))
    assert list(solution.status) == [Status.SOLVED, Status.DUAL_INFEASIBLE]
    structure = ConeStructure.from_matrices(None, sp.csc_array((3, 0)), ProductCone([SecondOrder(2), Nonnegative(1)]))
    b = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 3.0]], dtype=torch.float64)
    solution = backend.solve(ConeProgram(structure, nothing, nothing, nothing, b))
    assert list(solution.status) == [Status.SOLVED, Status.PRIMAL_INFEASIBLE]
    torch.testing.assert_close(solution.s[0], b[0], rtol=1e-6, atol=1e-6)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.parametrize("backend", [Clarabel(threads=2), Batched(threads=2)], ids=["clarabel", "batched"])
def test_a_forked_process_has_threads_of_its_own(backend):
    """As in data loaders with workers: the parent's threads, of which the child knows, do not run there."""
    program, _ = random_programs([Nonnegative(6)], 4, (17,))
    expected = backend.solve(program).x
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    child = context.Process(target=lambda: found.put(backend.solve(program).x.numpy()))
    child.start()
    child.join(60)
    if child.is_alive():
        child.kill()
        pytest.fail("the forked process hangs")
    assert child.exitcode == 0
    np.testing.assert_allclose(found.get(), expected.numpy(), atol=1e-6)


def test_what_the_engine_gives_up_is_solved_again(monkeypatch):
    program, (x, _, _) = random_programs([Nonnegative(6), SecondOrder(4)], 5, (2, 2))
    complete = Batched.run

    def interrupted(self, structure, data, items, *start):
        result = complete(self, structure, data, items, *start)
        result["status"][[1, 2]] = [int(Status.ITERATION_LIMIT), int(Status.FAILED)]
        result["x"][[1, 2]] = 0.0
        return {**result, "worst": np.inf}

    monkeypatch.setattr(Batched, "run", interrupted)
    solution = default_backend(program.structure).solve(program)
    assert (solution.status_code == 0).all() and solution.status_code.shape == (2, 2)
    torch.testing.assert_close(solution.x, x, rtol=1e-4, atol=1e-4)
    limited = Rescued(max_iter=1).solve(program)
    assert limited.status[0, 1] == limited.status[1, 0] == Status.ITERATION_LIMIT


@pytest.mark.parametrize("b", [(1.0, 1.0, 0.0), (-2.0, 2.0, 1.0), (2.0, -1.0, 1.0)])
def test_inaccurate_solutions_get_a_second_opinion(b):
    """Unbounded along (1, 1), which costs -1 and moves the slack along the border of the cone."""
    P, A = np.array([[1.0, -1.0], [-1.0, 1.0]]), np.array([[-1.0, 0.0], [0.0, -1.0], [0.5, -0.5]])
    structure = ConeStructure.from_matrices(P, A, ProductCone([SecondOrder(3)]))
    values = torch.tensor([1.0, -1.0, 1.0]), torch.tensor([[-1.0, 0.0], [-0.5, 0.5]])
    data = *values, torch.from_numpy(A)[structure.A_indices, structure.A_columns], torch.tensor(b)
    program = ConeProgram(structure, *(value.double() for value in data))
    rescued, alone = Rescued().solve(program), Batched().solve(program)
    assert list(rescued.status) == [Status.DUAL_INFEASIBLE, Status.SOLVED]
    for field in ("x", "y", "s", "iterations"):
        assert torch.equal(getattr(rescued, field)[1], getattr(alone, field)[1]), "the neighbour is left alone"


def test_clarabel_splits_large_semidefinite_blocks():
    """Most entries of a banded slack are free: the block of order 30 is solved in pieces, item by item."""
    order = 30
    cone = ProductCone([PositiveSemidefinite(order)])
    diagonal = np.cumsum([0, *range(order, 1, -1)])
    A = sp.csc_array((-np.ones(order), (diagonal, np.arange(order))), shape=(cone.dim, order))
    structure = ConeStructure.from_matrices(None, A, cone)
    b = torch.zeros(2, cone.dim, dtype=torch.float64)
    b[:, diagonal[:-1] + 1] = torch.tensor([[1.0], [2.0]], dtype=torch.float64) * 2**0.5  # beside the diagonal
    q = torch.ones(order, dtype=torch.float64)
    program = ConeProgram(structure, q[:0], q, torch.from_numpy(A.data), b)
    solution = Clarabel(threads=1).solve(program)
    assert (solution.status_code == 0).all()
    # Minimise the trace of diag(x) + scale T >= 0: its dual bound is reached, and x grows with the scale.
    torch.testing.assert_close(solution.x[1], 2 * solution.x[0], rtol=1e-4, atol=1e-4)
    assert (solution.primal_residual <= 1e-6).all() and (solution.gap <= 1e-6).all()
    torch.testing.assert_close(cone.project_dual(solution.y), solution.y, rtol=0, atol=1e-6)


def test_clarabel_items_of_very_different_scale():
    """The kept solver's equilibration fits the first item only; the others must come out all the same."""
    program, (x, _, _) = random_programs([Nonnegative(6), SecondOrder(4)], 5, (3,))
    scale = torch.tensor([1.0, 1e4, 1e-3], dtype=torch.float64).unsqueeze(-1)
    scaled = ConeProgram(program.structure, program.P * scale, program.q * scale, program.A * scale, program.b * scale)
    solution = Clarabel(threads=1).solve(scaled)
    assert solution.has_solution.all()
    torch.testing.assert_close(solution.x, x, rtol=1e-2, atol=1e-2)


def test_scs_warm_start_saves_iterations():
    program, _ = random_programs(MIXED, 9, (3,))
    cold = SCS().solve(program)
    warm = SCS().solve(program, warm_start=cold)
    assert (warm.iterations < cold.iterations).all()
    torch.testing.assert_close(warm.x, cold.x, rtol=1e-6, atol=1e-6)


def test_scs_fails_on_items_that_are_not_convex_alone():
    """minimise p x^2 / 2 + x subject to x >= -9: SCS raises an error of its own for p < 0."""
    structure = ConeStructure.from_matrices(np.ones((1, 1)), -np.ones((1, 1)), ProductCone([Nonnegative(1)]))
    P = torch.tensor([[1.0], [-1.0], [2.0]], dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    solution = SCS().solve(ConeProgram(structure, P, one, -one, 9 * one))
    assert list(solution.status) == [Status.SOLVED, Status.FAILED, Status.SOLVED]
    torch.testing.assert_close(solution.x[[0, 2]], -1 / P[[0, 2]], rtol=1e-6, atol=0)


def test_missing_capabilities_name_both_sides():
    program, _ = random_programs(POWERS, 5, ())
    with pytest.raises(UnsupportedError, match=r"Power.*DIFFCP"):
        Diffcp().solve(program)
    quadratic, _ = random_programs([Nonnegative(5)], 3, ())
    with pytest.raises(UnsupportedError, match=r"quadratic.*DIFFCP"):
        Diffcp().solve(quadratic)


def test_registry():
    assert isinstance(get_backend("clarabel"), Clarabel)
    assert isinstance(get_backend("SCS"), SCS)
    own = Clarabel(tol=1e-6)
    assert get_backend(own) is own
    with pytest.raises(InvalidArgument, match="CLARABEL"):
        get_backend("gurobi")
    with pytest.raises(InvalidArgument, match="solve"):
        get_backend(Clarabel)


@each_backend
def test_settings_are_values(backend):
    assert pickle.loads(pickle.dumps(backend)) == backend == copy.deepcopy(backend)
    assert hash(backend) == hash(copy.deepcopy(backend))


@pytest.mark.parametrize("backend", [Clarabel(), SCS()], ids=lambda backend: backend.name)
def test_kept_solvers_die_with_their_structure(backend):
    program, _ = random_programs(MIXED, 9, (2,))
    backend.solve(program)
    structure = weakref.ref(program.structure)
    del program
    gc.collect()
    assert structure() is None


def test_simultaneous_calls_do_not_share_solvers():
    from concurrent.futures import ThreadPoolExecutor

    program, (x, _, _) = random_programs([Nonnegative(6), SecondOrder(4)], 5, (6,))
    with ThreadPoolExecutor(4) as pool:
        solutions = list(pool.map(lambda _: Clarabel(threads=2).solve(program), range(8)))
    for solution in solutions:
        torch.testing.assert_close(solution.x, x, rtol=1e-4, atol=1e-4)

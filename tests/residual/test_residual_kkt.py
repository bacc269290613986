"""KKT systems: several right-hand sides, shared matrices, scales, singular and inconsistent systems, large ones."""

import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import random_program, reference_solution

import conelayers.residual.polish as polish_module
from conelayers.backends import Clarabel
from conelayers.cones import Nonnegative, PositiveSemidefinite, ProductCone, SecondOrder, Zero
from conelayers.program import ConeProgram, ConeStructure, Status
from conelayers.residual.kkt import KKTSystem
from conelayers.residual.linearization import linearize
from conelayers.residual.polish import polish

each_method = pytest.mark.parametrize("method", ["dense", "sparse", "iterative"])
CONES = [Zero(2), Nonnegative(4), SecondOrder(4), PositiveSemidefinite(3)]


def dense_jacobian(program, v):
    """J(D) of one programme, assembled by hand."""
    s = program.structure
    upper = s.P_matrix(program.P.numpy()).toarray()
    P = torch.from_numpy(upper + np.triu(upper, 1).T)
    A = torch.from_numpy(s.A_matrix(program.A.numpy()).toarray())
    D = s.cone.dual_derivative(v).matrix()
    return torch.cat([torch.cat([P, A.mT @ D], 1), torch.cat([A, D - torch.eye(s.m, dtype=D.dtype)], 1)], 0)


@each_method
def test_several_right_hand_sides_and_shared_matrices(method):
    program, solution = random_program(CONES, 16, (3,), seed=1)
    shared = ConeProgram(program.structure, program.P[:1], program.q, program.A[:1], program.b)
    v = solution.y - solution.s
    system = KKTSystem(program.structure, method)
    factor = system.factor(shared.P, shared.A, program.structure.cone.dual_derivative(v))
    generator = torch.Generator().manual_seed(0)
    m = program.structure.m
    r1, r2 = (torch.randn(2, 3, k, generator=generator, dtype=torch.float64) for k in (16, m))
    dx, dv, residual = system.solve(factor, r1, r2)
    assert residual.shape == (2, 3)
    assert residual.max() < 1e-11
    for item in range(3):
        one = ConeProgram(program.structure, program.P[0], program.q[item], program.A[0], program.b[item])
        J = dense_jacobian(one, v[item])
        expected = torch.linalg.solve(J, torch.cat([r1, r2], -1)[:, item].mT).mT
        torch.testing.assert_close(torch.cat([dx, dv], -1)[:, item], expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    # Farther apart, with A P^-1 A' below 1e-10 of P, systems are singular to working precision.
    st.floats(-4, 4),
    st.floats(-1.5, 1.5),
    st.floats(-8, 8),
    st.integers(0, 50),
    st.sampled_from(["dense", "sparse"]),
)
def test_any_scale_of_objective_rows_and_right_hand_sides(log_P, log_A, log_rhs, seed, method):
    program, solution = random_program(CONES, 16, (1,), seed=seed)
    P, A = program.P * 10**log_P, program.A * 10**log_A
    v = solution.y - solution.s
    system = KKTSystem(program.structure, method)
    factor = system.factor(P, A, program.structure.cone.dual_derivative(v))
    generator = torch.Generator().manual_seed(seed)
    r1, r2 = (10**log_rhs * torch.randn(1, k, generator=generator, dtype=torch.float64) for k in (16, 16))
    dx, dv, residual = system.solve(factor, r1, r2)
    J = dense_jacobian(ConeProgram(program.structure, P[0], program.q[0], A[0], program.b[0]), v[0])
    rhs = torch.cat([r1, r2], -1)[0]
    z = torch.cat([dx, dv], -1)[0]
    # What no method can beat in double precision: roundoff of the products J z.
    attainable = 1e-11 * rhs.norm() + 1e-14 * torch.linalg.matrix_norm(J) * z.norm()
    assert (J @ z - rhs).norm() <= attainable
    assert residual.max() * rhs.norm() <= 2 * attainable


def epigraph_programme():
    """minimise 1/2 |x - p|^2 subject to |x| <= t, t <= d, with the bound inactive: t is free and J is singular."""
    A = np.zeros((5, 4))
    A[0, 3] = -1.0  # (t, x) in the second-order cone
    A[1:4, :3] = -np.eye(3)
    A[4, 3] = 1.0  # t <= d
    structure = ConeStructure.from_matrices(
        sp.diags_array([1.0, 1.0, 1.0, 0.0]).tocsc(), sp.csc_array(A), ProductCone([SecondOrder(4), Nonnegative(1)])
    )
    p = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    program = ConeProgram(
        structure,
        torch.ones(structure.P_nnz, dtype=torch.float64),
        torch.cat([-p, torch.zeros(1, dtype=torch.float64)]),
        torch.from_numpy(A.T[A.T != 0]),
        torch.tensor([0, 0, 0, 0, 2.0], dtype=torch.float64),
    )
    return program, p


@each_method
def test_inactive_epigraph_variable(method):
    program, p = epigraph_programme()
    solution = reference_solution(program)
    torch.testing.assert_close(solution.x[:3], p, rtol=0, atol=1e-10)
    v = (solution.y - solution.s)[None]
    assert torch.linalg.matrix_rank(dense_jacobian(program, v[0])) < 9
    system = KKTSystem(program.structure, method)
    factor = system.factor(program.P[None], program.A[None], program.structure.cone.dual_derivative(v))
    dp = torch.tensor([1.0, 2.0, -0.5], dtype=torch.float64)
    r1 = torch.cat([dp, torch.zeros(1, dtype=torch.float64)])[None]
    dx, dv, residual = system.solve(factor, r1, torch.zeros(1, 5, dtype=torch.float64))
    assert residual.max() < 1e-12
    torch.testing.assert_close(dx[0, :3], dp, rtol=1e-10, atol=1e-10)
    assert dx.isfinite().all() and dx.abs().max() < 10


@each_method
def test_inconsistent_systems_get_the_shortest_least_squares_solution(method):
    """Two equal active rows: the dual is not unique, and a right-hand side may ask for the impossible."""
    A = np.array([[1.0, 0.0], [1.0, 0.0]])
    structure = ConeStructure.from_matrices(sp.eye_array(2), sp.csc_array(A), ProductCone([Nonnegative(2)]))
    values = torch.ones(1, 2, dtype=torch.float64)
    v = torch.ones(1, 2, dtype=torch.float64)
    system = KKTSystem(structure, method)
    factor = system.factor(values, values, structure.cone.dual_derivative(v))
    r1, r2 = torch.tensor([[1.0, 1.0]], dtype=torch.float64), torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    dx, dv, residual = system.solve(factor, r1, r2)
    J = dense_jacobian(ConeProgram(structure, values[0], r1[0], values[0], r2[0]), v[0])
    expected = torch.linalg.pinv(J) @ torch.cat([r1, r2], -1)[0]
    torch.testing.assert_close(torch.cat([dx, dv], -1)[0], expected, rtol=1e-7, atol=1e-7)
    assert residual.max() > 0.1


@each_method
def test_nan_in_one_item_stays_there(method):
    program, solution = random_program([Nonnegative(6), SecondOrder(3)], 9, (3,), seed=2)
    v = solution.y - solution.s
    P = program.P.clone()
    P[1, 0] = torch.nan
    system = KKTSystem(program.structure, method)
    factor = system.factor(P, program.A, program.structure.cone.dual_derivative(v))
    dx, dv, residual = system.solve(factor, torch.ones(3, 9).double(), torch.ones(3, 9).double())
    assert dx.isfinite().all() and dv.isfinite().all()
    assert residual[[0, 2]].max() < 1e-11
    assert not residual[1] < 1e-3


def test_zero_right_hand_side():
    program, solution = random_program([Nonnegative(6), SecondOrder(3)], 9, (2,), seed=2)
    system = KKTSystem(program.structure)
    factor = system.factor(program.P, program.A, program.structure.cone.dual_derivative(solution.y - solution.s))
    dx, dv, residual = system.solve(factor, torch.zeros(2, 9).double(), torch.zeros(2, 9).double())
    assert (dx == 0).all() and (dv == 0).all() and (residual == 0).all()


def test_no_rows():
    structure = ConeStructure.from_matrices(sp.eye_array(3), sp.csc_array((0, 3)), ProductCone([]))
    system = KKTSystem(structure)
    nothing = torch.zeros(2, 0, dtype=torch.float64)
    factor = system.factor(2 * torch.ones(1, 3).double(), nothing[:1], structure.cone.dual_derivative(nothing))
    dx, dv, _ = system.solve(factor, torch.ones(2, 3).double(), nothing)
    torch.testing.assert_close(dx, torch.full((2, 3), 0.5, dtype=torch.float64))
    assert dv.shape == (2, 0)


def test_large_sparse_system():
    rng = np.random.default_rng(0)
    n, equal = 3_000, 900
    E = sum(sp.eye_array(equal, n, k=k * equal) for k in range(3)) + sp.random_array((equal, n), density=6e-4, rng=rng)
    A = sp.vstack([E, -sp.eye_array(n)], format="csc")
    A.sort_indices()
    structure = ConeStructure.from_matrices(sp.eye_array(n), A, ProductCone([Zero(equal), Nonnegative(n)]))
    v = torch.from_numpy(rng.standard_normal((1, equal + n)))
    v[:, equal : 2 * equal] = -1.0  # enough free variables for the equations
    system = KKTSystem(structure)
    factor = system.factor(torch.ones(1, n).double(), torch.from_numpy(A.data)[None], structure.cone.dual_derivative(v))
    r1, r2 = torch.from_numpy(rng.standard_normal((1, n))), torch.from_numpy(rng.standard_normal((1, equal + n)))
    _, _, residual = system.solve(factor, r1, r2)
    assert residual.max() < 1e-12


def test_polish_squares_the_residual_and_leaves_bad_items_alone():
    program, solution = random_program(CONES, 16, (3,), seed=4)
    b = program.b.clone()
    b[1, 2:6] = torch.nan
    program = ConeProgram(program.structure, program.P, program.q, program.A, b)
    rough = Clarabel(tol=1e-6).solve(program)
    assert rough.status[1] is Status.FAILED
    fine = polish(program, rough)
    for item in (0, 2):
        assert max(fine.primal_residual[item], fine.dual_residual[item], fine.gap[item]) < 1e-13
        torch.testing.assert_close(fine.x[item], solution.x[item], rtol=1e-11, atol=1e-11)
        cone = program.structure.cone
        torch.testing.assert_close(cone.project(fine.s[item]), fine.s[item], rtol=0, atol=1e-13)
        torch.testing.assert_close(
            (fine.s[item] * fine.y[item]).sum().abs(), torch.zeros(()).double(), atol=1e-12, rtol=0
        )
    assert fine.status[1] is Status.FAILED
    assert (fine.x[1] == rough.x[1]).all()


def test_polish_never_makes_a_solution_worse():
    program, _ = random_program([Nonnegative(9), SecondOrder(5)], 4, (20,), seed=5, quadratic=False)
    rough = Clarabel().solve(program)
    fine = polish(program, rough)
    before = torch.maximum(rough.primal_residual, torch.maximum(rough.dual_residual, rough.gap))
    after = torch.maximum(fine.primal_residual, torch.maximum(fine.dual_residual, fine.gap))
    assert (after <= before).all()


def test_polish_touches_only_what_has_a_solution_and_says_what_it_reached():
    """Rough points under every status: the same item without one, and one that may not take a step."""
    program, _ = random_program(CONES, 16, (3,), seed=4)
    rough = Clarabel(tol=1e-5).solve(program)
    codes = torch.tensor([int(Status.INACCURATE), int(Status.PRIMAL_INFEASIBLE), int(Status.SOLVED)], dtype=torch.int8)
    rough = dataclasses.replace(rough, status_code=codes)
    assert rough.gap.min() > 1e-8
    fine, idle = polish(program, rough), polish(program, rough, steps=0)
    assert fine.status.tolist() == [Status.SOLVED, Status.PRIMAL_INFEASIBLE, Status.SOLVED]
    assert idle.status[0] is Status.INACCURATE
    assert (fine.x[1] == rough.x[1]).all() and (fine.y[1] == rough.y[1]).all() and (fine.s[1] == rough.s[1]).all()
    assert (fine.x[0] != rough.x[0]).any()


def test_polish_stops_where_nothing_is_to_be_gained(monkeypatch):
    program, exact = random_program(CONES, 16, (3,), seed=4)
    exact = polish(program, exact)
    taken = []
    monkeypatch.setattr(polish_module, "linearize", lambda *a: taken.append(a) or linearize(*a))
    again = polish(program, exact, steps=8)
    assert len(taken) <= 2
    torch.testing.assert_close(again.x, exact.x, rtol=0, atol=1e-14)

"""Null directions of the lifting: each condition under which they are harmless, on programmes made for it."""

import numpy as np
import pytest
import scipy.sparse as sp
from regularity.regularity_instances import solution_at, solved

from conelayers.cones import Nonnegative, ProductCone, SecondOrder, Zero
from conelayers.program import ConeStructure
from conelayers.regularity import certify
from conelayers.regularity.artefacts import _positive_and_disjoint
from conelayers.regularity.interface import Interface


def verdict(A, v, cone, *, parameters=(), users=1, residual=0.0, radius=0.0):
    """Certify 1/2 x_1^2 + ... + 1/2 x_users^2 with parameters in the given entries of A, in one parameter."""
    A, v, cone = np.atleast_2d(np.array(A, dtype=float)), np.array(v, dtype=float), ProductCone(cone)
    m, n = A.shape
    P = np.diag([1.0] * users + [0.0] * (n - users))
    structure = ConeStructure.from_matrices(sp.csc_array(np.ones((n, n))), sp.csc_array(np.ones((m, n))), cone)
    moved = np.zeros((structure.A_nnz, 1))
    for i, j in parameters:
        moved[j * m + i] = 1.0  # the pattern is full, column by column
    empty = [sp.csr_array((size, 1)) for size in (structure.P_nnz, n, m)]
    interface = Interface(
        structure, np.arange(n) < users, sp.csr_array((0, m)), empty[0], empty[1], sp.csr_array(moved), empty[2]
    )
    program, solution = solved(P, A, v, cone, structure)
    found = certify(
        program, solution_at(solution.x, solution.y, solution.s, residual), interface=interface, radius=radius
    )
    return bool(found.regular) if found.decided else None


def test_parameters_that_push_the_direction():
    """x + p (t_1 - t_2) <= b, active: moving t_1 and t_2 together is free only as long as p is the same for both."""
    row = [[1, 1, -1]]
    assert verdict(row, [1.0], [Nonnegative(1)]) is True
    assert verdict(row, [1.0], [Nonnegative(1)], parameters=[(0, 1), (0, 2)]) is False  # p t_1 + p t_2 moves both
    assert verdict(row, [1.0], [Nonnegative(1)], parameters=[(0, 1)]) is False
    # In two equations with opposite multipliers the pushes cancel, but the direction itself depends on p.
    rows, parameters = [[1, 1, -1], [2, 1, -1]], [(0, 1), (1, 1)]
    assert verdict(rows, [1.0, -1.0], [Zero(2)], parameters=parameters) is None
    # Without a multiplier there is no push: interior slacks, and weakly active rows of one group.
    assert verdict(row, [-1.0], [Nonnegative(1)], parameters=[(0, 1)]) is True
    group, parameters = [[1, -1], [1, 1]], [(1, 1)]
    assert verdict(group, [0.0, 0.0], [Nonnegative(2)], parameters=parameters) is True
    # Rounding errors of their multipliers are none either.
    assert verdict(group, [1e-6, 2e-6], [Nonnegative(2)], parameters=parameters, residual=1e-8) is True
    # In a neighbourhood there are multipliers.
    assert verdict(group, [0.0, 0.0], [Nonnegative(2)], radius=0.1) is True
    assert verdict(group, [0.0, 0.0], [Nonnegative(2)], parameters=parameters, radius=0.1) is None


def test_what_weak_rows_may_do():
    x_below_t, t_below = [1, -1], [0, 1]
    assert verdict([x_below_t, t_below], [0, 0], [Nonnegative(2)]) is True
    # t <= x and t <= 0 do not bound x; where both are active t = x = 0 is frozen, which no solution near by is.
    assert verdict([[-1, 1], t_below], [0, 0], [Nonnegative(2)]) is None
    # A second-order block at its apex is no single row.
    assert verdict([[0, -1], [-1, 0], [0, 0], t_below], [0, 0, 0, 0], [SecondOrder(3), Nonnegative(1)]) is None
    # On its boundary it is; in a neighbourhood its direction turns.
    block, point = [[0, -1], [-1, 0], [0, 0], t_below], [-5.0, 3.0, 4.0, 0.0]
    assert verdict(block, point, [SecondOrder(3), Nonnegative(1)]) is True
    assert verdict(block, point, [SecondOrder(3), Nonnegative(1)], radius=0.1) is None


@pytest.mark.parametrize(
    ("rows", "groups"),
    [
        ([[-1.0], [1]], True),
        ([[1.0], [1]], False),
        ([[-1.0], [-1], [1]], False),  # one of two rows may hold: the groups share the third
        ([[-1.0, 0], [0, -1], [1, 1]], True),
        ([[-1.0, 0], [0, -1], [1, 1], [1, 2]], False),
        ([[-1.0, 0], [0, -1], [2, 0], [0, 3]], True),
        ([[-1.0, 0], [0, -1]], True),  # independent rows can all be kept: no group
    ],
)
def test_groups(rows, groups):
    assert _positive_and_disjoint(np.array(rows)) is groups

"""Programmes of parts in very different units: each part comes out as by itself, and inside its cone."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers.backends.batched import Batched
from conelayers.cones import Nonnegative, PositiveSemidefinite, ProductCone, SecondOrder, Zero
from conelayers.program import ConeProgram, ConeStructure, Status, residuals


def simplex(rng):
    p = rng.standard_normal(4)
    ordered = np.sort(p)[::-1]
    excess = np.cumsum(ordered) - 1
    k = np.nonzero(ordered - excess / np.arange(1, 5) > 0)[0][-1]
    x = np.maximum(p - excess[k] / (k + 1), 0)
    return p, np.vstack([np.ones((1, 4)), -np.eye(4)]), np.array([1.0, 0, 0, 0, 0]), [Zero(1), Nonnegative(4)], x


def ball(rng):
    p = 2 * rng.standard_normal(3)
    x = p / max(1.0, np.linalg.norm(p))
    return p, np.vstack([np.zeros((1, 3)), -np.eye(3)]), np.array([1.0, 0, 0, 0]), [SecondOrder(4)], x


def semidefinite(rng):
    M = rng.standard_normal((2, 2))
    w, V = np.linalg.eigh(M + M.T)
    X = (V * np.maximum(w, 0)) @ V.T
    p, x = (np.array([S[0, 0], 2**0.5 * S[1, 0], S[1, 1]]) for S in (M + M.T, X))
    return p, -np.eye(3), np.zeros(3), [PositiveSemidefinite(2)], x


def scaled(part, unit, weight, lifted):
    """weight |x - unit p|^2 / (2 unit^2) over the part times `unit`; lifted: with x - t = unit p and the cost on t."""
    p, A, b, cones, x = part
    n, P = len(p), weight / unit**2
    if not lifted:
        return P * np.eye(n), -P * unit * p, A / unit, b, cones, unit * x
    rows = np.block([[np.eye(n), -np.eye(n)], [A / unit, np.zeros_like(A)]])
    P = sp.block_diag([np.zeros((n, n)), P * np.eye(n)]).toarray()
    return P, np.zeros(2 * n), rows, np.r_[unit * p, b], [Zero(n), *cones], unit * x


def beside(parts):
    """The programme that holds all parts."""
    P, A = (sp.csc_array(sp.block_diag([part[k] for part in parts])) for k in (0, 2))
    P = sp.csc_array(sp.triu(P))
    P.eliminate_zeros(), A.eliminate_zeros()
    structure = ConeStructure.from_matrices(P, A, ProductCone([cone for part in parts for cone in part[4]]))
    q, b = (np.concatenate([part[k] for part in parts]) for k in (1, 3))
    return ConeProgram(structure, *(torch.from_numpy(np.tile(value, (2, 1))) for value in (P.data, q, A.data, b)))


@pytest.mark.parametrize("seed", range(4))
def test_parts_in_units_of_their_own(seed):
    rng, solved = np.random.default_rng(seed), 0
    for _ in range(30):
        kinds = [(simplex, ball, semidefinite)[k] for k in rng.integers(0, 3, size=2)]
        units, weights = 10 ** rng.uniform(-6, 6, 2), 10 ** rng.uniform(-6, 6, 2)
        parts = [scaled(kind(rng), u, w, rng.random() < 0.4) for kind, u, w in zip(kinds, units, weights, strict=True)]
        solution = Batched(threads=1).solve(beside(parts))
        if solution.status_code[0] != Status.SOLVED:
            continue
        solved += 1
        x, first = solution.x[0].numpy(), 0
        for part, unit in zip(parts, units, strict=True):
            np.testing.assert_allclose(x[first : first + len(part[5])], part[5], rtol=0, atol=1e-6 * unit)
            first += len(part[1])
    assert solved >= 28  # the others fail and say so


def test_residuals_of_small_rows_are_seen_beside_huge_ones():
    parts = [
        scaled(simplex(np.random.default_rng(0)), 1.0, 1.0, True),
        scaled(ball(np.random.default_rng(1)), 1.0, 1e12, True),
    ]
    program = beside(parts)
    solution = Batched(threads=1).solve(program)
    assert float(residuals(program, solution.x, solution.y, solution.s).worst.max()) < 1e-9
    x, y = solution.x.clone(), solution.y.clone()
    x[:, 0] += 1e-4
    y[:, 0] += 1e-4
    moved = residuals(program, x, solution.y, solution.s), residuals(program, solution.x, y, solution.s)
    assert float(moved[0].primal.min()) > 1e-5 and float(moved[1].dual.min()) > 1e-6


def test_points_outside_their_cones_are_seen():
    program = beside([scaled(semidefinite(np.random.default_rng(0)), 1.0, 1.0, False)])
    solution = Batched(threads=1).solve(program)
    outside = torch.tensor([1.0, 0, -0.5])
    found = residuals(program, solution.x - outside, solution.y, solution.s - outside)
    assert float(found.primal.min()) > 0.05
    assert float(residuals(program, solution.x, solution.y - outside, solution.s).dual.min()) > 0.05


def test_redundant_equations_of_huge_size():
    """Two equations say the same, 7e5 times as large as the rest: one solution, in batches of any size."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(2)
    line = rng.standard_normal(2)
    factor = rng.standard_normal((5, 3))
    S = factor @ factor.T
    svec = np.array([S[i, j] * (1 if i == j else 2**0.5) for j in range(5) for i in range(j, 5)])
    A = np.vstack([7e5 * line, -6e5 * line, rng.standard_normal((15, 2))])
    b = A @ x + np.r_[0, 0, svec]
    structure = ConeStructure.from_matrices(
        None, sp.csc_array(np.ones(A.shape)), ProductCone([Zero(2), PositiveSemidefinite(5)])
    )
    q = A[2:].T @ -svec / 10 + line
    found = []
    for items in (1, 2, 9):
        values = (np.zeros(0), q, A.T.reshape(-1), b)
        program = ConeProgram(structure, *(torch.from_numpy(np.tile(value, (items, 1))) for value in values))
        solution = Batched(threads=1).solve(program)
        assert (solution.status_code == Status.SOLVED).all()
        found.append(solution.x)
        assert float(residuals(program, solution.x, solution.y, solution.s).worst.max()) < 1e-8
    torch.testing.assert_close(found[1], found[0].expand(2, 2), rtol=0, atol=1e-9)
    torch.testing.assert_close(found[2], found[0].expand(9, 2), rtol=0, atol=1e-9)

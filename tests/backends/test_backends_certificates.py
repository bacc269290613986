"""Claims of infeasibility: kept where they hold in the data, withdrawn and answered where they do not."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from conelayers.backends import SCS, Batched, Clarabel, Diffcp
from conelayers.backends.rescued import Rescued
from conelayers.cones import Exponential, Nonnegative, PositiveSemidefinite, ProductCone, SecondOrder, Zero
from conelayers.program import ConeProgram, ConeStructure, Status
from conelayers.residual.solve import solve_and_polish

QUADRATIC = [Rescued(), Batched(), Clarabel(threads=1), SCS(threads=1)]
BACKENDS = [Rescued(), Clarabel(threads=1), SCS(threads=1), Diffcp()]
names = lambda backend: type(backend).__name__  # noqa: E731
CONES = {
    "polyhedral": [Zero(3), Nonnegative(15)],
    "curved": [Nonnegative(6), SecondOrder(5), Exponential(), PositiveSemidefinite(3)],
}


def program_of(P, q, A, b, cones):
    structure = ConeStructure.from_matrices(
        None if P is None else sp.csc_array(np.ones((q.shape[-1],) * 2)), np.ones(A.shape[-2:]), ProductCone(cones)
    )
    entries = q[..., :0] if P is None else P[..., structure.P_indices, structure.P_columns]
    return ConeProgram(structure, entries, q, A[..., structure.A_indices, structure.A_columns], b)


def scaled(program_data, cones, spread, generator):
    """Data in other units of unknowns and rows, log-normal; one unit for the rows of a curved cone."""
    P, q, A, b = program_data
    D = torch.exp(spread * torch.randn(q.shape, generator=generator))
    E = torch.exp(spread * torch.randn(b.shape, generator=generator))
    row = 0
    for cone in cones:
        if not cone.polyhedral:
            E[..., row : row + cone.dim] = E[..., row : row + 1]
        row += cone.dim
    P = None if P is None else D[..., :, None] * P * D[..., None, :]
    return P, q * D, E[..., None] * A * D[..., None, :], b * E


def infeasible(cones, spread, items=12, n=8, quadratic=True):
    """Programmes with y in K*, A'y = 0 and b'y = -1."""
    generator = torch.Generator().manual_seed(1)
    cone = ProductCone(cones)
    A, b, q, root, y = (
        torch.randn(items, *shape, generator=generator)
        for shape in ((cone.dim, n), (cone.dim,), (n,), (n, 4), (cone.dim,))
    )
    y = cone.project_dual(y)
    square = (y * y).sum(-1, keepdim=True)
    A = A - y[..., None] * (A.mT @ y[..., None]).mT / square[..., None]
    b = b - y * ((b * y).sum(-1, keepdim=True) + 1) / square
    return program_of(*scaled((root @ root.mT if quadratic else None, q, A, b), cones, spread, generator), cones)


def unbounded(cones, spread, items=12, n=8, quadratic=True):
    """Feasible programmes with Px = 0, -Ax in K and q'x = -1."""
    generator = torch.Generator().manual_seed(2)
    cone = ProductCone(cones)
    A, q, root, x, s, point = (
        torch.randn(items, *shape, generator=generator)
        for shape in ((cone.dim, n), (n,), (n, 4), (n,), (cone.dim,), (n,))
    )
    square, along = (x * x).sum(-1, keepdim=True), x[..., None]
    A = A - (A @ along + cone.project(s)[..., None]) * along.mT / square[..., None]
    root = root - along * (root.mT @ along).mT / square[..., None]
    q = q - x * ((q * x).sum(-1, keepdim=True) + 1) / square
    b = (A @ point[..., None])[..., 0] + cone.project(torch.randn(items, cone.dim, generator=generator))
    return program_of(*scaled((root @ root.mT if quadratic else None, q, A, b), cones, spread, generator), cones)


@pytest.mark.parametrize("backend", BACKENDS, ids=names)
@pytest.mark.parametrize("cones", CONES.values(), ids=CONES)
@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_certificates_that_hold_are_believed(backend, cones, spread):
    found = backend.solve(infeasible(cones, spread, quadratic=backend.quadratic))
    proven = found.status_code == int(Status.PRIMAL_INFEASIBLE)
    if not backend.quadratic:  # an unbounded one among them is neither
        proven |= found.status_code == int(Status.DUAL_INFEASIBLE)
    assert proven.all()
    assert not found.x.any() and not found.y.any()


@pytest.mark.parametrize("backend", [Rescued(), Clarabel(threads=1)], ids=names)
@pytest.mark.parametrize("cones", CONES.values(), ids=CONES)
def test_certificates_of_unboundedness_that_hold_are_believed(backend, cones):
    assert (backend.solve(unbounded(cones, 0.0)).status_code == int(Status.DUAL_INFEASIBLE)).all()


@pytest.mark.parametrize("backend", QUADRATIC, ids=names)
@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e3])
def test_a_flat_objective_is_not_unbounded(backend, unit):
    """minimise x0^2 + 2e-9 x1^2 - t x1, at x1 = t / 4e-9, in three units of x."""
    if backend.name == "SCS" and unit < 1:
        pytest.skip("a first-order method takes more than its limit of iterations")
    P = torch.diag(torch.tensor([2.0, 4e-9])) * unit**2
    t = torch.tensor([[1.0], [-0.5]])
    q = torch.cat([torch.zeros(2, 1), -t], -1) * unit
    program = program_of(P, q, torch.tensor([[1.0, 0.0]]) * unit, torch.tensor([3.0]), [Nonnegative(1)])
    solution = solve_and_polish(program, backend)
    assert (solution.status_code == int(Status.SOLVED)).all()
    torch.testing.assert_close(solution.x[:, 1:] * unit, t / 4e-9, rtol=1e-6, atol=0.0)
    torch.testing.assert_close(solution.x[:, 0], torch.zeros(2), rtol=0, atol=1e-6 / unit)


@pytest.mark.parametrize("backend", QUADRATIC, ids=names)
@pytest.mark.parametrize("mask", [1e6, 1e8, 1e10])
def test_large_costs_are_not_infeasible(backend, mask):
    """minimise 1/2 |p - score|^2 on the simplex, where a score of -mask says: never."""
    if backend.name == "SCS" and mask > 1e6:
        pytest.skip("a first-order method takes more than its limit of iterations")
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(5, 6, generator=generator)
    masked = torch.rand(5, 6, generator=generator) < 0.4
    masked[:, 0] = False
    q = -torch.where(masked, -mask, score)
    A, b = torch.cat([torch.ones(1, 6), -torch.eye(6)]), torch.tensor([1.0, *[0.0] * 6])
    solution = solve_and_polish(program_of(torch.eye(6), q, A, b, [Zero(1), Nonnegative(6)]), backend)
    assert (solution.status_code == int(Status.SOLVED)).all()
    for p, s, m in zip(solution.x, score, masked, strict=True):
        expected = torch.zeros(6)
        expected[~m] = simplex_projection(s[~m])
        torch.testing.assert_close(p, expected, rtol=0, atol=1e-6)


def simplex_projection(score):
    ordered = score.sort(descending=True).values
    excess = (ordered.cumsum(0) - 1) / torch.arange(1, len(score) + 1)
    return torch.clamp(score - excess[ordered > excess][-1], min=0.0)


@pytest.mark.parametrize("backend", QUADRATIC, ids=names)
def test_feasible_far_away(backend):
    """1e-9 x0 >= 1: the multiplier 1 gains 1 and leaves only 1e-9 in A'y, and yet x0 = 1e9 is feasible."""
    A, b = torch.tensor([[-1e-9, 0.0], [0.0, -1.0]]), torch.tensor([-1.0, -1.0])
    P, q = torch.diag(torch.tensor([1e-18, 1.0])), torch.zeros(2)
    solution = solve_and_polish(program_of(P, q, A, b, [Nonnegative(2)]), backend)
    assert solution.status == Status.SOLVED
    torch.testing.assert_close(solution.x, torch.tensor([1e9, 1.0]), rtol=1e-6, atol=0.0)


def test_close_calls():
    """x <= 1 and x >= 1 + gap: infeasible as long as the gap is more than rounding."""
    gap = torch.tensor([[1e-3], [1e-6], [-1e-3], [-1e-6]])
    b = torch.cat([torch.ones(4, 1), -1 - gap], -1)
    program = program_of(None, torch.ones(1), torch.tensor([[1.0], [-1.0]]), b, [Nonnegative(2)])
    for backend in (Rescued(), Clarabel(threads=1)):
        found = list(solve_and_polish(program, backend).status)
        assert found == [Status.PRIMAL_INFEASIBLE] * 2 + [Status.SOLVED] * 2

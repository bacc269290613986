"""What is believed of backends' points, and what polishing does not do to them."""

import dataclasses

import pytest
import torch

from conelayers import Status, solve_cone_program
from conelayers.backends import Batched, Clarabel
from conelayers.cones import DualPower, Exponential, Nonnegative, ProductCone, Zero
from conelayers.errors import SolveError
from conelayers.program import ConeProgram, ConeSolution, ConeStructure


@dataclasses.dataclass(frozen=True)
class Rough(Batched):
    """Says that it polishes, as `Batched`, but comes back with another solver's rough points."""

    def solve(self, program, warm_start=None):
        return Clarabel(tol=1e-5).solve(program)


def test_rough_points_are_polished_whatever_the_backend_says():
    generator = torch.Generator().manual_seed(0)
    P, q = torch.eye(6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64, generator=generator)
    A, b = torch.randn(8, 6, dtype=torch.float64, generator=generator), torch.rand(8, dtype=torch.float64)
    exact = solve_cone_program(P, q, A, b, [Nonnegative(8)], solver=Batched())
    rough = Rough().solve(_program(P, q, A, b))
    assert float((rough.x - exact.x).abs().max()) > 1e-8
    polished = solve_cone_program(P, q, A, b, [Nonnegative(8)], solver=Rough())
    torch.testing.assert_close(polished.x, exact.x, rtol=0, atol=1e-13)


NEAR_KINKS = [
    (
        DualPower(0.25),
        [0.0, -1.5, -0.3],
        [[-0.2, 0.8, 0.4], [-0.2, 2.0, 1.3], [-1.1, -2.3, -0.7]],
        [0.6, -0.4, 1.6],
        [-0.4, -3.6, -0.1],
    ),
    (Exponential(), [-0.1, 1.2, 0.0], [[0.8, -0.1], [0.1, 0.4], [-1.3, -1.4]], [0.1, -2.6], [1.3, -0.5]),
]


@pytest.mark.parametrize("cone, v, A, root, x", NEAR_KINKS, ids=["dual power", "exponential"])
def test_a_point_beside_a_kink_is_not_made_worse(cone, v, A, root, x):
    """There v = y - s, whose projections a polish takes for y and s, says less than they do."""
    v, A, root, x = (torch.tensor(value, dtype=torch.float64) for value in (v, A, root, x))
    y = ProductCone([cone]).project_dual(v)
    P = torch.outer(root, root)
    q, b = -P @ x - A.mT @ y, A @ x + y - v
    polished = solve_cone_program(P, q, A, b, [cone], solver=Clarabel())
    rough = Clarabel().solve(_program(P, q, A, b, cone))
    assert _worst(rough) <= 1e-7
    assert _worst(polished) <= _worst(rough)


@dataclasses.dataclass(frozen=True)
class Boastful(Clarabel):
    """Calls solved whatever it is given, the second item at a point far out, as solvers do beside infeasibility."""

    def solve(self, program, warm_start=None):
        found = super().solve(program)
        x = found.x.clone()
        x[1] = 1e9
        return dataclasses.replace(found, x=x, status_code=torch.zeros_like(found.status_code))


def test_a_claim_that_residuals_belie_is_not_believed():
    """x = 1 and x = 2 at once has no solution; the neighbours keep theirs, and the gradient."""
    A, b = torch.ones(2, 1, dtype=torch.float64), torch.tensor([[1.0, 1], [1, 2], [3, 3]], dtype=torch.float64)
    b.requires_grad_()
    P, q = torch.eye(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    found = solve_cone_program(P, q, A, b, [Zero(2)], solver=Boastful(), on_failure="nan")
    assert list(found.status) == [Status.SOLVED, Status.FAILED, Status.SOLVED]
    torch.testing.assert_close(found.x[:, 0].detach(), torch.tensor([1.0, torch.nan, 3.0]).double(), equal_nan=True)
    (gradient,) = torch.autograd.grad(found.x.nansum(), b)
    torch.testing.assert_close(gradient.sum(-1), torch.tensor([1.0, 0.0, 1.0]).double())
    with pytest.raises(SolveError, match="1: FAILED"):
        solve_cone_program(P, q, A, b, [Zero(2)], solver=Boastful())


def _worst(solution: ConeSolution) -> float:
    return max(float(value) for value in (solution.primal_residual, solution.dual_residual, solution.gap))


def _program(P, q, A, b, cone=None):
    cone = cone or Nonnegative(8)
    structure = ConeStructure.from_matrices(P.numpy(), A.numpy(), ProductCone([cone]))
    rows, columns = structure.A_indices, structure.A_columns
    return ConeProgram(structure, P[structure.P_indices, structure.P_columns], q, A[rows, columns], b)

"""Backends that polish are believed where their residuals say so, and only there."""

import dataclasses

import torch

from conelayers import solve_cone_program
from conelayers.backends import Batched, Clarabel
from conelayers.cones import Nonnegative, ProductCone
from conelayers.program import ConeProgram, ConeStructure


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


def _program(P, q, A, b):
    structure = ConeStructure.from_matrices(P.numpy(), A.numpy(), ProductCone([Nonnegative(8)]))
    rows, columns = structure.A_indices, structure.A_columns
    return ConeProgram(structure, torch.ones(structure.P_nnz, dtype=torch.float64), q, A[rows, columns], b)

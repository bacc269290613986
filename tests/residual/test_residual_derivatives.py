"""The derivative by the reduced KKT system, against differences of polished solutions, diffcp and the embedding."""

import pytest
import torch
from oracles import (
    central_differences,
    diffcp_adjoint,
    random_program,
    random_tangent,
    reference_solution,
    relative_error,
)

from conelayers.cones import (
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    SecondOrder,
    Zero,
)
from conelayers.program import ConeProgram
from conelayers.residual.embedding import embedding_derivative, embedding_jacobian, embedding_residual
from conelayers.residual.kkt import KKTSystem

MIXES = {
    "linear": ([Zero(2), Nonnegative(6)], 8),
    "second-order": ([SecondOrder(4), Zero(1), SecondOrder(3), Nonnegative(2)], 10),
    "semidefinite": ([PositiveSemidefinite(3), PositiveSemidefinite(2), Zero(1)], 12),
    "exponential": ([Exponential(), Nonnegative(2), Exponential()], 9),
    "dual exponential": ([DualExponential(), DualExponential(), Nonnegative(1)], 9),
    "power": ([Power(0.3), DualPower(0.6), Nonnegative(2)], 10),
    "mixed": (
        [
            PositiveSemidefinite(3),
            Exponential(),
            Zero(2),
            SecondOrder(4),
            Nonnegative(3),
            PositiveSemidefinite(2),
            Exponential(),
        ],
        24,
    ),
    "everything": (
        [
            DualPower(0.4),
            PositiveSemidefinite(3),
            DualExponential(),
            SecondOrder(3),
            Exponential(),
            Zero(1),
            Power(0.7),
        ],
        24,
    ),
}
each_mix = pytest.mark.parametrize("mix", MIXES)
each_method = pytest.mark.parametrize("method", ["dense", "sparse", "iterative"])


def kkt_forward(program, solution, tangent, method="dense"):
    """(dx, dy, ds) by J(D) [dx; dv] = -[dP x + dq + dA'y; dA x - db]."""
    flat, shift = program.flatten(), tangent.flatten()
    x, y, s = (value.reshape(-1, value.shape[-1]) for value in (solution.x, solution.y, solution.s))
    D = program.structure.cone.dual_derivative(y - s)
    system = KKTSystem(program.structure, method)
    r1 = -(shift.P_times(x) + shift.q + shift.A_transpose_times(y))
    r2 = -(shift.A_times(x) - shift.b)
    dx, dv, residual = system.solve(system.factor(flat.P, flat.A, D), r1, r2)
    assert residual.max() < 1e-11
    dy = D.apply(dv)
    return tuple(value.reshape(*program.batch_shape, -1) for value in (dx, dy, dy - dv))


def kkt_adjoint(program, solution, gx, gy, gs):
    """Gradients of the stored P, q, A and b: J(D) [lam; u] = [gx - A'gs; gy], nu = D u + gs."""
    D = program.structure.cone.dual_derivative((solution.y - solution.s)[None])
    system = KKTSystem(program.structure)
    factor = system.factor(program.P[None], program.A[None], D)
    lam, u, _ = system.solve(factor, (gx - program.A_transpose_times(gs))[None], gy[None])
    nu = (D.apply(u) + gs)[0]
    lam = lam[0]
    s = program.structure
    outer = lam[s.P_indices] * solution.x[s.P_columns] + solution.x[s.P_indices] * lam[s.P_columns]
    dP = -0.5 * outer * torch.as_tensor((s.P_indices != s.P_columns) + 1.0)
    dA = -(solution.y[s.A_indices] * lam[s.A_columns] + nu[s.A_indices] * solution.x[s.A_columns])
    return dP, -lam, dA, nu


@each_mix
@each_method
def test_forward_mode_against_central_differences(mix, method):
    cones, n = MIXES[mix]
    program, solution = random_program(cones, n, (2,), seed=3)
    tangent = random_tangent(program)
    expected = central_differences(program, tangent, solution)
    for value, difference in zip(kkt_forward(program, solution, tangent, method), expected, strict=True):
        assert relative_error(value, difference) < 1e-7


@each_mix
def test_embedding_gives_the_same_derivative(mix):
    cones, n = MIXES[mix]
    program, solution = random_program(cones, n, (2,), seed=5)
    tangent = random_tangent(program)
    full = embedding_derivative(program, solution, tangent.P, tangent.q, tangent.A, tangent.b)
    for value, expected in zip(kkt_forward(program, solution, tangent), full, strict=True):
        assert relative_error(value, expected) < 1e-10


@each_mix
@pytest.mark.parametrize("quadratic", [True, False], ids=["quadratic", "linear"])
def test_embedding_jacobian_is_the_derivative_of_its_residual(mix, quadratic):
    cones, n = MIXES[mix]
    program, _ = random_program(cones, n, (), seed=6, quadratic=quadratic)
    generator = torch.Generator().manual_seed(0)
    size = n + program.structure.m + 1
    z, direction = (torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2))
    z[-1] = 0.8
    step = 1e-5
    ends = [embedding_residual(program, z + t * direction) for t in (step, -step)]
    torch.testing.assert_close(
        embedding_jacobian(program, z) @ direction, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-7
    )
    # Homogeneity, of which the singular ray is a consequence.
    torch.testing.assert_close(embedding_residual(program, 3 * z), 3 * embedding_residual(program, z))
    torch.testing.assert_close(embedding_jacobian(program, z) @ z, embedding_residual(program, z))


def test_embedding_vanishes_at_the_solution():
    cones, n = MIXES["everything"]
    program, solution = random_program(cones, n, (3,), seed=7)
    z = torch.cat([2 * solution.x, 2 * (solution.y - solution.s), torch.full((3, 1), 2.0, dtype=torch.float64)], -1)
    assert embedding_residual(program, z).abs().max() < 1e-12


# diffcp has no power cones, and its derivative of the dual exponential cone is wrong.
@pytest.mark.parametrize("mix", [name for name in MIXES if name not in ("power", "dual exponential", "everything")])
def test_reverse_mode_against_diffcp(mix):
    cones, n = MIXES[mix]
    program, solution = random_program(cones, n, (), seed=8)
    m = program.structure.m
    generator = torch.Generator().manual_seed(2)
    gx, gy, gs = (torch.randn(k, generator=generator, dtype=torch.float64) for k in (n, m, m))
    for value, expected in zip(
        kkt_adjoint(program, solution, gx, gy, gs), diffcp_adjoint(program, gx, gy, gs), strict=True
    ):
        assert relative_error(value, expected) < 1e-6


@each_mix
def test_reverse_mode_is_the_transpose_of_forward_mode(mix):
    cones, n = MIXES[mix]
    program, solution = random_program(cones, n, (), seed=9)
    tangent = random_tangent(program)
    m = program.structure.m
    generator = torch.Generator().manual_seed(2)
    g = [torch.randn(k, generator=generator, dtype=torch.float64) for k in (n, m, m)]
    forward = sum((a * b).sum() for a, b in zip(g, kkt_forward(program, solution, tangent), strict=True))
    gradients = kkt_adjoint(program, solution, *g)
    reverse = sum((a * getattr(tangent, name)).sum() for a, name in zip(gradients, ("P", "q", "A", "b"), strict=True))
    torch.testing.assert_close(forward, reverse, rtol=1e-10, atol=1e-10)


def test_reference_solution_finds_the_known_solution():
    cones, n = MIXES["everything"]
    program, solution = random_program(cones, n, (2,), seed=10)
    found = reference_solution(program)
    torch.testing.assert_close(found.x, solution.x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.y, solution.y, rtol=1e-9, atol=1e-9)
    shifted = ConeProgram(program.structure, program.P, program.q + 1e-3, program.A, program.b)
    assert reference_solution(shifted, solution).dual_residual.max() < 1e-12

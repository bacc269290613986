"""Solvers of the inner Hessian against their defining recursions and dense solves."""

import pytest
import torch

from conelayers.implicit.bilevel import ConjugateGradient, FixedPointAdjoint, Neumann


@pytest.fixture
def system():
    generator = torch.Generator().manual_seed(0)
    M = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return M @ M.T / 6 + torch.eye(6, dtype=torch.float64), torch.randn(6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("warm", [False, True])
def test_fixed_point_adjoint_is_its_recursion(system, steps, warm):
    H, g = system
    start = torch.ones(6, dtype=torch.float64) if warm else None
    u = torch.zeros_like(g) if start is None else start
    for _ in range(steps):
        u = u - 0.2 * (H @ u - g)
    torch.testing.assert_close(FixedPointAdjoint(steps, 0.2).solve(lambda v: H @ v, g, start), u)


@pytest.mark.parametrize("terms", [1, 2, 9])
def test_neumann_is_the_truncated_series_and_takes_one_product_less(system, terms):
    H, g = system
    calls = []

    def product(v):
        calls.append(1)
        return H @ v

    J = torch.eye(6, dtype=torch.float64) - 0.2 * H
    expected = 0.2 * sum(torch.linalg.matrix_power(J, q) @ g for q in range(terms))
    torch.testing.assert_close(Neumann(terms, 0.2).solve(product, g, None), expected)
    assert len(calls) == terms - 1


def test_conjugate_gradients_from_a_start(system):
    H, g = system
    exact = torch.linalg.solve(H, g)
    for start in (None, torch.ones(6, dtype=torch.float64), exact):
        torch.testing.assert_close(ConjugateGradient().solve(lambda v: H @ v, g, start), exact, rtol=1e-9, atol=1e-10)
    calls = []
    ConjugateGradient().solve(lambda v: (calls.append(1), H @ v)[1], g, exact)
    assert len(calls) == 1  # the residual of the start, and nothing else

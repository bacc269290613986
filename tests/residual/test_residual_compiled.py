"""The compiled kernels behind the linearization agree with plain torch, with what they are told and not by default."""

import pytest
import torch
from oracles import random_program

from conelayers.cones import Exponential, Nonnegative, PositiveSemidefinite, SecondOrder, Zero
from conelayers.residual.compiled import compiled_kernels
from conelayers.residual.linearization import _Assembled, _Compiled

pytest.importorskip("conelayers.native")
CONES = [Zero(1), Nonnegative(3), SecondOrder(4), PositiveSemidefinite(3), Exponential()]


@pytest.mark.parametrize("mu", [None, 0.3])
def test_solutions_and_projections(mu):
    program, solution = random_program(CONES, 14, (3,), seed=1)
    generator = torch.Generator().manual_seed(0)
    point = (program.structure, program.P, program.A, solution.y - solution.s)
    compiled, plain = (kind(*point) if mu is None else kind(*point).smooth(mu) for kind in (_Compiled, _Assembled))
    rhs = tuple(torch.randn(3, 2, size, generator=generator) for size in (program.structure.n, program.structure.m))
    for found, expected in zip(compiled.solve(rhs), plain.solve(rhs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(compiled.project(rhs[1]), plain.project(rhs[1]), rtol=1e-11, atol=1e-11)


def test_polish_takes_the_steps_it_is_given():
    program, exact = random_program(CONES, 14, (3,), seed=1)
    kernels = compiled_kernels(program.structure, torch.device("cpu"))
    assert kernels is not None
    start = (exact.x + 1e-5, exact.y, exact.s)
    data = (program.P, program.q, program.A, program.b)
    idle, fine = (kernels.polish(*data, *start, steps=steps, target=1e-13)[0] for steps in (0, 4))
    assert (idle - exact.x).abs().min() > 1e-6
    torch.testing.assert_close(fine, exact.x, rtol=0, atol=1e-10)


def test_views_are_read_as_they_are():
    """Rows of a larger or transposed tensor, and one shared row."""
    program, solution = random_program(CONES, 14, (3,), seed=1)
    kernels = compiled_kernels(program.structure, torch.device("cpu"))
    assert kernels is not None
    v = solution.y - solution.s
    u = torch.randn(3, 1, len(v[0]), generator=torch.Generator().manual_seed(2))
    expected = program.structure.cone.dual_derivative(v).apply(u[:, 0])
    views = v.T.contiguous().T, u.expand(3, 2, -1)[:, :1]
    assert not views[0].is_contiguous()
    torch.testing.assert_close(kernels.apply_D(*views)[:, 0], expected, rtol=1e-11, atol=1e-11)

"""Second derivatives with all data moving: every composition of modes, against each other and against differences."""

import pytest
import torch
from oracles import random_program, random_tangent

from conelayers.backends import Clarabel
from conelayers.cones import Exponential, Nonnegative, PositiveSemidefinite, Power, SecondOrder, Zero
from conelayers.implicit import Exact, Smoothed
from conelayers.program import ConeProgram
from conelayers.residual import ConicConditions, differentiable_solve, fused, linearization

MIXES = {
    "linear": [Zero(1), Nonnegative(5)],
    "curved": [SecondOrder(3), PositiveSemidefinite(2), Exponential(), Nonnegative(2)],
    "power": [Power(0.3), Zero(1), SecondOrder(2)],
}
REVERSE, FORWARD = torch.func.jacrev, torch.func.jacfwd


def curve(mix, mode, weights=(1.0, 1.0, 1.0)):
    """A weighted sum of x, y, s and their squares at steps along two random directions of P, q, A and b."""
    program, _ = random_program(MIXES[mix], 8, (), seed=4)
    first, second = random_tangent(program, seed=1), random_tangent(program, seed=2)
    conditions = ConicConditions(program.structure, Clarabel(), mode)
    generator = torch.Generator().manual_seed(0)
    m = program.structure.m
    parts = [w * torch.randn(size, dtype=torch.float64, generator=generator) for w, size in zip(weights, (8, m, m))]

    def value(steps):
        data = (
            getattr(program, name) + steps[0] * getattr(first, name) + steps[1] * getattr(second, name)
            for name in ("P", "q", "A", "b")
        )
        found = differentiable_solve(conditions, ConeProgram(program.structure, *data))
        return sum((w * (part + part**2 / 10)).sum() for w, part in zip(parts, (found.x, found.y, found.s)))

    return value


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.0, 0.0, 1.0)], ids=["all", "slacks"])
@pytest.mark.parametrize("mix", MIXES)
def test_all_compositions_agree_with_differences(mix, weights, compiled, monkeypatch):
    if not compiled:
        for module in (fused, linearization):
            monkeypatch.setattr(module, "compiled_kernels", lambda *arguments: None)
    value, origin = curve(mix, Exact(), weights), torch.zeros(2, dtype=torch.float64)
    step = 1e-4 * torch.eye(2, dtype=torch.float64)
    gradient = REVERSE(value)
    torch.testing.assert_close(FORWARD(value)(origin), gradient(origin), rtol=1e-9, atol=1e-9)
    expected = torch.stack([(gradient(origin + h) - gradient(origin - h)) / 2e-4 for h in step])
    for outer in (REVERSE, FORWARD):
        for inner in (REVERSE, FORWARD):
            torch.testing.assert_close(outer(inner(value))(origin), expected, rtol=1e-5, atol=1e-5)


def test_forward_and_reverse_mode_agree_for_smoothed_derivatives():
    value, origin = curve("curved", Smoothed(1e-2)), torch.zeros(2, dtype=torch.float64)
    gradient = REVERSE(value)(origin)
    torch.testing.assert_close(FORWARD(value)(origin), gradient, rtol=1e-9, atol=1e-9)
    assert (gradient - REVERSE(curve("curved", Exact()))(origin)).abs().max() > 1e-3

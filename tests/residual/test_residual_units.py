"""Units of rows and objective: solutions and derivatives do not depend on them."""

import pytest
import torch

from conelayers import ConeLayer, solve_cone_program
from conelayers.cones import Exponential, Nonnegative, PositiveSemidefinite, Power, ProductCone, SecondOrder
from conelayers.program import ConeProgram, ConeStructure
from conelayers.residual.units import Units

N = 4
CONES = {
    "second-order": [SecondOrder(4)],
    "semidefinite": [PositiveSemidefinite(2), Nonnegative(1)],
    "exponential": [Exponential(), Nonnegative(1)],
    "power": [Power(0.3), Nonnegative(1)],
}


def data():
    """min 1/2 |x|^2 + q'x over -A x + b in the cone, with active constraints for every cone above."""
    q = -torch.tensor([1.0, -2.0, 0.5, 2.0], dtype=torch.float64)
    A = -torch.eye(N, dtype=torch.float64)
    A[0, 1], A[2, 0] = 0.3, -0.2
    b = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    return torch.eye(N, dtype=torch.float64), q, A, b


def gradients(cones, cost=1.0, rows=1.0):
    """The solution, and the gradients of a loss in x, y and s with respect to the data, all in the first units."""
    leaves = [value.requires_grad_() for value in data()]
    P, q, A, b = leaves
    solution = solve_cone_program(cost * P, cost * q, rows * A, rows * b, cones)
    weights = torch.arange(1.0, N + 1, dtype=torch.float64)
    y, s = solution.y * rows / cost, solution.s / rows
    loss = (solution.x * weights).sum() + (y * weights.flip(0)).sum() + (s * weights.roll(1)).sum()
    return solution, torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("name", CONES)
@pytest.mark.parametrize("cost,rows", [(1, 1e6), (1, 1e-6), (1e-8, 1), (1e8, 1), (1e-4, 1e4), (1e5, 1e-3)])
def test_derivatives_do_not_depend_on_units(name, cost, rows):
    solution, expected = gradients(CONES[name])
    scaled, found = gradients(CONES[name], cost, rows)
    torch.testing.assert_close(scaled.x, solution.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(scaled.y, solution.y * cost / rows, rtol=1e-9, atol=1e-12 * cost / rows)
    torch.testing.assert_close(scaled.s, solution.s * rows, rtol=1e-9, atol=1e-12 * rows)
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=0, atol=1e-8 * float(reference.abs().max()))


@pytest.mark.parametrize("name", CONES)
def test_transforms_and_second_derivatives_in_far_units(name):
    layer = ConeLayer(CONES[name], torch.ones(N, N), torch.eye(N))
    P, q, A, b = data()

    def loss(q, rows):
        return layer(P, q, rows * A, rows * b).x.pow(3).sum()

    one, far = torch.tensor(1.0, dtype=torch.float64), torch.tensor(1e6, dtype=torch.float64)
    for transform in (torch.func.grad, torch.func.jacfwd, torch.func.hessian):
        expected, found = transform(loss)(q, one), transform(loss)(q, far)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7 * float(expected.abs().max()))
    batch = torch.stack([q, 1.5 * q])
    mapped = torch.func.vmap(torch.func.grad(loss), (0, None))(batch, far)
    torch.testing.assert_close(mapped[0], torch.func.grad(loss)(q, one), rtol=0, atol=1e-7)


def test_each_item_has_its_own_units():
    scales = torch.tensor([1.0, 1e-6, 1e6], dtype=torch.float64)[:, None]
    P, q, A, b = data()
    leaf = q.expand(3, N).clone().requires_grad_()
    x = solve_cone_program(P, leaf, A * scales[..., None], b * scales, CONES["second-order"]).x
    (gradient,) = torch.autograd.grad(x.pow(2).sum(), leaf)
    torch.testing.assert_close(gradient, gradient[:1].expand(3, N), rtol=0, atol=1e-10)


def test_ordinary_and_polyhedral_programmes_are_left_alone():
    structure = ConeStructure.from_matrices(None, torch.ones(4, N).numpy(), ProductCone([SecondOrder(4)]))
    q, b, entries = (torch.ones(size, dtype=torch.float64) for size in (N, 4, 16))
    none = torch.zeros(0, dtype=torch.float64)
    assert Units.of(ConeProgram(structure, none, q, entries, b)) is None
    assert Units.of(ConeProgram(structure, none, q, 1e4 * entries, b)) is not None
    assert Units.of(ConeProgram(structure, none, 1e4 * q, entries, b)) is not None
    assert Units.of(ConeProgram(structure, none, 0 * q, 0 * entries, b)) is None
    flat = ConeStructure.from_matrices(None, torch.ones(4, N).numpy(), ProductCone([Nonnegative(4)]))
    assert Units.of(ConeProgram(flat, none, q, 1e9 * entries, b)) is None

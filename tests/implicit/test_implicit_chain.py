"""Chains of equations: the chain rule over the steps' own derivatives, as one node."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from conelayers.implicit import Affine, Chain, Equation, ResidualEquation, Step, implicit

torch.manual_seed(0)
K, L = 0.3 * torch.randn(3, 2, dtype=torch.float64), 0.3 * torch.randn(3, 3, dtype=torch.float64)
CALLS = []
WANTED = []


class _Map:
    """theta -> M theta."""

    entering = ((0,),)

    def __init__(self, matrix, name="forward"):
        self.matrix, self.name = matrix, name

    @property
    def linear(self):
        return self

    @property
    def transpose(self):
        return _Map(self.matrix.mT, "transpose")

    def select(self, rows, columns):
        return self

    def apply(self, theta):
        CALLS.append(self.name)
        return (theta @ self.matrix.mT,)


class _Recorded(Equation):
    """An equation that notes which cotangents it is asked for."""

    def __init__(self, equation):
        self.equation, self.event_dims = equation, equation.event_dims
        self.solve, self.pushforward = equation.solve, equation.pushforward

    event_dims = solve = pushforward = None

    def pullback(self, inputs, outputs, cotangents, needed):
        WANTED.append(needed)
        return self.equation.pullback(inputs, outputs, cotangents, needed)


def tanh_root():
    """z with z = tanh(L z + u) + w, by fixed-point iteration."""

    def solver(u, w):
        z = torch.zeros_like(u + w)
        for _ in range(100):
            z = torch.tanh(z @ L.mT + u) + w
        return z

    return ResidualEquation(lambda z, u, w: z - torch.tanh(L @ z + u) - w, solver, inputs=2)


def chain():
    """u = K a, z(u, c), and again y(z, u): a value that two steps use, and a constant input c."""
    return Chain(
        (1, 1),
        (Step(Affine(_Map(K), 1), (0,), 1), Step(_Recorded(tanh_root()), (2, 1), 1), Step(tanh_root(), (3, 2), 1)),
    )


def composed(a, c):
    (u,) = implicit(Affine(_Map(K), 1), a)
    (z,) = implicit(tanh_root(), u, c)
    return u, z, implicit(tanh_root(), z, u)[0]


def inputs(batch=4):
    return (
        torch.randn(batch, 2, dtype=torch.float64, requires_grad=True),
        torch.randn(3, dtype=torch.float64, requires_grad=True),
    )


def test_values_are_those_of_the_steps():
    a, c = inputs()
    for one, other in zip(implicit(chain(), a, c), composed(a, c), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("output", [0, 1, 2])
def test_gradients_are_those_of_the_composition(output):
    a, c = inputs()
    weights = torch.randn(4, 3, dtype=torch.float64)

    def gradients(outputs):
        return torch.autograd.grad((outputs[output] * weights).sum(), (a, c), materialize_grads=True)

    for one, other in zip(gradients(implicit(chain(), a, c)), gradients(composed(a, c)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_first_and_second_derivatives():
    a, c = inputs(2)
    assert gradcheck(lambda a, c: implicit(chain(), a, c), (a, c))
    assert gradgradcheck(lambda a, c: implicit(chain(), a, c)[2], (a, c))


def test_transforms():
    a, c = (value.detach() for value in inputs())
    last = [lambda a, c: implicit(chain(), a, c)[2], lambda a, c: composed(a, c)[2]]
    mapped = [torch.func.vmap(torch.func.jacrev(f, argnums=1), in_dims=(0, None))(a, c) for f in last]
    torch.testing.assert_close(*mapped, rtol=1e-12, atol=1e-12)
    forward = [torch.func.jacfwd(f, argnums=(0, 1))(a[0], c) for f in last]
    torch.testing.assert_close(*forward, rtol=1e-12, atol=1e-12)
    moved = [torch.func.jacfwd(torch.func.jacrev(f))(a[0], c) for f in last]
    torch.testing.assert_close(*moved, rtol=1e-10, atol=1e-10)


def test_steps_without_a_part_in_the_loss_or_the_gradient_are_not_differentiated():
    a, c = inputs()
    outputs = implicit(chain(), a.detach(), c)
    CALLS.clear()
    WANTED.clear()
    torch.autograd.grad(outputs[2].sum(), c)
    assert CALLS == [] and WANTED == [(False, True)]
    outputs = implicit(chain(), a, c)
    CALLS.clear()
    torch.autograd.grad(outputs[0].sum(), a)
    assert CALLS == ["transpose"]

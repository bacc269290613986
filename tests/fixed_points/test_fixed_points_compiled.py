"""Fixed points and sparse models in functions that `torch.compile` compiles: one graph break each, the same numbers."""

import pytest
import torch
from equilibria import ContractingCell

from conelayers import DEQ, ImplicitModel, MonotoneDEQ, fixed_point
from conelayers.lasso import L1, ProximalModel, Quadratic

X, Y = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, 20)


def closure(x):
    return fixed_point(lambda z: torch.cos(z + 2 * x) / 2, torch.zeros(4, 3))


def sparse_model(x):
    return ProximalModel(Quadratic(), L1())(X, Y, x.square().mean() / 20)[0]


@pytest.mark.parametrize(
    "make",
    [lambda: DEQ(ContractingCell()), lambda: ImplicitModel(3, 5, 2), lambda: MonotoneDEQ(3, 5)]
    + [lambda: closure, lambda: sparse_model],
)
def test_values_and_gradients_are_those_of_eager_code(make):
    function = make()

    def loss(x):
        return function(2 * x).square().sum()

    x = torch.randn(4, 3, requires_grad=True)
    expected = loss(x)
    found = torch.compile(loss, backend="aot_eager")(x)
    torch.testing.assert_close(found, expected)
    (slope,), (reference,) = (torch.autograd.grad(value, x) for value in (found, expected))
    assert reference.abs().max() > 0
    torch.testing.assert_close(slope, reference)

"""One function class: every solution in the package hangs in autograd's graph by the same kind of node."""

import cvxpy as cp
import pytest
import torch
from torch import nn

from conelayers import DEQ, ConeLayer, CvxpyLayer, ImplicitModel, MonotoneDEQ, fixed_point
from conelayers.cones import Nonnegative
from conelayers.implicit.function import _ImplicitFunction
from conelayers.lasso import L1, ProximalModel, Quadratic


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.W = nn.Linear(4, 4)

    def forward(self, z, x):
        return torch.tanh(0.3 * self.W(z) + x)


def conic():
    x, a = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.norm(x) <= 1, cp.sum(x) == 1])
    (value,) = CvxpyLayer(problem, [a], [x])(torch.tensor([0.3, 2.0], requires_grad=True))
    return value


def cone_data():
    A = -torch.eye(2)
    layer = ConeLayer([Nonnegative(2)], A, torch.eye(2))
    q = torch.tensor([-1.0, 1.0], requires_grad=True)
    return layer(torch.eye(2), q, A, torch.zeros(2)).x


def lasso():
    X = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    penalty = torch.tensor(0.1, requires_grad=True)
    return ProximalModel(Quadratic(), L1())(X, X.sum(1), penalty)[0]


def fixed():
    x = torch.randn(3, 4, requires_grad=True)
    return fixed_point(lambda z: torch.cos(z) / 2 + x, torch.zeros(3, 4))


def deq():
    return DEQ(Cell())(torch.randn(3, 4))


def monotone():
    return MonotoneDEQ(4, 5)(torch.randn(3, 4))


def implicit_model():
    return ImplicitModel(4, 5, 2)(torch.randn(3, 4))


def nodes(value):
    """All nodes of the graph behind a tensor."""
    found, stack = set(), [value.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.add(node)
            stack += [parent for parent, _ in node.next_functions]
    return found


@pytest.mark.parametrize("make", [conic, cone_data, lasso, fixed, deq, monotone, implicit_model])
def test_solutions_are_outputs_of_the_one_function(make):
    custom = {type(n) for n in nodes(make()) if issubclass(type(n), torch.autograd.function.BackwardCFunction)}
    assert custom == {_ImplicitFunction._backward_cls}


def test_the_package_defines_one_function():
    def below(cls):
        return [c for sub in cls.__subclasses__() for c in (sub, *below(sub))]

    ours = {c for c in below(torch.autograd.Function) if c.__module__.startswith("conelayers")}
    assert ours == {_ImplicitFunction}

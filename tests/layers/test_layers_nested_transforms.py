"""Transforms of `torch.func` inside each other: every parameter mapped at its own levels, pullbacks of pullbacks."""

import itertools

import cvxpy as cp
import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from conelayers import CvxpyLayer

N = 3


@pytest.fixture(scope="module")
def curved():
    x, a, c, M = cp.Variable(N), cp.Parameter(N), cp.Parameter(N), cp.Parameter((2, N))
    cost = cp.sum_squares(x - a) + c @ x
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), [M @ x <= 1, cp.norm(x) <= 1]), [a, c, M], [x])

    def loss(*params):
        return (layer(*params)[0] ** 2).sum()

    return layer, loss


def transforms(layer, loss):
    def pulled_twice(*p):
        out, pull = vjp(grad(loss), *p)
        _, again = vjp(pull, torch.ones_like(out))
        return again(tuple(torch.ones_like(q) for q in p))[0]

    return {
        "value": lambda *p: layer(*p)[0],
        "grad": grad(loss, 2),
        "jacrev": jacrev(lambda *p: layer(*p)[0], 1),
        "jacfwd": jacfwd(lambda *p: layer(*p)[0], 2),
        "hessian": hessian(loss, 0),
        "jvp": lambda *p: jvp(lambda *q: layer(*q)[0], p, tuple(torch.ones_like(q) for q in p))[1],
        "pullback of a pullback": pulled_twice,
    }


@pytest.mark.parametrize("mapped", [((0,), (1,), ()), ((), (0, 1), (0,)), ((1,), (0,), (0, 1))])
@pytest.mark.parametrize("name", ["value", "grad", "jacrev", "jacfwd", "hessian", "jvp", "pullback of a pullback"])
def test_axes_mapped_at_different_levels(curved, name, mapped):
    """`mapped` names the levels, outermost first, at which each parameter has an axis."""
    sizes, shapes = (2, 3), ((N,), (N,), (2, N))
    generator = torch.Generator().manual_seed(0)
    params = [
        0.6 * torch.randn(*(sizes[level] for level in levels), *shape, generator=generator, dtype=torch.float64)
        for levels, shape in zip(mapped, shapes, strict=True)
    ]
    single = transforms(*curved)[name]
    inner, outer = (tuple(0 if level in levels else None for levels in mapped) for level in (1, 0))
    found = vmap(vmap(single, inner), outer)(*params)
    for index in itertools.product(*map(range, sizes)):
        chosen = [p[tuple(index[level] for level in levels)] for p, levels in zip(params, mapped, strict=True)]
        torch.testing.assert_close(found[index], single(*chosen), atol=1e-7, rtol=1e-6)


def test_a_pullback_of_the_gradient_is_its_transposed_derivative(curved):
    _, loss = curved
    generator = torch.Generator().manual_seed(1)
    p = [0.6 * torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((N,), (N,), (2, N))]
    g, pull = vjp(grad(loss), *p)
    v = torch.randn(N, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(pull(v)[0], hessian(loss)(*p) @ v, atol=1e-7, rtol=1e-6)
    pulled, again = vjp(lambda u: pull(u)[0], v)
    torch.testing.assert_close(again(g)[0], hessian(loss)(*p) @ g, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(pulled, pull(v)[0])

"""Functions whose sizes depend on values: batches, derivatives and transforms end in calls for single items."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from conelayers.implicit import Itemwise, implicit
from conelayers.implicit.itemwise import against, along

CALLS = []


def scaled_where_positive(a, g):
    """(a^2 g on the positive entries of a and zero elsewhere, the sum of a g there), by indices that depend on a."""
    CALLS.append(tuple(a.shape))
    where = torch.nonzero(a > 0).flatten()
    inside = a[where]
    return torch.zeros_like(a).index_copy(0, where, inside**2 * g[where]), (inside * g[where]).sum()


def mapped(a, g):
    """The same by masks."""
    masked = torch.where(a > 0, a, 0.0)
    return masked**2 * g, (masked * g).sum(-1)


EQUATION = Itemwise(scaled_where_positive, 1, (1, 1), (1, 0))


def function(a, g):
    return implicit(EQUATION, a, g)


def sample(*shapes):
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(*shape, 4, generator=generator, dtype=torch.float64) for shape in shapes)


SHAPES = [((), ()), ((3,), (3,)), ((), (3,)), ((3,), ()), ((2, 1), (1, 3)), ((2, 1, 3), (5, 1)), ((1,), (4, 1))]


@pytest.mark.parametrize("shapes", SHAPES)
def test_batches(shapes):
    a, g = sample(*shapes)
    torch.testing.assert_close(function(a, g), mapped(*torch.broadcast_tensors(a, g)), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shapes", SHAPES[:5])
def test_derivatives_of_two_orders(shapes):
    a, g = (x.requires_grad_() for x in sample(*shapes))
    assert gradcheck(function, (a, g), check_forward_ad=True)
    assert gradgradcheck(function, (a, g))


def test_what_shares_its_first_inputs_is_computed_at_once():
    a, g = sample((2,), (5, 2))
    CALLS.clear()
    function(a, g)
    assert len(CALLS) == 2
    CALLS.clear()
    jacobian = torch.func.jacrev(lambda g: function(a, g)[0])(g[0])
    assert len(CALLS) <= 2 * 2 + 2  # the value and the adjoint, not one adjoint for each of the eight entries
    assert jacobian.shape == (2, 4, 2, 4)


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)])
def test_mapped_gradients_and_hessians(dims):
    a, g = (x if dim == 0 else x[0] for x, dim in zip(sample((3,), (3,)), dims, strict=True))

    def loss(value):
        return lambda a, g: sum((z**2).sum() for z in value(a, g))

    for transform in (
        torch.func.grad,
        torch.func.jacrev,
        lambda f, argnums: torch.func.jacrev(torch.func.jacrev(f, argnums), argnums),
    ):
        found, expected = (
            torch.func.vmap(transform(loss(value), argnums=(0, 1)), dims)(a, g) for value in (function, mapped)
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_products_with_the_jacobian_and_its_transpose():
    a, g, u, v = sample((), (), (), ())
    slopes = (u, v.sum())
    for one, other in zip(against(mapped, (a, g), slopes), torch.func.vjp(mapped, a, g)[1](slopes), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(
        along(mapped, (a, g), (u, v)), torch.func.jvp(mapped, (a, g), (u, v))[1], rtol=1e-14, atol=1e-14
    )


def test_one_tensor_as_two_arguments():
    (a,) = sample(())
    a.requires_grad_()
    first, second = against(lambda x, y: (x**2 * y,), (a, a), (torch.ones_like(a),))
    torch.testing.assert_close(first, 2 * a**2)
    torch.testing.assert_close(second, a**2)
    (slope,) = torch.autograd.grad(first.sum(), a)
    torch.testing.assert_close(slope, 4 * a)

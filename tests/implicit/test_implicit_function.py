"""The autograd function against closed forms, through every transform that users compose."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from conelayers.implicit import Affine, Equation, implicit


class CubeRoot(Equation):
    """z with z^3 + z = a b, elementwise, and the number of Newton steps as an output without derivative."""

    nondifferentiable = frozenset({1})

    @property
    def event_dims(self):
        return (1, 0)

    def solve(self, *inputs):
        a, b = inputs
        c = a * b[..., None]
        z = torch.zeros_like(c)
        for _ in range(60):
            z = z - (z**3 + z - c) / (3 * z**2 + 1)
        return z, torch.full(z.shape[:-1], 60)

    def pullback(self, inputs, outputs, cotangents, needed):
        (a, b), z = inputs, outputs[0]
        (scaled,) = implicit(Divide(), cotangents[0], 3 * z**2 + 1)
        return scaled * b[..., None], (scaled * a).sum(-1)

    def pushforward(self, inputs, outputs, tangents):
        (a, b), z = inputs, outputs[0]
        da, db = (torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True))
        return implicit(Divide(), da * b[..., None] + a * db[..., None], 3 * z**2 + 1)[0], None


class Divide(Equation):
    """z with d z = c: the linearised equation, an equation itself."""

    @property
    def event_dims(self):
        return (1, 1)

    def solve(self, *inputs):
        return (inputs[0] / inputs[1],)

    def pullback(self, inputs, outputs, cotangents, needed):
        (scaled,) = implicit(self, cotangents[0], inputs[1])
        return scaled, -scaled * outputs[0]

    def pushforward(self, inputs, outputs, tangents):
        dc, dd = (torch.zeros_like(x) if t is None else t for x, t in zip(inputs, tangents, strict=True))
        return implicit(self, dc - dd * outputs[0], inputs[1])


def root(a, b):
    return implicit(CubeRoot(), a, b)[0]


def explicit(a, b):
    """Cardano's formula, differentiated by torch."""
    c = (a * b[..., None]) / 2
    d = torch.sqrt(c**2 + 1 / 27)
    return torch.sign(c + d) * (c + d).abs() ** (1 / 3) + torch.sign(c - d) * (c - d).abs() ** (1 / 3)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(4, 3, generator=generator) + 3
    return a.requires_grad_(), (torch.rand((), generator=generator) + 1).requires_grad_()


def test_gradients_of_first_and_second_order(data):
    assert gradcheck(root, data, check_forward_ad=True)
    assert gradgradcheck(root, data, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_gradient_of_a_broadcast_input_is_the_sum(data):
    a, b = data
    (ours,) = torch.autograd.grad(root(a, b).sum(), b)
    (theirs,) = torch.autograd.grad(explicit(a, b).sum(), b)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)


def test_third_derivative(data):
    a, b = data
    for function in (root, explicit):
        d = function(a, b).sum()
        for _ in range(2):
            (d,) = torch.autograd.grad(d, b, create_graph=True)
        (d,) = torch.autograd.grad(d, b)
        if function is root:
            ours = d
    torch.testing.assert_close(ours, d, rtol=1e-9, atol=0)


@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd, torch.func.hessian])
@pytest.mark.parametrize("argnums", [0, 1])
def test_jacobian_transforms(data, transform, argnums):
    a, b = (x.detach() for x in data)
    ours = transform(root, argnums=argnums)(a, b)
    theirs = transform(explicit, argnums=argnums)(a, b)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("in_dims", "a_shape", "b_shape"),
    [
        ((0, None), (5, 2, 3), (2,)),
        ((None, 0), (2, 3), (5, 2)),
        ((None, 0), (2, 3), (5,)),
        ((0, None), (5, 3), (2,)),
        ((1, 0), (2, 5, 3), (5, 1)),
        ((-1, 0), (2, 3, 5), (5,)),
    ],
)
def test_vmap_aligns_the_mapped_axis_before_batch_axes(in_dims, a_shape, b_shape):
    a, b = torch.rand(a_shape) + 1, torch.rand(b_shape) + 1
    ours = torch.func.vmap(root, in_dims)(a, b)
    theirs = torch.func.vmap(explicit, in_dims)(a, b)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
    gradient = torch.func.vmap(torch.func.grad(lambda a, b: root(a, b).sum(), argnums=1), in_dims)
    expected = torch.func.vmap(torch.func.grad(lambda a, b: explicit(a, b).sum(), argnums=1), in_dims)
    torch.testing.assert_close(gradient(a, b), expected(a, b), rtol=1e-9, atol=0)


def test_nested_vmap(data):
    a, b = torch.rand(2, 3, 4) + 1, torch.rand(5) + 1
    function = torch.func.vmap(torch.func.vmap(root, (0, None)), (None, 0))
    expected = torch.func.vmap(torch.func.vmap(explicit, (0, None)), (None, 0))
    torch.testing.assert_close(function(a, b), expected(a, b), rtol=1e-10, atol=0)


def test_output_without_derivative(data):
    z, steps = implicit(CubeRoot(), *data)
    assert z.requires_grad and not steps.requires_grad


class Dense:
    """z_k = sum over b of M_kb theta_b, plus c_k, of dense blocks; None where a vector does not enter."""

    def __init__(self, blocks, offsets=None):
        self.blocks, self.offsets = blocks, offsets or [torch.zeros(())] * len(blocks)
        self.entering = [[b for b, block in enumerate(row) if block is not None] for row in blocks]

    @property
    def linear(self):
        return Dense(self.blocks)

    @property
    def transpose(self):
        columns = zip(*self.blocks, strict=True)
        return Dense([[None if block is None else block.mT for block in column] for column in columns])

    def select(self, rows, columns):
        chosen = [[m for m, use in zip(row, columns, strict=True) if use] for row in self.blocks]
        pairs = [pair for pair, use in zip(zip(chosen, self.offsets, strict=True), rows, strict=True) if use]
        return Dense([row for row, _ in pairs], [c for _, c in pairs])

    def apply(self, *thetas):
        return tuple(
            sum(thetas[b] @ row[b].mT for b in entering) + c
            for row, entering, c in zip(self.blocks, self.entering, self.offsets, strict=True)
        )


def test_affine_map_of_several_vectors():
    torch.manual_seed(1)
    blocks = [torch.randn(4, 3), torch.randn(4, 2)]
    equation = Affine(Dense([blocks], [torch.randn(4)]), 2)

    def apply(*thetas):
        return implicit(equation, *thetas)[0]

    # The second vector is shared by the batch.
    thetas = torch.randn(2, 3, requires_grad=True), torch.randn(2, requires_grad=True)
    assert gradcheck(apply, thetas, check_forward_ad=True)
    assert gradgradcheck(lambda *t: apply(*t) ** 2, thetas, check_fwd_over_rev=True)
    single = thetas[0][0].detach(), thetas[1].detach()
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        jacobians = transform(apply, argnums=(0, 1))(*single)
        for jacobian, part in zip(jacobians, blocks, strict=True):
            torch.testing.assert_close(jacobian, part)
    mapped = torch.func.vmap(apply, (0, None))(*thetas)
    torch.testing.assert_close(mapped, apply(*thetas))

"""Functions that have changed, or are out of reach, when the backward pass runs: right gradients, or an error."""

import contextlib

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from conelayers import DEQ, Anderson, ImplicitAdjoint, Piggyback, Unrolled, fixed_point
from conelayers.bilevel import adapt
from conelayers.errors import UnsupportedError

TIGHT = Anderson(atol=1e-13, rtol=1e-13)


class Cell(nn.Module):
    def __init__(self, n=4):
        super().__init__()
        self.W, self.U = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, z, x):
        return torch.tanh(0.5 * self.W(z) + self.U(x))


class Hidden(torch.autograd.Function):
    """tanh(z W' + x), its derivative by hand, so that torch functions never see W."""

    @staticmethod
    def forward(ctx, z, W, x):
        y = torch.tanh(z @ W.T + x)
        ctx.save_for_backward(z, W, y)
        return y

    @staticmethod
    def backward(ctx, g):
        z, W, y = ctx.saved_tensors
        s = g * (1 - y.square())
        return s @ W, s.mT @ z, s


def models():
    net, x = nn.Sequential(nn.Linear(4, 4), DEQ(Cell(), solver=TIGHT)), torch.randn(3, 4)
    net.forward = lambda x: net[1](net[0](x))
    reference = nn.Module()
    reference.net = net
    return net, x


def scalar(z):
    return (z.square() + z).sum()


def expected(net, parameters, x):
    """Gradients through 200 recorded steps."""
    net[1].adjoint, kept = Unrolled(200), net[1].adjoint
    try:
        return torch.autograd.grad(scalar(functional_call(net, parameters, (x,))), list(parameters.values()))
    finally:
        net[1].adjoint = kept


def close(found, reference, tolerance=1e-9):
    for a, b in zip(found, reference, strict=True):
        assert b.abs().max() > 1e-3
        assert (a - b).abs().max() < tolerance * (1 + b.abs().max())


def test_parameters_of_functional_call():
    net, x = models()
    parameters = {name: (1.1 * p).detach().requires_grad_() for name, p in net.named_parameters()}
    reference = expected(net, parameters, x)
    close(torch.autograd.grad(scalar(functional_call(net, parameters, (x,))), list(parameters.values())), reference)
    found = torch.func.grad(lambda p: scalar(functional_call(net, p, (x,))))(
        {name: p.detach() for name, p in parameters.items()}
    )
    close(found.values(), reference)
    pulled = torch.func.vjp(lambda p: functional_call(net, p, (x,)), parameters)
    close(pulled[1](2 * pulled[0].detach() + 1)[0].values(), reference)


def test_each_item_s_gradient_by_vmap_of_functional_call():
    net, x = models()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    each = torch.func.vmap(torch.func.grad(lambda p, x: scalar(functional_call(net, p, (x,)))), (None, 0))
    found = each({name: 1.1 * p for name, p in parameters.items()}, x[:, None])
    moved = {name: (1.1 * p).requires_grad_() for name, p in parameters.items()}
    for i in range(len(x)):
        close([g[i] for g in found.values()], expected(net, moved, x[i : i + 1]))


def test_second_derivatives_of_functional_call():
    net, x = models()
    parameters = {name: (1.1 * p).detach().requires_grad_() for name, p in net.named_parameters()}

    def curve(adjoint):
        net[1].adjoint = adjoint
        slopes = torch.autograd.grad(
            scalar(functional_call(net, parameters, (x,))), list(parameters.values()), create_graph=True
        )
        return torch.autograd.grad(sum(s.square().sum() for s in slopes), list(parameters.values()))

    close(curve(ImplicitAdjoint()), curve(Unrolled(100)), 1e-7)


def test_adapted_networks_that_hold_an_equilibrium():
    net, x = models()

    def outer(adjoint):
        net[1].adjoint = adjoint
        moved = adapt(lambda p: scalar(functional_call(net, p, (x,))), dict(net.named_parameters()), 2, 0.05)
        return torch.autograd.grad(scalar(functional_call(net, moved, (x + 1,))), list(net.parameters()))

    close(outer(ImplicitAdjoint()), outer(Unrolled(80)), 1e-7)


def test_late_bound_closures():
    weights = [0.3 * torch.randn(4, 4) for _ in range(3)]
    x = torch.randn(2, 4, requires_grad=True)

    def loss(x, adjoint):
        total = 0.0
        for W in weights:
            total = total + scalar(
                fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros(2, 4), solver=TIGHT, adjoint=adjoint)  # noqa: B023
            )
        return total

    reference = torch.autograd.grad(loss(x, Unrolled(100)), x)
    close(torch.autograd.grad(loss(x, ImplicitAdjoint()), x), reference)
    close([torch.func.grad(lambda x: loss(x, ImplicitAdjoint()))(x.detach())], reference)
    with pytest.raises(UnsupportedError, match="has changed"):
        torch.autograd.grad(loss(x, Piggyback()), x)


def test_a_global_that_has_changed_is_refused_where_f_is_called_again():
    scale = {"value": 0.5}

    def loss(x):
        z = fixed_point(lambda z: torch.tanh(scale["value"] * z + x), torch.zeros(2, 4), solver=TIGHT)
        scale["value"] = 0.1
        return z.sum()

    with pytest.raises(UnsupportedError, match="has changed"):
        torch.func.grad(loss)(torch.ones(2, 4))


class Halved(nn.Module):
    def forward(self, W):
        return W / 2


@pytest.mark.parametrize("outer", [contextlib.nullcontext, parametrize.cached])
def test_parametrized_weights(outer):
    net, x = models()
    parametrize.register_parametrization(net[1].cell.W, "weight", Halved())
    parameters = list(net.parameters())
    with outer():
        found = scalar(net(x))
    found = torch.autograd.grad(found, parameters)
    net[1].adjoint = Unrolled(200)
    close(found, torch.autograd.grad(scalar(net(x)), parameters))


def test_a_weight_that_is_computed_once():
    W, x = torch.randn(4, 4, requires_grad=True), torch.randn(2, 4)
    cache = []

    def f(z):
        if not cache:
            cache.append(0.5 * W / torch.linalg.matrix_norm(W, ord=2))
        return torch.tanh(z @ cache[0].T + x)

    found = torch.autograd.grad(scalar(fixed_point(f, torch.zeros(2, 4), solver=TIGHT)), W)
    cache.clear()
    close(found, torch.autograd.grad(scalar(fixed_point(f, torch.zeros(2, 4), adjoint=Unrolled(100))), W))


def test_data_that_are_changed_in_place():
    """What the derivative needs raises as in autograd; what it does not need may change."""
    W, x = (0.2 * torch.randn(4, 4)).requires_grad_(), torch.randn(2, 4)
    scale = torch.full((4,), 0.5)

    def f(z):
        return torch.tanh(scale * (z @ W.T) + x)

    reference = torch.autograd.grad(fixed_point(f, torch.zeros(2, 4), solver=TIGHT).sum(), W)
    z = fixed_point(f, torch.zeros(2, 4), solver=TIGHT).sum()
    x.zero_()
    close(torch.autograd.grad(z, W), reference)
    z = fixed_point(f, torch.zeros(2, 4), solver=TIGHT).sum()
    scale.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(z, W)


def test_the_result_may_be_changed_in_place_only_where_autograd_knows():
    W = (0.2 * torch.randn(4, 4)).requires_grad_()
    z = fixed_point(lambda z: torch.tanh(z @ W.T + 1), torch.zeros(2, 4), solver=TIGHT)
    with torch.no_grad():
        z.zero_()
    with pytest.raises(RuntimeError, match="modified.* inplace"):
        torch.autograd.grad(z.sum(), W)


def test_scripted_cells():
    cell, x = Cell(), torch.randn(3, 4)
    scripted = torch.jit.script(cell)
    found, reference = (
        torch.autograd.grad(scalar(DEQ(c, solver=TIGHT, adjoint=mode)(x)), list(cell.parameters()))
        for c, mode in ((scripted, ImplicitAdjoint()), (cell, Unrolled(200)))
    )
    close(found, reference)


def test_weights_that_only_a_custom_function_sees():
    W, x = (0.2 * torch.randn(4, 4)).requires_grad_(), torch.randn(2, 4, requires_grad=True)
    z = fixed_point(lambda z: Hidden.apply(z, W, x), torch.zeros(2, 4), solver=TIGHT)
    plain = fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros(2, 4), solver=TIGHT)
    close(torch.autograd.grad(scalar(z), (W, x)), torch.autograd.grad(scalar(plain), (W, x)))
    z = fixed_point(lambda z: Hidden.apply(z, W, x), torch.zeros(2, 4), solver=TIGHT)
    with pytest.raises(UnsupportedError, match="params"):
        torch.autograd.grad(scalar(z), W, create_graph=True)
    with pytest.raises((UnsupportedError, RuntimeError)):
        torch.func.grad(
            lambda W: scalar(fixed_point(lambda z: Hidden.apply(z, W, x.detach()), torch.zeros(2, 4), solver=TIGHT))
        )(W.detach())


def test_nothing_is_recorded_where_nobody_differentiates():
    cell, x = Cell(), torch.randn(3, 4)
    with torch.no_grad():
        assert DEQ(cell)(x).grad_fn is None
    cell.requires_grad_(False)
    assert not DEQ(cell)(x).requires_grad
    assert DEQ(cell)(x.requires_grad_()).requires_grad


def test_third_derivatives_against_unrolled():
    W, x = (0.3 * torch.randn(3, 3)).requires_grad_(), torch.randn(2, 3, requires_grad=True)

    def third(adjoint):
        z = fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros(2, 3), solver=TIGHT, adjoint=adjoint)
        (slope,) = torch.autograd.grad(scalar(z), W, create_graph=True)
        (curve,) = torch.autograd.grad(slope.square().sum(), x, create_graph=True)
        return torch.autograd.grad(curve.square().sum(), (W, x))

    close(third(ImplicitAdjoint()), third(Unrolled(80)), 1e-7)


def test_two_passes_over_one_graph_and_leaves_keep_no_trace():
    W, x = (0.3 * torch.randn(3, 3)).requires_grad_(), torch.randn(2, 3)
    z = scalar(fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros(2, 3), solver=TIGHT))
    first = torch.autograd.grad(z, W, retain_graph=True)
    close(torch.autograd.grad(z, W), first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(z, W)


def test_checkpoints_solve_once_more_and_not_for_every_product():
    W, x, calls = 0.3 * torch.randn(4, 4), torch.randn(3, 4, requires_grad=True), []

    def solve(x):
        def f(z):
            calls.append(1)
            return torch.tanh(z @ W.T + x)

        return fixed_point(f, torch.zeros(3, 4), solver=TIGHT)

    reference = torch.autograd.grad(scalar(solve(x)), x)
    once = len(calls)
    calls.clear()
    close(torch.autograd.grad(scalar(checkpoint(solve, x, use_reentrant=False)), x), reference)
    assert len(calls) == 2 * once


FORMS = {
    "items": lambda W, x: lambda z: torch.func.vmap(lambda a, b: torch.tanh(W @ a + b))(z, x),
    "rows of a closed-over matrix": lambda W, x: (
        lambda z: torch.func.vmap(lambda w: torch.tanh(z @ w), out_dims=1)(W) + x
    ),
    "a gradient": lambda W, x: lambda z: torch.tanh(z @ W.T + x) + 0.1 * torch.func.grad(lambda z: z.sin().sum())(z),
}


@pytest.mark.parametrize("form", FORMS)
def test_transforms_inside_the_map(form):
    W, x = 0.15 * torch.randn(4, 4), torch.randn(3, 4)

    def loss(W, x, adjoint=ImplicitAdjoint()):  # noqa: B008
        return scalar(fixed_point(FORMS[form](W, x), torch.zeros(3, 4), solver=TIGHT, adjoint=adjoint))

    own = W.clone().requires_grad_(), x.clone().requires_grad_()
    reference = torch.autograd.grad(loss(*own, Unrolled(150)), own)
    close(torch.autograd.grad(loss(*own), own), reference)
    close(torch.func.grad(loss, (0, 1))(W, x), reference)
    close(torch.func.jacfwd(loss, (0, 1))(W, x), reference)
    mapped = torch.func.vmap(torch.func.grad(loss, (0, 1)), (0, None))(torch.stack([W, W]), x)
    close([g[1] for g in mapped], reference)

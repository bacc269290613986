"""Monotone models: structure, solvers that agree, gradients against unrolling, step lengths, maps."""

import math

import pytest
import torch
from equilibria import MODELS, TIGHT, assert_close, dense_matrix, gradients
from torch.func import functional_call

from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.fixed_points.convolution import downsample, padded_norm
from conelayers.fixed_points.iterations import Anderson, ForwardBackward, NewtonKrylov, PeacemanRachford
from conelayers.layers.monotone_conv import MonotoneConvDEQ, MonotoneMultiTierDEQ
from conelayers.layers.monotone_deq import MonotoneDEQ


@pytest.mark.parametrize("name", MODELS)
def test_monotone_by_construction(name):
    make, shape = MODELS[name]
    model = make(Anderson())
    W = dense_matrix(model, torch.randn(shape))
    gap = torch.eye(len(W)) - W
    assert torch.linalg.eigvalsh((gap + gap.T) / 2).min() >= 0.2 - 1e-10


@pytest.mark.parametrize("name", MODELS)
def test_monotone_solvers_agree_and_gradients_match_unrolled(name):
    make, shape = MODELS[name]
    x = torch.randn(shape)
    model = make(NewtonKrylov(**TIGHT))
    z = model(x)
    reference = gradients(torch.cat([t.flatten() for t in z]) if isinstance(z, list) else z, model)
    splitting, weights = model.splitting()
    injection = model.inject(x)
    # The unrolled oracle: damped forward-backward steps, recorded.
    u = injection
    step = 0.08
    for _ in range(1500):
        value = splitting.operator(u, injection, *weights)
        if isinstance(u, list):
            u = splitting.prox([a - step * b for a, b in zip(u, value)], step)
        else:
            u = splitting.prox(u - step * value, step)
    flat = torch.cat([t.flatten() for t in u]) if isinstance(u, list) else u
    assert_close(reference, gradients(flat, model), 1e-8)
    solvers = [Anderson(max_steps=3000, **TIGHT), ForwardBackward(alpha=step, max_steps=5000, **TIGHT)]
    if name != "tiers":
        solvers.append(PeacemanRachford(max_steps=3000, **TIGHT))
    for solver in solvers:
        model.solver = solver
        again = model(x)
        for a, b in zip(again, z):
            assert (a - b).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_step_search_shortens_the_solve(name):
    make, shape = MODELS[name]
    x = torch.randn(shape)
    model = make(PeacemanRachford(alpha=0.01, max_steps=20000))
    before = model(x, return_info=True)[1].iterations.max()
    alpha = model.tune_step(x)
    assert model.solver.alpha == alpha != 0.01
    assert model(x, return_info=True)[1].iterations.max() < before


def test_monotone_model_refuses_what_it_cannot_do():
    with pytest.raises(InvalidArgument):
        MonotoneDEQ(3, 3, m=0.0)
    with pytest.raises(InvalidArgument, match="Anderson"):
        MonotoneDEQ(3, 3, activation=torch.tanh)
    with pytest.raises(InvalidArgument):
        MonotoneConvDEQ(1, 2, (4, 4), kernel=2)
    with pytest.raises(InvalidArgument):
        MonotoneMultiTierDEQ(1, (2, 2), (5, 5))
    model = MonotoneMultiTierDEQ(1, (2, 2), (6, 6), solver=PeacemanRachford())
    with pytest.raises(UnsupportedError, match="resolvent"):
        model(torch.randn(1, 1, 6, 6))


@pytest.mark.parametrize("name", MODELS)
def test_splitting_solvers_run_under_vmap(name):
    """A model per place of the axis, shared inputs, and the other way round; values and gradients as in a loop."""
    make, shape = MODELS[name]
    solver = ForwardBackward(alpha=0.1, max_steps=5000, **TIGHT) if name == "tiers" else PeacemanRachford(**TIGHT)
    model, other = make(solver), make(solver)
    x = torch.randn(2, *shape)
    names = [n for n, _ in model.named_parameters()]
    stacked = {n: torch.stack([dict(m.named_parameters())[n].detach() for m in (model, other)]) for n in names}

    def total(parameters, x):
        z = functional_call(model, parameters, (x,))
        return sum(t.square().sum() for t in (z if isinstance(z, list) else [z]))

    gradient = torch.func.grad_and_value(total)
    for dims in ((0, None), (None, 0), (0, 0)):
        parameters = stacked if dims[0] == 0 else {n: t[0] for n, t in stacked.items()}
        inputs = x if dims[1] == 0 else x[0]
        grads, values = torch.func.vmap(gradient, in_dims=dims)(parameters, inputs)
        for i in range(2):
            one = {n: t[i] for n, t in stacked.items()} if dims[0] == 0 else parameters
            expected, value = gradient(one, inputs[i] if dims[1] == 0 else inputs)
            assert_close([values[i]], [value])
            assert_close([grads[n][i] for n in names], [expected[n] for n in names])


def test_starts_alone_may_be_mapped_and_vmap_nests():
    model = MonotoneDEQ(5, 12, m=0.2, solver=PeacemanRachford(**TIGHT))
    x, z0 = torch.randn(2, 2, 3, 5), torch.rand(2, 2, 3, 12)
    expected = model(x[0, 0])
    found = torch.func.vmap(lambda z0: model(x[0, 0], z0))(z0[0])
    assert_close(list(found), [expected, expected])
    found = torch.func.vmap(torch.func.vmap(model))(x)
    assert_close([found.reshape(12, 12)], [model(x.reshape(12, 5))])


@pytest.mark.parametrize("stride", [1, 2])
def test_norm_bound_of_padded_convolutions(stride):
    size = (6, 8)
    inputs = torch.eye(2 * math.prod(size)).reshape(-1, 2, *size)
    for seed in range(10):
        kernel = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
        images = torch.nn.functional.conv2d(inputs, kernel, stride=stride, padding=1)
        norm = torch.linalg.matrix_norm(images.flatten(1), ord=2)
        assert norm <= padded_norm(kernel, size) <= 1.3 * stride * norm
    assert torch.equal(images, downsample(kernel, inputs)) == (stride == 2)

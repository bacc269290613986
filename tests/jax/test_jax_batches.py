"""Batch axes and `vmap` in every arrangement: mapped axes anywhere, shared parameters, empty batches, several axes."""

import cvxpy as cp
import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from conelayers import CvxpyLayer as TorchLayer  # noqa: E402
from conelayers.jax import CvxpyLayer  # noqa: E402

RNG = np.random.default_rng(5)
A, B, S = RNG.normal(size=(4, 3, 2)), RNG.normal(size=(4, 3, 2, 2)), RNG.normal(size=(4, 3))
WEIGHTS = np.array([1.0, -0.7])


@pytest.fixture(autouse=True)
def precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def layers():
    """A vector, a matrix and a number as parameters."""
    x, a, B, s = cp.Variable(2), cp.Parameter(2), cp.Parameter((2, 2)), cp.Parameter()
    objective = cp.sum_squares(x - a) + cp.sum_squares(B @ x) + s * x[0]
    problem = cp.Problem(cp.Minimize(objective), [cp.sum(x) == 1, x >= -0.2])
    return CvxpyLayer(problem, [a, B, s], [x]), TorchLayer(problem, [a, B, s], [x])


@pytest.fixture(scope="module")
def right(layers):
    """Values of shape (4, 3, 2) and gradients of their weighted sum, item by item."""
    tensors = [torch.tensor(v, requires_grad=True) for v in (A, B, S)]
    values = layers[1](*tensors)[0]
    gradients = torch.autograd.grad((values * torch.tensor(WEIGHTS)).sum(), tensors)
    return values.detach().numpy(), [g.numpy() for g in gradients]


def _loss(layer):
    return lambda *p: (layer(*p)[0] * WEIGHTS).sum()


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_several_batch_axes(layers, right):
    layer, (values, gradients) = layers[0], right
    _close(layer(A, B, S)[0], values)
    for found, expected in zip(jax.jit(jax.grad(_loss(layer), (0, 1, 2)))(A, B, S), gradients, strict=True):
        _close(found, expected)


@pytest.mark.parametrize("axes", [(0, 1, 0), (1, 2, 0), (-1, -2, -1), (1, 0, -1), (-2, 1, 0)])
def test_mapped_axes_anywhere(layers, right, axes):
    points = [np.moveaxis(v[0], 0, axis) for v, axis in zip((A, B, S), axes, strict=True)]
    mapped = jax.vmap(jax.value_and_grad(_loss(layers[0]), (0, 1, 2)), axes)
    found, gradients = mapped(*points)
    _close(found, right[0][0] @ WEIGHTS)
    for value, expected in zip(gradients, right[1], strict=True):
        _close(value, expected[0])


@pytest.mark.parametrize("compiled", [False, True])
def test_maps_over_disjoint_axes(layers, right, compiled):
    """An outer map of one parameter, an inner map of another, a third with batch axes, against the plain product."""
    layer = layers[0]

    def solve(a, s):
        return layer(a, B[0], s)[0]  # shape (3, 2): a and s lack the batch axis of B

    mapped = jax.vmap(jax.vmap(solve, (None, 0)), (0, None))
    found = (jax.jit(mapped) if compiled else mapped)(A[:, 0], S[0])
    a, b, s = np.broadcast_to(A[:, 0][:, None, None], (4, 3, 3, 2)), B[0][None, None], S[0][None, :, None]
    expected = layers[1](*map(torch.tensor, (a, np.broadcast_to(b, (4, 3, 3, 2, 2)), np.broadcast_to(s, (4, 3, 3)))))
    _close(found, expected[0])


def test_map_within_a_derivative_within_a_map(layers):
    layer, torch_layer = layers

    def inner(function, vmap, hessian):
        return vmap(lambda a, s: hessian(lambda a: vmap(lambda t: function(a, t))(s).sum())(a), 0)

    found = inner(lambda a, s: _loss(layer)(a, B[0, 0], s), jax.vmap, jax.hessian)(A[:, 0], S)
    weights, b = torch.tensor(WEIGHTS), torch.tensor(B[0, 0])
    by_torch = inner(
        lambda a, s: (torch_layer(a, b, s)[0] * weights).sum(),
        lambda f, *axes: torch.func.vmap(f, *axes),
        torch.func.hessian,
    )
    _close(found, by_torch(torch.tensor(A[:, 0]), torch.tensor(S)))


def test_gradients_of_shared_parameters_are_sums(layers, right):
    layer = layers[0]
    shared = B[0, 0]
    each = jax.vmap(jax.grad(_loss(layer), 1), (0, None, 0))(A[0], shared, S[0])
    for loss in (
        _loss(layer),
        lambda a, b, s: jax.vmap(_loss(layer), (0, None, 0))(a, b, s).sum(),
        lambda a, b, s: _loss(layer)(a, b[None], s),  # batch axes of size one
    ):
        _close(jax.grad(loss, 1)(A[0], shared, S[0]), each.sum(0))
        _close(jax.jit(jax.jacfwd(loss, 1))(A[0], shared, S[0]), each.sum(0))


@pytest.mark.parametrize("empty", [(0,), (3, 0)])
def test_empty_batches(layers, empty):
    layer = layers[0]
    a, b, s = jnp.zeros((*empty, 2)), jnp.ones((2, 2)), jnp.zeros(empty)
    assert layer(a, b, s)[0].shape == jax.jit(layer)(a, b, s)[0].shape == (*empty, 2)
    gradients = jax.jit(jax.grad(_loss(layer), (0, 1, 2)))(a, b, s)
    assert [g.shape for g in gradients] == [a.shape, b.shape, s.shape]
    np.testing.assert_array_equal(gradients[1], 0)
    assert jax.jvp(lambda s: layer(a, b, s)[0], (s,), (s,))[1].shape == (*empty, 2)
    if len(empty) == 1:
        assert jax.vmap(jax.hessian(_loss(layer)), (0, None, 0))(a, b, s).shape == (0, 2, 2)
        assert jax.vmap(layer, (0, None, 0))(a, b, s)[0].shape == (0, 2)

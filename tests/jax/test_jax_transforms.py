"""Values and derivatives under the transforms of JAX equal those of the torch layer, for every cone."""

import cvxpy as cp
import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from conelayers import CvxpyLayer as TorchLayer  # noqa: E402
from conelayers.jax import CvxpyLayer  # noqa: E402

N = 3


def _box():
    x, a, G = cp.Variable(N), cp.Parameter(N), cp.Parameter((2, N))
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) == 1, x >= 0, G @ x <= 0.6]), [a, G], [x]


def _ball():
    x, a, B = cp.Variable(N), cp.Parameter(N), cp.Parameter((N, N))
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a) + cp.norm(B @ x)), [cp.norm(x) <= 0.5]), [a, B], [x]


def _semidefinite():
    X, a, C = cp.Variable((2, 2), symmetric=True), cp.Parameter(), cp.Parameter((2, 2))
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C) + a * X[0, 1]), [X >> 0, cp.trace(X) <= 1]), [a, C], [X]


def _entropy():
    x, a, w = cp.Variable(N), cp.Parameter(N), cp.Parameter((N, N))
    return cp.Problem(cp.Maximize(a @ x + cp.sum(cp.entr(x))), [cp.sum(x) == 1, w[0] @ x <= 2]), [a, w], [x]


def _power():
    x, a, b = cp.Variable(N), cp.Parameter(N), cp.Parameter((N, N))
    return cp.Problem(cp.Minimize(cp.pnorm(x - a, 3) + cp.sum_squares(b @ x)), []), [a, b], [x]


def _dual():
    x, a, b = cp.Variable(N), cp.Parameter(N), cp.Parameter((N, N))
    rows = [x <= 0.3, cp.sum(x) == 0.5]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a) + cp.sum_squares(b @ x)), rows)
    return problem, [a, b], [rows[0].dual_variables[0], x]


@pytest.fixture(autouse=True)
def precision():
    """Double precision, process-wide: results of callbacks know no context manager."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


PROBLEMS = {f.__name__[1:]: f for f in (_box, _ball, _semidefinite, _entropy, _power, _dual)}


@pytest.fixture(scope="module", params=PROBLEMS)
def case(request):
    problem, parameters, variables = PROBLEMS[request.param]()
    rng = np.random.default_rng(3)
    points = [rng.normal(size=(2, *p.shape)) for p in parameters]
    weights = [rng.normal(size=v.shape) for v in variables]
    layers = CvxpyLayer(problem, parameters, variables), TorchLayer(problem, parameters, variables)
    return *layers, points, weights


def _losses(case):
    layer, torch_layer, points, weights = case

    def loss(first, second):
        return sum((v * w).sum() for v, w in zip(layer(first, second), weights, strict=True))

    def torch_loss(first, second):
        found = torch_layer(first, second)
        return sum((v * torch.as_tensor(w, dtype=v.dtype)).sum() for v, w in zip(found, weights, strict=True))

    return loss, torch_loss, points


def _moved(torch_loss, arguments):
    return torch.func.jvp(torch_loss, arguments, arguments)[1]


# Each is a pair of functions of (loss, first argument, second argument), for JAX and for torch.
ONE_ITEM = {
    "value": (lambda f, a, b: f(a, b), lambda f, a, b: f(a, b)),
    "grad": (lambda f, a, b: jax.grad(f, (0, 1))(a, b), lambda f, a, b: torch.func.grad(f, (0, 1))(a, b)),
    "jvp": (lambda f, a, b: jax.jvp(f, (a, b), (a, b))[1], lambda f, a, b: _moved(f, (a, b))),
    "jacfwd": (lambda f, a, b: jax.jacfwd(f, 1)(a, b), lambda f, a, b: torch.func.grad(f, 1)(a, b)),
    "jacrev": (lambda f, a, b: jax.jacrev(f, 0)(a, b), lambda f, a, b: torch.func.grad(f, 0)(a, b)),
    "hessian": (lambda f, a, b: jax.hessian(f)(a, b), lambda f, a, b: torch.func.hessian(f)(a, b)),
    "reverse over reverse": (
        lambda f, a, b: jax.jacrev(jax.grad(f, 1), 0)(a, b),
        lambda f, a, b: torch.func.jacrev(torch.func.grad(f, 1), 0)(a, b),
    ),
    "linearize": (lambda f, a, b: jax.linearize(f, a, b)[1](a, b), lambda f, a, b: _moved(f, (a, b))),
    "checkpoint": (
        lambda f, a, b: jax.grad(jax.checkpoint(f), 1)(a, b),
        lambda f, a, b: torch.func.grad(f, 1)(a, b),
    ),
}
BATCHES = {
    "batch": (lambda f, a, b: jax.grad(f, (0, 1))(a, b), lambda f, a, b: torch.func.grad(f, (0, 1))(a, b)),
    "shared": (lambda f, a, b: jax.grad(f, (0, 1))(a, b[0]), lambda f, a, b: torch.func.grad(f, (0, 1))(a, b[0])),
    "vmap": (
        lambda f, a, b: jax.vmap(jax.grad(f, (0, 1)))(a, b),
        lambda f, a, b: torch.func.vmap(torch.func.grad(f, (0, 1)))(a, b),
    ),
    "vmap of one": (
        lambda f, a, b: jax.vmap(jax.grad(f, (0, 1)), (None, 0))(a[0], b),
        lambda f, a, b: torch.func.vmap(torch.func.grad(f, (0, 1)), (None, 0))(a[0], b),
    ),
    "vmap of hessian": (
        lambda f, a, b: jax.vmap(jax.hessian(f), (0, None))(a, b[0]),
        lambda f, a, b: torch.func.vmap(torch.func.hessian(f), (0, None))(a, b[0]),
    ),
}


def _compare(found, expected, tol):
    found, expected = jax.tree.leaves(found), expected if isinstance(expected, tuple) else (expected,)
    for value, right in zip(found, expected, strict=True):
        right = right.detach().numpy()
        np.testing.assert_allclose(value, right, rtol=0, atol=tol * max(1.0, np.abs(right).max()))


@pytest.mark.parametrize("transform", [*ONE_ITEM, *BATCHES])
def test_double_precision(case, transform):
    loss, torch_loss, points = _losses(case)
    by_jax, by_torch = (ONE_ITEM | BATCHES)[transform]
    if transform in ONE_ITEM:
        points = [p[0] for p in points]
    expected = by_torch(torch_loss, *map(torch.tensor, points))
    function = lambda a, b: by_jax(loss, a, b)  # noqa: E731
    found = jax.jit(function)(*map(jnp.asarray, points))
    _compare(found, expected, 1e-12)


@pytest.mark.parametrize("transform", ["value", "grad", "jvp", "hessian", "batch", "vmap"])
def test_single_precision(case, transform):
    loss, torch_loss, points = _losses(case)
    by_jax, by_torch = (ONE_ITEM | BATCHES)[transform]
    if transform in ONE_ITEM:
        points = [p[0] for p in points]
    points = [np.float32(p) for p in points]
    expected = by_torch(torch_loss, *(torch.tensor(p, dtype=torch.float64) for p in points))
    jax.config.update("jax_enable_x64", False)
    found = by_jax(loss, *map(jnp.asarray, points))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))
    _compare(found, expected, 2e-6)


def test_inside_control_flow(case):
    loss, torch_loss, points = _losses(case)
    first, second = points

    def scanned(a, b):
        return jax.lax.scan(lambda total, item: (total + loss(*item), None), 0.0, (a, b))[0]

    def branched(a, b):
        return jax.lax.cond(a.sum() > 1e9, lambda: 0.0, lambda: loss(a, b))

    def counted(a, b):
        return jax.lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1] + loss(a, b)), (0, 0.0))[1]

    tensors = list(map(torch.tensor, points))
    found = jax.jit(jax.grad(scanned, (0, 1)))(first, second)
    _compare(found, torch.func.grad(torch_loss, (0, 1))(*tensors), 1e-12)
    found = jax.jit(jax.grad(branched, (0, 1)))(first[0], second[0])
    _compare(found, torch.func.grad(torch_loss, (0, 1))(tensors[0][0], tensors[1][0]), 1e-12)
    found = jax.jit(counted)(first[0], second[0])
    _compare(found, 2 * torch_loss(tensors[0][0], tensors[1][0]), 1e-12)

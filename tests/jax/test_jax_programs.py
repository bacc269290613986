"""Layers inside larger JAX programmes: as arguments, copies, in loops, beside each other, with odd arrays."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref

import cvxpy as cp
import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

from conelayers.errors import InvalidArgument, RegularityError, RegularityWarning, SolveError  # noqa: E402
from conelayers.jax import CvxpyLayer  # noqa: E402

POINT = np.array([0.3, 0.1])


@pytest.fixture(autouse=True)
def precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def projection(**options):
    """Onto sum(x) == 1, x >= 0: where both are positive, the Jacobian is [[0.5, -0.5], [-0.5, 0.5]]."""
    x, a = cp.Variable(2, name="x"), cp.Parameter(2, name="a")
    rows = [cp.sum(x) == 1, x >= 0]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), rows)
    return CvxpyLayer(problem, [a], [x], **options)


@pytest.fixture(scope="module")
def layer():
    return projection()


def test_layers_are_static_arguments_and_can_be_copied(layer):
    function = jax.jit(lambda layer, a: jax.grad(lambda a: layer(a)[0][0])(a), static_argnums=0)
    for same in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_allclose(function(same, POINT), [0.5, -0.5], atol=1e-12)
    assert function._cache_size() == 3  # compared by identity


def test_donated_arguments(layer):
    step = jax.jit(lambda a: a - 0.1 * jax.grad(lambda a: layer(a)[0][0])(a), donate_argnums=0)
    a = jnp.array(POINT)
    for _ in range(3):
        a = step(a)
    np.testing.assert_allclose(a, POINT - 0.3 * np.array([0.5, -0.5]), atol=1e-12)


def test_layers_of_layers_in_one_compilation(layer):
    x, c = cp.Variable(2), cp.Parameter(2)
    ball = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.norm(x) <= 0.5]), [c], [x])

    def composed(a):
        return ball(layer(a)[0] * 3)[0]

    def by_hand(a):
        inner = 3 * (a + (1 - a.sum()) / 2)
        return 0.5 * inner / jnp.linalg.norm(inner)

    np.testing.assert_allclose(jax.jit(composed)(POINT), by_hand(POINT), atol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.jacrev(composed))(POINT), jax.jacrev(by_hand)(POINT), atol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.hessian(composed))(POINT), jax.hessian(by_hand)(POINT), atol=1e-8)


def test_scans_that_carry_solutions(layer):
    def chain(solve):
        def body(carry, weight):
            carry = solve(carry * weight)
            return carry, carry[0]

        return lambda a, weights: jax.lax.scan(body, a, weights)[1].sum()

    def by_hand(a):
        return a + (1 - a.sum()) / 2

    weights = jnp.array([1.0, 0.9, 1.1, 0.8])
    for derivative in (jax.jacrev, jax.jacfwd):
        found = jax.jit(derivative(chain(lambda a: layer(a)[0]), (0, 1)))(POINT, weights)
        for value, right in zip(found, derivative(chain(by_hand), (0, 1))(POINT, weights), strict=True):
            np.testing.assert_allclose(value, right, atol=1e-12)


def test_duals_of_the_cone_programme_are_differentiable(layer):
    def duals(a):
        return layer.solve(a).cone.y

    step = 1e-5
    moves = [(duals(POINT + step * e) - duals(POINT - step * e)) / (2 * step) for e in np.eye(2)]
    for derivative in (jax.jacrev, jax.jacfwd):
        np.testing.assert_allclose(jax.jit(derivative(duals))(POINT), np.stack(moves, -1), atol=1e-7)
    gradient = jax.grad(lambda a: layer.solve(a).cone.gap)(jnp.array(POINT))
    np.testing.assert_array_equal(gradient, 0)  # how good a solution is has no derivative


@pytest.mark.parametrize(
    ("value", "kind"),
    [([2, 0], np.float64), (np.array([2, 0], np.int32), np.float64), (np.array([2, 0], np.float32), np.float32)],
)
def test_integers_become_the_default_float(layer, value, kind):
    for function in (layer, jax.jit(layer)):
        (solution,) = function(jnp.asarray(value))
        assert solution.dtype == kind
        np.testing.assert_allclose(solution, [1, 0], atol=1e-6)
    jax.config.update("jax_enable_x64", False)
    assert layer(jnp.array([2, 0]))[0].dtype == np.float32


def test_what_is_not_an_array_is_named(layer):
    for value in (None, {}, [1.0, None]):
        with pytest.raises(InvalidArgument, match=r"parameter 0 \(a\) is a "):
            layer(value)
    with pytest.raises(InvalidArgument):
        layer(POINT, None)


def test_errors_outside_of_compilation_are_the_packages_own():
    x, c = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= c, x <= 1]), [c], [x])
    points = np.array([[0.1, 0.0], [2.0, 0.0]])
    for function in (layer, jax.vmap(layer), jax.grad(lambda c: layer(c)[0].sum())):
        with pytest.raises(SolveError, match=r"1 of 2 batch items \(1: PRIMAL_INFEASIBLE\)"):
            function(points)


def test_derivatives_that_cannot_be_trusted_are_reported():
    x, c = cp.Variable(2), cp.Parameter(2)
    twice = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0, 2 * x[0] >= 0])
    point = jnp.array([-1.0, 1.0])
    with pytest.warns(RegularityWarning):
        CvxpyLayer(twice, [c], [x], regularity="warn")(point)
    with pytest.raises(RegularityError):
        CvxpyLayer(twice, [c], [x], regularity="raise")(point)
    CvxpyLayer(twice, [c], [x], regularity="raise")(jnp.array([1.0, 1.0]))


def test_options_of_one_call(layer):
    traces = []

    @jax.jit
    def function(a):
        traces.append(a)
        return layer(a, solver_args={"tol": 1e-4, "solve_method": "SCS"})[0]

    for solution in (function(POINT), function(POINT + 0.1), layer(POINT, solver_args={"solve_method": "SCS"})[0]):
        np.testing.assert_allclose(solution, [0.6, 0.4], atol=1e-8)
    assert len(traces) == 1
    with pytest.raises(SolveError):
        layer(POINT, solver_args={"max_iters": 1})
    np.testing.assert_allclose(layer(POINT)[0], [0.6, 0.4], atol=1e-12)


def test_layers_are_freed():
    layer = projection()
    layer(POINT)
    references = [weakref.ref(layer), *map(weakref.ref, layer._equations.values())]
    del layer
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_arrays_on_several_devices():
    """Solutions stay on the device of the parameters; shards are solved each by itself under `shard_map`."""
    code = """
import jax, jax.numpy as jnp, numpy as np, cvxpy as cp
from conelayers.jax import CvxpyLayer
x, a = cp.Variable(2), cp.Parameter(2)
layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(x) == 1]), [a], [x])
points = jnp.arange(8.0).reshape(4, 2)
for function in (layer, jax.jit(layer), jax.vmap(layer)):
    moved = jax.device_put(points, jax.devices()[1])
    assert function(moved)[0].devices() == moved.devices()
    assert function(points)[0].devices() == points.devices() and not layer(points)[0].committed
mesh = jax.make_mesh((2,), ("items",), axis_types=(jax.sharding.AxisType.Explicit,))
split = jax.sharding.PartitionSpec("items")
solve = lambda a: layer(a)[0]
sharded = jax.shard_map(solve, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
points = jax.device_put(points, jax.sharding.NamedSharding(mesh, split))
gradient = jax.jit(jax.grad(lambda a: (sharded(a)[:, 0] ** 2).sum()))(points)
expected = jax.grad(lambda a: (solve(a)[:, 0] ** 2).sum())(jnp.arange(8.0).reshape(4, 2))
np.testing.assert_allclose(gradient, expected, atol=1e-6)
# Axes of type Auto are no part of an array's type: JAX gathers the array.
automatic = jax.make_mesh((2,), ("items",), axis_types=(jax.sharding.AxisType.Auto,))
points = jax.device_put(jnp.arange(8.0).reshape(4, 2), jax.sharding.NamedSharding(automatic, split))
for function in (jax.grad, lambda f: jax.jit(jax.grad(f))):
    gradient = function(lambda a: (solve(a)[:, 0] ** 2).sum())(points)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
"""
    flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", code], env=flags, check=True)

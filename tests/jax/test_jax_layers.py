"""The JAX layer's own behaviour: shapes, types, failures, cone programmes, and what it does not import."""

import os
import subprocess
import sys

import cvxpy as cp
import numpy as np
import pytest
import torch

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import conelayers  # noqa: E402
from conelayers import Status  # noqa: E402
from conelayers.cones import Nonnegative, SecondOrder, Zero  # noqa: E402
from conelayers.errors import InvalidArgument, UnsupportedError  # noqa: E402
from conelayers.jax import CvxpyLayer, solve_cone_program  # noqa: E402


@pytest.fixture(autouse=True)
def precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def bounded():
    """x >= c and x <= 1: no solution for c > 1."""
    x, c = cp.Variable(2, name="x"), cp.Parameter(2, name="c")
    return cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= c, x <= 1]), [c], [x]


def test_importing_the_package_imports_no_jax():
    # Others (CVXPY among them) may import it; it is not this package that does.
    code = """
import sys, cvxpy, torch, diffcp, scs, clarabel
before = "jax" in sys.modules
import conelayers
sys.exit(before != ("jax" in sys.modules) or "conelayers.jax" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("compiled", [False, True])
def test_failures_are_named(bounded, compiled):
    layer = CvxpyLayer(*bounded)
    function = jax.jit(layer) if compiled else layer
    with pytest.raises(Exception, match=r"1 of 2 batch items \(1: PRIMAL_INFEASIBLE\)"):
        jax.block_until_ready(function(jnp.array([[0.1, 0.0], [2.0, 0.0]])))


def test_failures_as_nan_leave_other_gradients(bounded):
    layer = CvxpyLayer(*bounded, on_failure="nan")
    points = jnp.array([[0.1, -0.2], [2.0, 0.0]])
    solution = jax.jit(layer.solve)(points)
    assert solution.status.tolist() == [Status.SOLVED, Status.PRIMAL_INFEASIBLE]
    assert np.isnan(solution.variables[0][1]).all()
    gradient = jax.grad(lambda c: jnp.nansum(layer(c)[0]))(points)
    np.testing.assert_allclose(gradient, [[1.0, 0.0], [0.0, 0.0]], atol=1e-9)


def test_arguments_are_checked_while_tracing(bounded):
    layer = CvxpyLayer(*bounded)
    with pytest.raises(InvalidArgument, match="c"):
        jax.jit(layer)(jnp.zeros(3))
    with pytest.raises(InvalidArgument, match="received 0"):
        layer()


def test_types_of_results(bounded):
    layer = CvxpyLayer(*bounded)
    assert layer(jnp.zeros(2, jnp.float64))[0].dtype == np.float64
    assert layer(jnp.zeros(2, jnp.float32))[0].dtype == np.float32
    assert layer(jnp.zeros(2, jnp.bfloat16))[0].dtype == np.float32
    assert jax.grad(lambda c: layer(c)[0].sum())(jnp.ones(2, jnp.float32) / 2).dtype == np.float32


def test_one_compilation_for_many_calls(bounded):
    layer, traces = CvxpyLayer(*bounded), []

    @jax.jit
    def step(c):
        traces.append(c)
        return jax.grad(lambda c: layer(c)[0].sum())(c)

    for k in range(3):
        step(jnp.full(2, 0.1 * k))
    assert len(traces) == 1


def test_a_parameter_of_the_constant_alone_has_zero_gradient():
    x, a, b = cp.Variable(2), cp.Parameter(2), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a) + b), [cp.sum(x) == 1]), [a, b], [x])
    gradients = jax.grad(lambda a, b: layer(a, b)[0][..., 0].sum(), (0, 1))(jnp.ones((3, 2)), jnp.ones(3))
    np.testing.assert_allclose(gradients[0], np.tile([0.5, -0.5], (3, 1)), atol=1e-12)
    np.testing.assert_array_equal(gradients[1], np.zeros(3))


def test_geometric_programmes_and_complex_parameters_as_torch():
    x, c = cp.Variable(2, pos=True), cp.Parameter(2, pos=True)
    geometric = cp.Problem(
        cp.Minimize(c[0] * x[0] + c[1] / x[0] + x[1] / x[0]), [x[1] >= c[0] * x[0] ** 0.5, x[1] >= 1]
    )
    z, w = cp.Variable(2, complex=True), cp.Parameter(2, complex=True)
    nearest = cp.Problem(cp.Minimize(cp.sum_squares(z - w)), [cp.abs(z) <= 1])
    for problem, parameter, variable, value, gp in (
        (geometric, c, x, np.array([[1.0, 2.0], [0.5, 3.0]]), True),
        (nearest, w, z, np.array([1 + 2j, 0.1 - 0.3j]), False),
    ):
        layer = CvxpyLayer(problem, [parameter], [variable], gp=gp)
        right = conelayers.CvxpyLayer(problem, [parameter], [variable], gp=gp)(torch.tensor(value))[0]
        np.testing.assert_allclose(layer(jnp.asarray(value))[0], right, atol=1e-12)


@pytest.mark.parametrize("quadratic", [True, False])
def test_cone_programmes_as_torch(quadratic):
    rng = np.random.default_rng(0)
    cone, n = [Zero(1), Nonnegative(3), SecondOrder(3)], 5
    A, x = rng.normal(size=(2, 7, n)), rng.normal(size=n)
    s = np.array([0, 1, 0.5, 0, 2, 1, 1])
    y = np.array([1, 0, 0, 1, 1, -1 / 2**0.5, -1 / 2**0.5]) if not quadratic else np.zeros(7)
    root = rng.normal(size=(n, n))
    P = root @ root.T if quadratic else None
    q = -np.einsum("bmn,m->bn", A, y) + (0.3 * rng.normal(size=n) if quadratic else 0.01 * A[:, 0])
    b = A @ x + s
    weights = rng.normal(size=n)
    arrays = [v for v in (P, q, A, b) if v is not None]

    def by(module, convert):
        def loss(*given):
            given = given if quadratic else (None, *given)
            return (module(*given, cone).x * convert(weights)).sum()

        return loss

    tensors = [torch.tensor(v, requires_grad=True) for v in arrays]
    right = torch.autograd.grad(by(conelayers.solve_cone_program, torch.tensor)(*tensors), tensors)
    found = jax.jit(jax.grad(by(solve_cone_program, jnp.asarray), tuple(range(len(arrays)))))(*arrays)
    for value, expected in zip(found, right, strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-9 * max(1.0, float(expected.abs().max())))


def test_other_devices_are_refused_in_words(bounded):
    layer = CvxpyLayer(*bounded)
    with pytest.raises(UnsupportedError, match="CPU only"):
        jax.jit(layer).trace(jnp.ones(2)).lower(lowering_platforms=("cuda",))


def test_sharded_arrays_are_refused_in_words():
    code = """
import jax, jax.numpy as jnp, cvxpy as cp
from conelayers.errors import UnsupportedError
from conelayers.jax import CvxpyLayer
x, c = cp.Variable(2), cp.Parameter(2)
layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.sum(x) == 1]), [c], [x])
mesh = jax.make_mesh((2,), ("items",), axis_types=(jax.sharding.AxisType.Explicit,))
split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("items"))
try:
    jax.jit(layer)(jax.device_put(jnp.ones((4, 2)), split))
except UnsupportedError as error:
    assert "gather it first" in str(error), error
else:
    raise AssertionError("not refused")
"""
    flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", code], env=flags, check=True)

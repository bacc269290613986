"""Batch axes, broadcasting, types, failures, and the absence of hidden state."""

import copy
import pickle
import threading

import cvxpy as cp
import diffcp
import numpy as np
import pytest
import torch

import conelayers
from conelayers import CvxpyLayer, Exact, LagrangianProximal, LeastSquares, Smoothed, Status


@pytest.fixture(scope="module")
def layer():
    """Least squares over a box: parameters F (3, 2), g (3,), u ()."""
    x, F, g, u = cp.Variable(2), cp.Parameter((3, 2)), cp.Parameter(3), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g) + 0.1 * cp.sum_squares(x)), [x <= u, x >= -u])
    return CvxpyLayer(problem, [F, g, u], [x])


def sample(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def make(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return make(*batch, 3, 2), make(*batch, 3), 0.3 + make(*batch).abs()


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (2, 1, 3)])
def test_any_number_of_batch_axes(layer, batch):
    F, g, u = sample(*batch)
    (x,) = layer(F, g, u)
    assert x.shape == (*batch, 2)
    for index in np.ndindex(*batch):
        (single,) = layer(F[index], g[index], u[index])
        torch.testing.assert_close(x[index], single, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", [Exact(), Smoothed(1e-3), LeastSquares(), LagrangianProximal(0.1)], ids=repr)
def test_empty_batch(layer, mode):
    layer = copy.deepcopy(layer)
    layer.derivative = mode
    F, g, u = sample(0)
    u = torch.ones((), dtype=torch.float64)
    leaves = tuple(p.requires_grad_() for p in (F, g, u))
    (x,) = layer(*leaves)
    assert x.shape == (0, 2)
    x.sum().backward()
    assert F.grad.shape == (0, 3, 2) and g.grad.shape == (0, 3) and u.grad == 0
    if not isinstance(mode, LagrangianProximal):
        tangents = tuple(torch.ones_like(p) for p in leaves)
        assert torch.func.jvp(lambda *p: layer(*p)[0], leaves, tangents)[1].shape == (0, 2)
    assert layer.solve(*leaves).status.shape == (0,)


def test_size_one_axes_and_missing_axes_broadcast(layer):
    F, g, u = sample(4, 3)
    (x,) = layer(F[:, :1], g[:1], u[0, 0])
    (full,) = layer(F[:, :1].expand(4, 3, 3, 2), g[:1].expand(4, 3, 3), u[0, 0].expand(4, 3))
    torch.testing.assert_close(x, full, rtol=1e-9, atol=1e-10)


def test_gradient_of_a_shared_parameter_is_the_sum(layer):
    F, g, u = sample(6)
    shared = F[0].clone().requires_grad_()
    (layer(shared, g, u)[0] ** 2).sum().backward()
    separate = F[:1].expand(6, 3, 2).clone().requires_grad_()
    (layer(separate, g, u)[0] ** 2).sum().backward()
    torch.testing.assert_close(shared.grad, separate.grad.sum(0), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mapped", [(0, None, None), (None, 0, None), (None, None, 0), (0, None, 0)])
def test_transforms_map_some_parameters_only(mapped):
    """Each parameter enters another part of the data, so that some parts are mapped and others shared."""
    x, a, C, d = cp.Variable(3), cp.Parameter(3), cp.Parameter((2, 3)), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + a @ x), [C @ x <= d])
    layer = CvxpyLayer(problem, [a, C, d], [x])
    generator = torch.Generator().manual_seed(1)
    shapes = [(3,), (2, 3), (2,)]
    values = [
        torch.randn(shape if axis is None else (4, *shape), generator=generator, dtype=torch.float64)
        for shape, axis in zip(shapes, mapped, strict=True)
    ]

    def loss(*params):
        return layer(*params)[0].square().sum()

    every = (0, 1, 2)
    reverse = torch.func.vmap(torch.func.grad(loss, every), mapped)(*values)
    forward = torch.func.vmap(torch.func.jacfwd(loss, every), mapped)(*values)
    total = torch.func.grad(lambda *params: torch.func.vmap(loss, mapped)(*params).sum(), every)(*values)
    for item in range(4):
        single = [v if axis is None else v[item] for v, axis in zip(values, mapped, strict=True)]
        expected = torch.func.grad(loss, every)(*single)
        torch.testing.assert_close(tuple(g[item] for g in reverse), expected, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(tuple(g[item] for g in forward), expected, rtol=1e-8, atol=1e-9)
        for g, other, axis in zip(total, expected, mapped, strict=True):
            if axis is not None:
                torch.testing.assert_close(g[item], other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("first", [torch.func.hessian, torch.func.grad, torch.func.jacfwd, torch.func.jacrev])
def test_a_first_call_inside_a_transform_leaves_nothing_of_it_behind(first):
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x >= 0, cp.sum(x) <= 3]), [a], [x])
    value = torch.tensor([1.0, -1.0], dtype=torch.float64)

    def loss(value):
        return layer(value)[0].square().sum()

    first(loss)(value)
    expected = torch.tensor([2.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(torch.func.grad(loss)(value), expected, rtol=1e-9, atol=1e-9)
    value.requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(loss(value), value)[0], expected, rtol=1e-9, atol=1e-9)


def test_constants_of_a_first_call_in_inference_mode_serve_later_derivatives():
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x >= 0]), [a], [x])
    value = torch.tensor([1.0, -1.0])
    with torch.inference_mode():
        layer(value)
    value.requires_grad_()
    layer(value)[0].sum().backward()
    torch.testing.assert_close(value.grad, torch.tensor([1.0, 0.0]), rtol=1e-6, atol=1e-6)


def test_single_precision_in_and_out(layer):
    params = tuple(p.float().requires_grad_() for p in sample(3))
    (x,) = layer(*params)
    assert x.dtype == torch.float32
    x.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in params)
    (exact,) = layer(*(p.detach().double() for p in params))
    torch.testing.assert_close(x.double(), exact, rtol=1e-6, atol=1e-6)


def test_inputs_are_not_mutated(layer):
    params = sample(3)
    copies = tuple(p.clone() for p in params)
    leaves = tuple(p.requires_grad_() for p in params)
    layer(*leaves)[0].sum().backward()
    for p, c in zip(leaves, copies, strict=True):
        assert torch.equal(p.detach(), c)


def test_two_forwards_before_one_backward(layer):
    first, second = sample(3, seed=1), sample(3, seed=2)
    leaves = tuple(p.clone().requires_grad_() for p in first)
    (x1,) = layer(*leaves)
    layer(*(p.clone().requires_grad_() for p in second))
    gradients = torch.autograd.grad(x1.sum(), leaves)
    alone = torch.autograd.grad(layer(*leaves)[0].sum(), leaves)
    for ours, expected in zip(gradients, alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-14)


def test_threads(layer):
    inputs = [sample(4, seed=seed) for seed in range(6)]
    expected = [layer(*p)[0] for p in inputs]
    results = [None] * len(inputs)

    def work(i):
        for _ in range(3):
            results[i] = layer(*inputs[i])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for ours, alone in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(layer, duplicate):
    params = sample(2)
    torch.testing.assert_close(duplicate(layer)(*params)[0], layer(*params)[0], rtol=1e-10, atol=1e-12)


def test_no_gradient_required(layer):
    assert not layer(*sample(2))[0].requires_grad
    with torch.no_grad():
        assert not layer(*(p.requires_grad_() for p in sample(2)))[0].requires_grad


def feasibility_layer(**options):
    """x <= u and x >= 1 with a shared scale: infeasible for u < 1."""
    x, u, c = cp.Variable(2), cp.Parameter(), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x <= u, x >= 1])
    return CvxpyLayer(problem, [u, c], [x], **options)


def test_failure_names_the_items():
    with pytest.raises(conelayers.SolveError, match=r"1: PRIMAL_INFEASIBLE") as caught:
        feasibility_layer()(torch.tensor([2.0, 0.5, 3.0]), torch.zeros(2))
    assert isinstance(caught.value, diffcp.SolverError)


def test_nan_for_failed_items_only():
    layer = feasibility_layer(on_failure="nan")
    u = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([5.0, 2.5], dtype=torch.float64, requires_grad=True)
    solution = layer.solve(u, c)
    (x,) = solution.variables
    assert list(solution.status) == [Status.SOLVED, Status.PRIMAL_INFEASIBLE, Status.SOLVED]
    assert torch.isnan(x[1]).all()
    torch.testing.assert_close(x[[0, 2]].detach(), torch.tensor([[2.0, 2.0], [3.0, 2.5]], dtype=torch.float64))
    torch.nansum(x).backward()
    torch.testing.assert_close(u.grad, torch.tensor([2.0, 0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(c.grad, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_nan_items_do_not_spoil_second_derivatives():
    layer = feasibility_layer(on_failure="nan")
    u = torch.tensor([2.0, 0.5, 3.0], dtype=torch.float64)
    c = torch.tensor([1.5, 2.5], dtype=torch.float64, requires_grad=True)
    loss = torch.nansum(layer(u, c)[0] ** 3)
    (first,) = torch.autograd.grad(loss, c, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), c)
    torch.testing.assert_close(second, torch.tensor([18.0, 15.0], dtype=torch.float64))


def test_unbounded():
    x, a = cp.Variable(), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(a * x), []), [a], [x])
    with pytest.raises(conelayers.SolveError, match="DUAL_INFEASIBLE"):
        layer(torch.tensor(1.0))


def test_nan_data_fails_alone(layer):
    F, g, u = sample(3)
    F[1, 0, 0] = torch.nan
    layer = copy.deepcopy(layer)
    layer.on_failure = "nan"
    F.requires_grad_()
    solution = layer.solve(F, g, u)
    assert solution.status[1] == Status.FAILED and solution.status[0] == solution.status[2] == Status.SOLVED
    (gradient,) = torch.autograd.grad(torch.nansum(solution.variables[0]), F)
    assert (gradient[1] == 0).all() and torch.isfinite(gradient).all()
    (alone,) = torch.autograd.grad(layer(F[::2], g[::2], u[::2])[0].sum(), F)
    torch.testing.assert_close(gradient[::2], alone[::2], rtol=1e-10, atol=1e-12)


def test_parameters_that_are_not_positive_fail_alone():
    """min a x + 1/x at x = a^(-1/2): the logarithm of zero has an infinite derivative, which must not reach a."""
    x, a = cp.Variable(pos=True), cp.Parameter(pos=True)
    problem = cp.Problem(cp.Minimize(a * x + 1 / x))
    layer = CvxpyLayer(problem, [a], [x], gp=True, on_failure="nan")
    values = torch.tensor([4.0, 0.0, -1.0, torch.nan, torch.inf, 9.0], requires_grad=True)
    solution = layer.solve(values)
    good = torch.tensor([True, False, False, False, False, True])
    assert [status is Status.SOLVED for status in solution.status] == good.tolist()
    (gradient,) = torch.autograd.grad(torch.nansum(solution.variables[0]), values)
    torch.testing.assert_close(gradient, torch.where(good, -(values.detach() ** -1.5) / 2, 0.0))


def test_solution_carries_its_evidence(layer):
    solution = layer.solve(*sample(3))
    assert all(status is Status.SOLVED for status in solution.status)
    for residual in (solution.primal_residual, solution.dual_residual, solution.gap):
        assert residual.shape == (3,) and residual.max() < 1e-10
    assert (solution.iterations > 0).all()
    assert layer.solve(*sample()).status is Status.SOLVED


def test_compile_breaks_the_graph_and_is_right(layer):
    F, g, u = sample(2)
    network = torch.nn.Linear(3, 3).double()

    def model(g):
        return layer(F, network(g), u)[0].sum()

    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(g), model(g), rtol=1e-10, atol=1e-12)
    compiled_gradient = torch.autograd.grad(compiled(g), network.weight)[0]
    torch.testing.assert_close(compiled_gradient, torch.autograd.grad(model(g), network.weight)[0])


def test_warm_start_keeps_a_detached_copy(layer):
    layer = copy.deepcopy(layer)
    params = tuple(p.requires_grad_() for p in sample(3))
    (first,) = layer(*params, warm_start=True)
    (second,) = layer(*params, warm_start=True)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-10)
    solution = layer.solve(*params)
    torch.testing.assert_close(layer(*params, warm_start=solution)[0], first, rtol=1e-9, atol=1e-10)


def test_zero_dimensional_and_missing_parameters():
    x = cp.Variable()
    layer = CvxpyLayer(cp.Problem(cp.Minimize((x - 2) ** 2)), [], [x])
    (value,) = layer()
    torch.testing.assert_close(value, torch.tensor(2.0))
    a = cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize((x - a) ** 2)), [a], [x])
    a_value = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    (value,) = layer(a_value)
    assert value.shape == ()
    value.backward()
    torch.testing.assert_close(a_value.grad, torch.tensor(1.0, dtype=torch.float64))

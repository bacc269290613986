"""Kernel after kernel, or step by step: the same numbers, and each where it is due."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer, LeastSquares, Smoothed, Status
from conelayers.backends import Batched, Clarabel
from conelayers.layers import compiled_chain
from conelayers.layers.compiled_chain import CompiledChain

pytest.importorskip("conelayers.native")


@pytest.fixture
def taken(monkeypatch):
    """How many solves and pullbacks went from kernel to kernel, as a list of two numbers."""
    counts = [0, 0]

    def counted(name, place):
        way = getattr(CompiledChain, name)

        def wrapper(self, *arguments):
            found = way(self, *arguments)
            counts[place] += found is not None
            return found

        monkeypatch.setattr(CompiledChain, name, wrapper)

    counted("_solve_at_once", 0)
    counted("_pull_at_once", 1)
    return counts


def quadratic():
    """Every part varies: P, q, A and b; d enters no part."""
    x = cp.Variable(4)
    F, c, G, h, d = cp.Parameter((4, 4)), cp.Parameter(4), cp.Parameter((3, 4)), cp.Parameter(3), cp.Parameter()
    objective = cp.sum_squares(F @ x) + cp.sum_squares(x) + c @ x + d
    constraints = [G @ x <= h, x >= -2, cp.sum(x) == 0]
    problem = cp.Problem(cp.Minimize(objective), constraints)
    return CvxpyLayer(problem, [F, c, G, h, d], [x, constraints[0].dual_variables[0]]), ((4, 4), (4,), (3, 4), (3,), ())


def curved():
    x, c, A, b = cp.Variable(5), cp.Parameter(5), cp.Parameter((3, 5)), cp.Parameter(3)
    problem = cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x)), [cp.norm(A @ x - b) <= 2 + x[0], x[4] <= 1])
    return CvxpyLayer(problem, [c, A, b], [x]), ((5,), (3, 5), (3,))


def exponential():
    x, c, w = cp.Variable(3), cp.Parameter(3), cp.Parameter(3, pos=True)
    problem = cp.Problem(cp.Minimize(c @ x + cp.sum_squares(x)), [cp.log_sum_exp(x + w) <= 2])
    return CvxpyLayer(problem, [c, w], [x]), ((3,), (3,))


def semidefinite():
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0, cp.trace(X) == 1])
    return CvxpyLayer(problem, [C], [X]), ((3, 3),)


FAMILIES = {"quadratic": quadratic, "curved": curved, "exponential": exponential, "semidefinite": semidefinite}


def sample(shapes, batches, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return [
        (torch.as_tensor(rng.normal(size=(*batch, *shape))).abs() / 2 + 0.3).to(dtype).requires_grad_()
        for batch, shape in zip(batches, shapes, strict=True)
    ]


def results(layer, params):
    """Outputs and gradients of a weighted sum of all outputs."""
    outputs = layer(*params)
    generator = torch.Generator().manual_seed(1)
    loss = sum((torch.randn(o.shape, generator=generator, dtype=o.dtype) * o).sum() for o in outputs)
    wanted = [p for p in params if p.requires_grad]
    return [*outputs, *torch.autograd.grad(loss, wanted)]


def both(monkeypatch, taken, layer, params, expected):
    """Results of the layer, after a check that the two ways agree and that `expected` counts went the short one."""
    taken[:] = [0, 0]
    short = results(layer, params)
    assert taken == list(expected)
    with monkeypatch.context() as patch:
        patch.setattr(compiled_chain, "_is_usual", lambda inputs: False)
        long = results(layer, params)
    assert taken == list(expected)
    for one, other in zip(short, long, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    return short


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("batch", [(), (1,), (5,)])
def test_both_ways_agree(name, batch, monkeypatch, taken):
    layer, shapes = FAMILIES[name]()
    both(monkeypatch, taken, layer, sample(shapes, [batch] * len(shapes)), (1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_against_differences(dtype, taken):
    layer, shapes = curved()
    params = sample(shapes, [(3,)] * 3, dtype=dtype)
    (x,) = layer(*params)
    gradients = torch.autograd.grad((x * torch.arange(5)).sum(), params)
    assert taken == [1, 1] and x.dtype == dtype
    exact = [p.detach().double() for p in params]
    step = 1e-6
    for i, gradient in enumerate(gradients):
        direction = torch.randn(exact[i].shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        ends = [
            (layer(*exact[:i], exact[i] + sign * step * direction, *exact[i + 1 :])[0] * torch.arange(5)).sum()
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert (gradient.double() * direction).sum().item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-5)


def test_idle_parameters_have_zero_gradients(monkeypatch, taken):
    layer, shapes = quadratic()
    found = both(monkeypatch, taken, layer, sample(shapes, [(3,)] * 5), (1, 1))
    assert (found[-1] == 0).all() and found[-1].shape == (3,)


def test_idle_parameters_alone_carry_the_batch(monkeypatch, taken):
    layer, shapes = quadratic()
    params = sample(shapes, [(), (), (), (), (3,)])
    found = both(monkeypatch, taken, layer, params, (1, 1))
    assert found[0].shape == (3, 4)


@pytest.mark.parametrize("wanted", [(0,), (1, 3), (2,), (0, 1, 2)])
def test_gradients_of_some_parameters(wanted, monkeypatch, taken):
    layer, shapes = quadratic()
    params = [p.requires_grad_(i in wanted) for i, p in enumerate(sample(shapes, [(4,)] * 5))]
    both(monkeypatch, taken, layer, params, (1, 1))


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([(4,), (), (4,), (), ()], (1, 1)),  # the gradients of c and h are sums over the items
        ([(), (4,), (1,), (4,), ()], (1, 1)),
        ([(), (1,), (), (1,), ()], (1, 1)),
        ([(2, 3)] * 5, (0, 0)),
        ([(0,)] * 5, (0, 0)),
    ],
)
def test_shared_parameters_and_other_batches(batches, expected, monkeypatch, taken):
    layer, shapes = quadratic()
    both(monkeypatch, taken, layer, sample(shapes, batches), expected)


def test_shared_parameters_without_gradients_cost_nothing(monkeypatch, taken):
    layer, shapes = quadratic()
    params = sample(shapes, [(), (4,), (), (4,), ()])
    for shared in (params[0], params[2], params[4]):
        shared.requires_grad_(False)
    both(monkeypatch, taken, layer, params, (1, 1))


def test_many_parameters(monkeypatch, taken):
    """More than the compiled product takes apart."""
    x, parts = cp.Variable(2), [cp.Parameter(2) for _ in range(70)]
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - sum(parts))), [x >= -100]), parts, [x])
    params = sample([(2,)] * 70, [(3,) if i % 2 else () for i in range(70)])
    for i, p in enumerate(params):
        p.requires_grad_(bool(i % 2))
    (solution, *_) = both(monkeypatch, taken, layer, params, (1, 1))
    torch.testing.assert_close(solution, sum(params).detach(), rtol=1e-9, atol=1e-9)


def test_unusual_units_go_step_by_step(monkeypatch, taken):
    layer, shapes = curved()
    params = sample(shapes, [(2,)] * 3)
    with torch.no_grad():
        params[1].mul_(1e4)
    both(monkeypatch, taken, layer, params, (0, 0))


def test_failed_items_are_left_out(monkeypatch, taken):
    x, b = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [cp.sum(x) == b[0], x <= 1])
    layer = CvxpyLayer(problem, [b], [x], on_failure="nan")
    values = torch.tensor([[0.5, 0.2], [7.0, 0.1]], dtype=torch.float64, requires_grad=True)
    taken[:] = [0, 0]
    (solution,) = layer(values)
    (gradient,) = torch.autograd.grad(solution[0].sum(), values)
    assert taken == [1, 0]
    assert solution[1].isnan().all() and (gradient[1] == 0).all()
    (alone,) = layer(values[:1])
    torch.testing.assert_close(solution[:1], alone, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient[:1], torch.autograd.grad(alone.sum(), values)[0][:1], rtol=1e-9, atol=1e-9)
    with pytest.raises(Exception, match="1: PRIMAL_INFEASIBLE"):
        CvxpyLayer(problem, [b], [x])(values)


def test_what_the_engine_gives_up_is_solved_again_and_polished(monkeypatch, taken):
    layer, shapes = quadratic()
    params = sample(shapes, [(3,)] * 5)
    exact, complete = layer.solve(*params), Batched.run

    def interrupted(self, *arguments):
        result = complete(self, *arguments)
        result["status"][1], result["x"][1] = int(Status.FAILED), 0.0
        return {**result, "worst": np.inf}

    monkeypatch.setattr(Batched, "run", interrupted)
    again = layer.solve(*params)
    assert taken == [2, 0] and (again.cone.status_code == int(Status.SOLVED)).all()
    assert float(again.cone.worst.max()) < 1e-10
    torch.testing.assert_close(again.cone.x, exact.cone.x, rtol=1e-9, atol=1e-9)


def test_adjoint_systems_that_are_not_solved_go_step_by_step(monkeypatch, taken):
    layer, shapes = curved()
    monkeypatch.setattr(compiled_chain, "ACCEPTED", -1.0)
    both(monkeypatch, taken, layer, sample(shapes, [(3,)] * 3), (1, 0))


@pytest.mark.parametrize("mode", [Smoothed(1e-4), LeastSquares()])
def test_other_modes_pull_step_by_step(mode, monkeypatch, taken):
    layer, shapes = quadratic()
    layer.derivative = mode
    both(monkeypatch, taken, layer, sample(shapes, [(2,)] * 5), (1, 0))


@pytest.mark.parametrize(
    "settings", [{"solver": Clarabel()}, {"solver": Batched(verbose=True)}, {"regularity": "warn"}]
)
def test_what_solves_step_by_step(settings, monkeypatch, taken, capsys):
    x, b = cp.Variable(2), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x >= 0])
    layer = CvxpyLayer(problem, [b], [x], **settings)
    both(monkeypatch, taken, layer, sample([(2,)], [(3,)]), (0, 1))
    assert ("3 items" in capsys.readouterr().out) == (getattr(layer.backend, "verbose", False))


def test_backends_of_ones_own_are_asked(taken):
    class Counting(Batched):
        calls = 0

        def solve(self, program, warm_start=None):
            type(self).calls += 1
            return super().solve(program, warm_start)

    x, b = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b)), [x >= 0]), [b], [x], solver=Counting())
    layer(*sample([(2,)], [(3,)]))
    assert Counting.calls == 1 and taken[0] == 0


def test_warm_starts_are_used(taken):
    layer, shapes = quadratic()
    params = sample(shapes, [(3,)] * 5)
    first = layer.solve(*params)
    again = layer.solve(*params, warm_start=first)
    assert taken == [1, 0] and (again.iterations == 0).all()


def test_losses_on_duals_slacks_and_data(monkeypatch, taken):
    layer, shapes = quadratic()
    params = sample(shapes, [(3,)] * 5)

    def gradients():
        data, cone = layer.parametric(layer.conditions(), params)
        of_cone = torch.autograd.grad((cone.y**2).sum() + (cone.s * cone.x.sum()).sum(), params, retain_graph=True)
        return *of_cone, *torch.autograd.grad((data[2] ** 2).sum() + cone.x.sum(), params)

    short = gradients()
    assert taken == [1, 1]  # what reaches the data goes step by step
    monkeypatch.setattr(compiled_chain, "_is_usual", lambda inputs: False)
    torch.testing.assert_close(short, gradients(), rtol=1e-10, atol=1e-10)


def test_higher_orders_and_transforms_pull_step_by_step(taken):
    layer, shapes = curved()
    params = sample(shapes, [()] * 3)

    def loss(c):
        return (layer(c, *params[1:])[0] ** 2).sum()

    (expected,) = torch.autograd.grad(loss(params[0]), params[0])
    taken[:] = [0, 0]
    torch.testing.assert_close(torch.func.jacrev(loss)(params[0].detach()), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.func.jacfwd(loss)(params[0].detach()), expected, rtol=1e-9, atol=1e-9)
    assert torch.autograd.gradgradcheck(loss, params[0])
    assert taken[1] == 0
    batch = torch.stack([params[0].detach()] * 2)
    torch.testing.assert_close(torch.vmap(torch.func.grad(loss))(batch), expected.expand(2, -1), rtol=1e-9, atol=1e-9)
    assert taken[1] == 0


def test_answers_may_be_written_on(taken):
    """They are not the tensors that derivatives are made from."""
    layer, shapes = quadratic()
    params = sample(shapes, [(3,)] * 5)
    x, _ = layer(*params)
    reference = torch.autograd.grad(2 * x.sum(), params, retain_graph=True)
    x.mul_(2.0)
    torch.testing.assert_close(torch.autograd.grad(x.sum(), params), reference)

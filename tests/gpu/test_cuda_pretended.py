"""Whole layers on a CUDA device that is pretended: nothing may be left on the CPU, few things wait for it."""

from __future__ import annotations

import cvxpy as cp
import pytest
import torch

pytest.importorskip("conelayers.native")

if torch.cuda.is_available():
    pytest.skip("a CUDA device is there, see test_cuda_device.py", allow_module_level=True)

from gpu import pretended  # noqa: E402
from gpu.emulated import Emulated  # noqa: E402
from gpu.pretended import CUDA, OnDevice  # noqa: E402

from conelayers import (  # noqa: E402
    Anderson,
    ConeLayer,
    CvxpyLayer,
    LeastSquares,
    Smoothed,
    extreme_jacobians,
    fixed_point,
    one_sided_derivative,
)
from conelayers.cones import SecondOrder, Zero  # noqa: E402
from conelayers.errors import InvalidArgument, SolveError  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def device(threads, monkeypatch):
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "1")
    with pretended.device(monkeypatch, Emulated({1: threads})) as device:
        yield device


def test_it_is_like_a_device(device):
    a = torch.ones(3, device="cuda")
    assert isinstance(a, OnDevice) and a.device == CUDA and (a + 1).is_cuda and not a.cpu().is_cuda
    for what in (lambda: a + torch.ones(3), lambda: a.index_copy(0, torch.tensor([1]), torch.ones(1, device=CUDA))):
        with pytest.raises(RuntimeError, match="same device"):
            what()
    with pytest.raises(TypeError, match="can't convert"):
        a.numpy()
    device.waited.clear()
    assert torch.as_tensor([1.0, 2.0], device=CUDA).is_cuda and torch.zeros(2, device=a.device).is_cuda
    assert a[torch.tensor([0, 1])].is_cuda and (a + torch.tensor(1.0)).is_cuda and not device.waited
    assert a[a > 0].sum().item() == 3.0 and a.cpu().tolist() == [1.0, 1.0, 1.0]
    assert len(device.waited) == 3
    b = a.clone().requires_grad_()
    (b * 2).sum().backward()
    assert b.grad.is_cuda


def curved():
    x, a, c = cp.Variable(5), cp.Parameter(5), cp.Parameter(5)
    objective = cp.sum_squares(x - a) + 0.3 * cp.norm(x, 2)
    return cp.Problem(cp.Minimize(objective), [c @ x == 1, x >= -0.2]), [a, c], [x]


def every_cone():
    x, a, c = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    X = cp.Variable((2, 2), symmetric=True)
    constraints = [X >> 0, X[0, 0] == x[0] + 2, X[0, 1] == x[1], cp.sum(cp.exp(x)) <= 9, cp.norm(x) <= 2, c @ x <= 1]
    constraints.append(cp.geo_mean(cp.hstack([x[2] + 3, 4 + x[0]]), [1, 2]) >= 0.1)
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a) + cp.sum_squares(X)), constraints), [a, c], [x, X]


def multipliers():
    x, a, c = cp.Variable(5), cp.Parameter(5), cp.Parameter(5)
    constraints = [c @ x == 1, x >= 0]
    return cp.Problem(cp.Minimize(cp.sum_squares(x - a)), constraints), [a, c], [x, constraints[1].dual_variables[0]]


PROBLEMS = {"curved": curved, "every cone": every_cone, "multipliers": multipliers}
MODES = {"exact": None, "smoothed": Smoothed(1e-2), "least squares": LeastSquares()}


def parameters(problem, device, batch=(3,)):
    generator = torch.Generator().manual_seed(0)
    shapes = [(*batch, *p.shape) for p in problem[1]]
    values = [torch.rand(s, generator=generator) + 0.5 for s in shapes]
    return [v.to(device).requires_grad_() for v in values]


def results(layer, values, second=True):
    """Outputs, gradients and second derivatives."""
    outputs = layer(*values)
    gradients = torch.autograd.grad(sum(o.square().sum() for o in outputs), values, create_graph=second)
    if not second:
        return [*outputs, *gradients]
    return [*outputs, *gradients, *torch.autograd.grad(sum(g.square().sum() for g in gradients), values)]


def compare(there, here):
    assert len(there) == len(here) > 0
    for ours, theirs in zip(there, here, strict=True):
        assert ours.is_cuda and not theirs.is_cuda
        assert torch.allclose(ours.detach().cpu(), theirs.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_derivatives(name, mode, device):
    problem = PROBLEMS[name]()
    layer = CvxpyLayer(*problem, derivative=MODES[mode])
    second = mode != "least squares"
    compare(*(results(layer, parameters(problem, d), second) for d in (CUDA, CPU)))


@pytest.mark.parametrize("batch", [(), (2, 2), (0,)])
def test_batches(batch, device):
    problem = curved()
    compare(*(results(CvxpyLayer(*problem), parameters(problem, d, batch)) for d in (CUDA, CPU)))


@pytest.mark.parametrize("solver", ["CLARABEL", "SCS", "DIFFCP", "CUDA"])
def test_solvers_of_the_cpu_give_back_what_they_were_given(solver, device):
    problem = curved()
    layer = CvxpyLayer(*problem, solver=solver)
    compare(results(layer, parameters(problem, CUDA)), results(CvxpyLayer(*problem), parameters(problem, CPU)))


def test_transforms(device):
    layer = CvxpyLayer(*curved())

    def all_of_them(where):
        a, c = (v.detach() for v in parameters(curved(), where))
        jacobian = torch.func.jacrev(lambda a: layer(a, c[0])[0])(a[0])
        tangent = torch.func.jvp(lambda a: layer(a, c)[0], (a,), (c,))[1]
        return [jacobian, tangent, torch.func.vmap(lambda a: layer(a, c[0])[0])(a)]

    compare(all_of_them(CUDA), all_of_them(CPU))


def test_a_pass_waits_seldom(device):
    problem = curved()
    layer, values = CvxpyLayer(*problem), parameters(problem, CUDA)
    device.waited.clear()
    (x,) = layer(*values)
    assert len(device.waited) <= 4  # have all been solved, and how well?
    device.waited.clear()
    x.square().sum().backward()
    assert len(device.waited) <= 2


def test_single_precision(device):
    values = [v.detach().float().requires_grad_() for v in parameters(curved(), CUDA)]
    (x,) = CvxpyLayer(*curved())(*values)
    x.sum().backward()
    assert {t.dtype for t in (x, values[0].grad, values[1].grad)} == {torch.float32}


def test_tensors_of_two_devices(device):
    layer = CvxpyLayer(*curved())
    first, second = parameters(curved(), CUDA)[0], parameters(curved(), CPU)[1]
    with pytest.raises(InvalidArgument, match="All tensors must be on one device, got .'cpu', 'cuda:0'"):
        layer(first, second)


def test_items_without_a_solution(device):
    x, b = cp.Variable(1), cp.Parameter(2)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x)), [x >= b[0], x <= b[1]]), [b], [x]
    values = torch.tensor([[0.5, 1.0], [1.0, 0.0]], device=CUDA, requires_grad=True)
    (found,) = CvxpyLayer(*problem, on_failure="nan")(values)
    found.nansum().backward()
    assert found.isnan()[:, 0].tolist() == [False, True]
    assert torch.allclose(values.grad.cpu(), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), atol=1e-9)
    with pytest.raises(SolveError, match="1 of 2 batch items .1: PRIMAL_INFEASIBLE"):
        CvxpyLayer(*problem)(values)


def test_kinks(device):
    x, a = cp.Variable(2), cp.Parameter(2)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x >= 0]), [a], [x], regularity="warn")
    at, ahead = (torch.tensor(v, device=CUDA) for v in ([0.0, 1.0], [-1.0, 1.0]))
    (moved,) = one_sided_derivative(layer, [at], [ahead])
    assert moved.is_cuda and moved.cpu().tolist() == pytest.approx([0.0, 1.0])
    found = extreme_jacobians(layer, at)
    assert {t.is_cuda for t in (found.jacobians[0][0], found.invertible, found.active)} == {True}
    assert found.active.cpu().tolist() == [[False], [True]]
    report = layer.solve(at[None]).regularity(1e-6)
    assert "Regular" in str(report)


def test_cone_layer(device):
    layer = ConeLayer([Zero(1), SecondOrder(3)], torch.ones(4, 3), torch.eye(3))
    generator = torch.Generator().manual_seed(0)
    P, A = torch.eye(3), torch.randn(4, 3, generator=generator)
    b, q = A.sum(-1) + torch.tensor([0.0, 5.0, 0.1, 0.2]), torch.randn(2, 3, 3, generator=generator)

    def solved(where):
        values = [v.to(where).requires_grad_() for v in (P, q, A, b)]
        found = layer(*values)
        return [found.x, found.y, *torch.autograd.grad(found.x.square().sum() + found.y.square().sum(), values)]

    compare(solved(CUDA), solved(CPU))


def test_fixed_points(device):
    generator = torch.Generator().manual_seed(0)
    weights, inputs = torch.randn(5, 5, generator=generator) / 6, torch.randn(8, 5, generator=generator)

    def solved(where):
        W, x = weights.to(where).requires_grad_(), inputs.to(where)
        z = fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros(8, 5, device=where), solver=Anderson())
        return [z, *torch.autograd.grad(z.square().sum(), W)]

    compare(solved(CUDA), solved(CPU))

"""Solvers against fixed points known from dense linear algebra, per-item convergence, freezing, status, trace."""

import dataclasses
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.fixed_points.iterations import (
    Anderson,
    Broyden,
    FixedPointStatus,
    ForwardBackward,
    NewtonKrylov,
    PeacemanRachford,
    Picard,
    search_step,
)

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]
GENERIC = [Picard(max_steps=5000), Picard(damping=0.7, max_steps=5000), Anderson(), Broyden(), NewtonKrylov()]
GENERIC += [Anderson(plain_below=0.0), Anderson(mixing=0.5)]


def linear_problem(n=12, batch=5, radius=0.9, scale=1.0, device="cpu", dtype=torch.float64):
    gen = torch.Generator().manual_seed(n)
    W = torch.randn(n, n, generator=gen, dtype=torch.float64)
    W = W * radius / torch.linalg.matrix_norm(W, ord=2)
    b = torch.randn(batch, n, generator=gen, dtype=torch.float64) * scale
    exact = torch.linalg.solve(torch.eye(n, dtype=W.dtype) - W, b.T).T
    return W.to(device, dtype), b.to(device, dtype), exact.to(device, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("solver", GENERIC, ids=repr)
def test_linear_fixed_point(solver, device):
    W, b, exact = linear_problem(device=device)
    solver = dataclasses.replace(solver, atol=1e-12, rtol=1e-13)
    result = solver.run(lambda z: z @ W.T + b, torch.zeros_like(b))
    assert result.converged.all()
    assert (result.value - exact).abs().max() < 1e-10
    measured = torch.linalg.vector_norm(result.value @ W.T + b - result.value, dim=-1)
    assert torch.allclose(result.residual, measured, rtol=1e-6, atol=1e-15)


@settings(max_examples=25, deadline=None)
@given(scale=st.sampled_from([1e-8, 1e-3, 1.0, 1e4, 1e8]), radius=st.sampled_from([0.1, 0.6, 0.95]))
def test_relative_tolerance_at_all_scales(scale, radius):
    W, b, exact = linear_problem(radius=radius, scale=scale)
    for solver in (Anderson(atol=0, rtol=1e-12), Broyden(atol=0, rtol=1e-12), NewtonKrylov(atol=0, rtol=1e-12)):
        result = solver.run(lambda z: z @ W.T + b, torch.zeros_like(b))
        assert result.converged.all()
        assert (result.value - exact).abs().max() <= 1e-10 * exact.abs().max()


def test_anderson_needs_few_steps_where_picard_needs_hundreds():
    S = torch.randn(60, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    S = S @ S.T
    S = 0.98 * S / torch.linalg.matrix_norm(S, ord=2)
    b = torch.ones(3, 60, dtype=torch.float64)

    def f(z):
        return z @ S + b

    slow = Picard(max_steps=3000).run(f, torch.zeros_like(b))
    fast = Anderson().run(f, torch.zeros_like(b))
    assert slow.converged.all() and fast.converged.all()
    assert slow.iterations.min() > 400 and fast.iterations.max() < 120


@pytest.mark.parametrize("solver", GENERIC, ids=repr)
@pytest.mark.parametrize("check_every", [None, 7])
def test_items_converge_by_themselves_and_freeze(solver, check_every):
    """An item's result must not depend on slower neighbours, and must not move after it has converged."""
    rates = torch.tensor([[0.0], [0.3], [0.6], [0.69]], dtype=torch.float64)
    seen = []

    def f(z):
        seen.append(z.detach().clone())
        return rates * (z + 0.4 * torch.sin(z)) + 1

    solver = dataclasses.replace(solver, check_every=check_every)
    start = torch.zeros(4, 1, dtype=torch.float64)
    result = solver.run(f, start, trace=True)
    assert result.converged.all()
    assert result.iterations[0] < result.iterations[-1]
    frozen = {float(z[0]) for z in seen[int(result.iterations[0]) + 1 :]}
    assert len(frozen) == 1 or isinstance(solver, NewtonKrylov)  # Newton's tape and line search evaluate elsewhere too
    for item in range(4):
        rate = rates[item : item + 1]
        alone = solver.run(lambda z, rate=rate: rate * (z + 0.4 * torch.sin(z)) + 1, start[item : item + 1])
        assert (alone.value - result.value[item]).abs().max() < 1e-9 / (1 - 1.4 * float(rate))
    assert result.trace.shape[1] == 4
    assert torch.equal(result.trace[-1], result.residual)


def test_status_of_unconverged_and_diverging_items():
    factor = torch.tensor([[0.5], [0.999], [1e200]], dtype=torch.float64)
    result = Picard(max_steps=30).run(lambda z: factor * z + 1, torch.zeros(3, 1, dtype=torch.float64), trace=True)
    assert result.status.tolist()[1:] == [FixedPointStatus.MAX_STEPS, FixedPointStatus.DIVERGED]
    assert torch.isfinite(result.value).all()
    result = Picard(max_steps=60).run(lambda z: factor * z + 1, torch.zeros(3, 1, dtype=torch.float64), trace=True)
    assert result.status[0] == FixedPointStatus.CONVERGED


def test_best_iterate_is_returned():
    """The residual of the value is the smallest of the trace, also for iterations that are not monotone."""
    W, b, _ = linear_problem(radius=3.0)
    result = Anderson(max_steps=6, restart=1e9).run(lambda z: torch.sin(z @ W.T) + b, torch.zeros_like(b), trace=True)
    assert torch.equal(result.residual, result.trace.amin(0))


def test_single_precision_stops_at_rounding():
    W, b, exact = linear_problem(dtype=torch.float32, radius=0.6)
    for solver in (Picard(), Anderson(), Broyden(), NewtonKrylov()):
        result = solver.run(lambda z: z @ W.T + b, torch.zeros_like(b))
        assert result.value.dtype == torch.float32
        assert (result.value - exact).abs().max() < 1e-4
        assert result.iterations.max() < 200


def test_newton_is_superlinear_and_semismooth():
    gen = torch.Generator().manual_seed(0)
    W = torch.randn(30, 30, generator=gen, dtype=torch.float64)
    W = 0.95 * W / torch.linalg.matrix_norm(W, ord=2)
    b = torch.randn(4, 30, generator=gen, dtype=torch.float64)
    result = NewtonKrylov(atol=1e-13, rtol=0).run(lambda z: torch.relu(z @ W.T + b), torch.zeros_like(b))
    assert result.converged.all()
    assert result.iterations.max() <= 12


class Splitting:
    """relu splitting of z = relu(W z + b) with bound parameters."""

    def __init__(self, W, b):
        self.W, self.b, self.splitting = W, b, self

    def __call__(self, z):
        return torch.relu(z @ self.W.T + self.b)

    def operator(self, z):
        return z - z @ self.W.T - self.b

    def prox(self, v, alpha):
        return torch.relu(v)

    def resolvent(self, alpha):
        inverse = torch.linalg.inv((1 + alpha) * torch.eye(len(self.W), dtype=self.W.dtype) - alpha * self.W)
        return lambda v: (v + alpha * self.b) @ inverse.T


def monotone_problem(n=15):
    gen = torch.Generator().manual_seed(3)
    A = torch.randn(n, n, generator=gen, dtype=torch.float64) * 0.2
    B = torch.randn(n, n, generator=gen, dtype=torch.float64) * 0.2
    W = 0.8 * torch.eye(n, dtype=torch.float64) - A.T @ A + B - B.T
    return Splitting(W, torch.randn(4, n, generator=gen, dtype=torch.float64))


@pytest.mark.parametrize("solver", [ForwardBackward(alpha=0.1, max_steps=3000), PeacemanRachford(alpha=1.0)], ids=repr)
def test_splitting_finds_the_equilibrium(solver):
    f = monotone_problem()
    result = solver.run(f, torch.zeros_like(f.b))
    newton = NewtonKrylov(atol=1e-13, rtol=0).run(f, torch.zeros_like(f.b))
    assert result.converged.all() and newton.converged.all()
    assert (result.value - newton.value).abs().max() < 1e-8
    # A fixed point is a fixed point of the splitting too: a warm start takes at most a few steps.
    assert solver.run(f, newton.value).iterations.max() <= 1


def test_step_search_keeps_the_best_step():
    f = monotone_problem()
    tuned = search_step(PeacemanRachford(alpha=1e-3), f, torch.zeros_like(f.b))
    assert tuned.alpha > 1e-3
    steps = {a: PeacemanRachford(alpha=a).run(f, torch.zeros_like(f.b)).iterations.max() for a in (1e-3, tuned.alpha)}
    assert steps[tuned.alpha] < steps[1e-3]


def test_splitting_solvers_need_a_splitting():
    with pytest.raises(UnsupportedError, match="MonotoneSplitting"):
        PeacemanRachford().run(lambda z: z / 2, torch.zeros(1, 1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Picard(damping=0.0),
        lambda: Anderson(memory=0),
        lambda: Broyden(memory=0),
        lambda: Anderson(atol=-1.0),
        lambda: NewtonKrylov(forcing=2.0),
        lambda: ForwardBackward(alpha=0.0),
        lambda: Picard(check_every=0),
        lambda: Picard().run(lambda z: z, torch.zeros(3)),
    ],
)
def test_invalid_settings(make):
    with pytest.raises(InvalidArgument):
        make()


@pytest.mark.parametrize("solver", [*GENERIC, ForwardBackward(), PeacemanRachford()], ids=repr)
def test_solvers_are_values(solver):
    assert pickle.loads(pickle.dumps(solver)) == solver
    assert hash(solver) == hash(dataclasses.replace(solver))

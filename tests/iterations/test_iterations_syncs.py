"""No loop asks the device more than once in a few steps: counted as reads of a scalar by the host, on any device."""

import dataclasses

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from conelayers.fixed_points.iterations import (
    Anderson,
    Broyden,
    ForwardBackward,
    NewtonKrylov,
    PeacemanRachford,
    Picard,
)
from conelayers.linalg import CG, GMRES, LSMR, MINRES, BiCGSTAB, DenseOperator, IdentityMinus, Neumann, NeumannGMRES

READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select"}


class Reads(TorchDispatchMode):
    """Counts what would make the host wait for a device, and the products of f with its matrix."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.count = self.products = 0
        tolist = torch.Tensor.tolist

        def counted(tensor):  # one transfer, which no dispatched operation shows on the CPU
            self.count += 1
            return tolist(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", counted)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.count += name in READS
        self.products += name == "mm"
        return func(*args, **(kwargs or {}))


class Splitting:
    """relu splitting of z = relu(W z + b), which counts its evaluations."""

    def __init__(self):
        generator = torch.Generator().manual_seed(3)
        A, B = 0.2 * torch.randn(2, 15, 15, generator=generator, dtype=torch.float64)
        self.W = 0.8 * torch.eye(15, dtype=torch.float64) - A.T @ A + B - B.T
        self.b = torch.randn(4, 15, generator=generator, dtype=torch.float64)
        self.calls, self.splitting = 0, self

    def __call__(self, z):
        self.calls += 1
        return torch.relu(z @ self.W.T + self.b)

    def operator(self, z):
        self.calls += 1
        return z - z @ self.W.T - self.b

    def prox(self, v, alpha):
        return torch.relu(v)

    def resolvent(self, alpha):
        inverse = torch.linalg.inv((1 + alpha) * torch.eye(15, dtype=self.W.dtype) - alpha * self.W)
        return lambda v: (v + alpha * self.b) @ inverse.T


SOLVERS = [Picard(), Anderson(), Anderson(mixing=0.5), Broyden(), ForwardBackward(alpha=0.1), PeacemanRachford()]


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_iterations_ask_once_in_check_every_steps(solver, monkeypatch):
    counts = []
    for every in (4, 8):
        f = Splitting()
        run = dataclasses.replace(solver, check_every=every, max_steps=64, atol=0, rtol=0)
        with Reads(monkeypatch) as reads:
            run.run(f, torch.zeros(4, 15, dtype=torch.float64))
        assert f.calls >= 64 or reads.count < 64 // every  # converged to the last digit before
        assert reads.count <= 64 // every + 2
        counts.append(reads.count)
    assert counts[1] < counts[0]


def test_newton_asks_less_often_than_it_takes_products(monkeypatch):
    f = Splitting()
    solver = NewtonKrylov(check_every=8, atol=1e-10, rtol=0)
    with Reads(monkeypatch) as reads:
        result = solver.run(f, torch.zeros(4, 15, dtype=torch.float64))
    assert result.converged.all()
    assert reads.count <= reads.products / 2


@pytest.mark.parametrize("solver", [GMRES(), BiCGSTAB(), CG(), MINRES(), LSMR(), Neumann()], ids=repr)
def test_krylov_solvers_ask_once_in_check_every_iterations(solver, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    M = torch.randn(80, 80, generator=generator, dtype=torch.float64)
    M = 0.95 * (M + M.T) / torch.linalg.matrix_norm(M + M.T, ord=2)
    operator, rhs = DenseOperator(torch.eye(80, dtype=torch.float64) - M), torch.ones(3, 80, dtype=torch.float64)
    for every in (1, 5, 10):
        run = dataclasses.replace(solver, check_every=every, max_iterations=400)
        with Reads(monkeypatch) as reads:
            _, info = run.solve(run.init(operator), rhs)
        assert info.residual.max() < 1e-9
        steps = int(info.iterations.max())
        assert steps > 20
        assert reads.count <= steps / every + 8  # the passes and the last question


def test_adjoint_solves_ask_once_in_a_few_products(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(30, 30, generator=generator, dtype=torch.float64)
    J = 0.3 * J / torch.linalg.matrix_norm(J, ord=2)
    operator = IdentityMinus(lambda t: t @ J.T, lambda u: u @ J, 30)
    rhs = torch.ones(2, 30, dtype=torch.float64)
    solver = NeumannGMRES(check_every=5)
    with Reads(monkeypatch) as reads:
        x, _ = solver.solve(solver.init(operator), rhs)
    assert reads.products >= 10 and reads.count <= reads.products / 5 + 1
    assert (x - x @ J.T - 1).abs().max() < 1e-9
    with Reads(monkeypatch) as reads:
        found = Picard(check_every=8).run(lambda z: z @ J.T + rhs, torch.zeros_like(rhs))
    assert reads.products >= 16 and reads.count <= reads.products / 8 + 1
    assert (found.value - x).abs().max() < 1e-9

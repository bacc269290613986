"""Half precision and autocast: the map computes in half, the solver in float32, and models train."""

import warnings

import pytest
import torch
from torch import nn

from conelayers import (
    DEQ,
    Anderson,
    Broyden,
    ImplicitModel,
    MonotoneConvDEQ,
    MonotoneDEQ,
    NewtonKrylov,
    Picard,
    fixed_point,
)
from conelayers.errors import InaccurateWarning

HALF = [torch.float16, torch.bfloat16]


class Cell(nn.Module):
    def __init__(self, n=6):
        super().__init__()
        self.W, self.U = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, z, x):
        return torch.tanh(0.5 * self.W(z) + self.U(x))


MODELS = {
    "deq": (lambda: DEQ(Cell()), (16, 6)),
    "deq newton": (lambda: DEQ(Cell(), solver=NewtonKrylov(atol=1e-6, rtol=1e-6)), (16, 6)),
    "deq broyden": (lambda: DEQ(Cell(), solver=Broyden(atol=1e-6, rtol=1e-6)), (16, 6)),
    "deq bounded": (lambda: DEQ(Cell(), spectral_norm=0.9), (16, 6)),
    "monotone": (lambda: MonotoneDEQ(6, 8), (16, 6)),
    "monotone by anderson": (lambda: MonotoneDEQ(6, 8, solver=Anderson(atol=1e-6, rtol=1e-6)), (16, 6)),
    "convolutional": (lambda: MonotoneConvDEQ(2, 3, (5, 5)), (8, 2, 5, 5)),
    "implicit model": (lambda: ImplicitModel(6, 8, 3), (16, 6)),
}


def slopes(model, x, autocast):
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        z = model(x)
        loss = z.float().square().mean()
    return float(loss.detach()), torch.autograd.grad(loss, [x, *model.parameters()])


@pytest.mark.parametrize("name", MODELS)
def test_models_train_under_autocast(name):
    make, shape = MODELS[name]
    model, x = make().float(), torch.randn(*shape, dtype=torch.float32, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InaccurateWarning)
        value, found = slopes(model, x, True)
    reference, expected = slopes(model, x, False)
    assert abs(value - reference) < 0.03 * reference
    size = max(float(g.norm()) for g in expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32 and (a - b).norm() < 0.1 * b.norm() + 0.01 * size
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(5):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            model(x.detach()).float().square().mean().backward()
        optimizer.step()
    assert slopes(model, x, True)[0] < 0.95 * value


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden(), NewtonKrylov()], ids=repr)
@pytest.mark.parametrize("dtype", HALF)
def test_every_solver_in_half_precision(solver, dtype):
    W = (0.3 * torch.randn(6, 6, dtype=torch.float64)).to(dtype).requires_grad_()
    x = torch.randn(4, 6, dtype=torch.float64).to(dtype).requires_grad_()

    def solve(W, x, solver):
        return fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros_like(x), solver=solver, return_info=True)

    with warnings.catch_warnings():
        warnings.simplefilter("error", InaccurateWarning)
        z, info = solve(W, x, solver)
        found = torch.autograd.grad(z.float().square().sum(), (W, x))
    assert z.dtype == dtype and info.converged.all() and info.residual.dtype == torch.float32
    exact = [t.detach().double().requires_grad_() for t in (W, x)]
    reference, _ = solve(*exact, Anderson())
    eps = torch.finfo(dtype).eps
    assert (z.double() - reference).norm() < 8 * eps * reference.norm()
    for a, b in zip(found, torch.autograd.grad(reference.square().sum(), exact), strict=True):
        assert a.dtype == dtype and (a.double() - b).norm() < 16 * eps * b.norm()


@pytest.mark.parametrize("solver", [Anderson(), NewtonKrylov()], ids=repr)
@pytest.mark.parametrize("dtype", HALF)
def test_solvers_alone_take_half_precision(solver, dtype):
    result = solver.run(lambda z: torch.cos(z) / 2 + 1, torch.zeros(3, 4, dtype=dtype))
    assert result.value.dtype == dtype and result.converged.all()
    assert (torch.cos(result.value.double()) / 2 + 1 - result.value).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("first", [torch.float32, torch.float64])
def test_warm_starts_follow_the_model_s_dtype(first):
    second = torch.float64 if first == torch.float32 else torch.float32
    model, x = DEQ(Cell(), warm_start=True).to(first), torch.randn(4, 6)
    model(x.to(first))
    z, info = model.to(second)(x.to(second), return_info=True)
    assert z.dtype == second and info.iterations.max() <= 3


def test_warm_starts_survive_inference_mode_and_transforms():
    model, x = DEQ(Cell(), warm_start=True), torch.randn(4, 6)
    with torch.inference_mode():
        model(x)
    z, info = model(x, return_info=True)
    assert info.iterations.max() == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(z.sum(), list(model.parameters())))
    kept = model.state
    torch.func.vmap(model)(x)
    torch.func.grad(lambda x: model(x).sum())(x)
    assert model.state is kept

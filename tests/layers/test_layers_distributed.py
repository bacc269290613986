"""A layer under distributed data parallel training: two processes on the CPU, one gradient."""

from __future__ import annotations

import os

import cvxpy as cp
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from conelayers import CvxpyLayer

pytestmark = pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="torch without gloo")

WORLD, ITEMS = 2, 6


class Network(nn.Module):
    """A linear map, a projection onto a simplex with learned costs, and a linear map again."""

    def __init__(self):
        super().__init__()
        x, target = cp.Variable(4), cp.Parameter(4)
        scale = cp.Parameter(4, nonneg=True)
        objective = cp.sum_squares(x - target) + 0.1 * cp.sum(cp.multiply(scale, cp.abs(x)))
        problem = cp.Problem(cp.Minimize(objective), [cp.sum(x) == 1, cp.norm(x) <= 2])
        self.layer = CvxpyLayer(problem, [target, scale], [x], solver_args={"threads": 1})
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 4))

    def forward(self, inputs):
        (solution,) = self.layer(self.first(inputs), self.scale)
        return self.last(solution)


def network():
    torch.manual_seed(0)
    return Network()


def data():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(ITEMS, 3, generator=generator), torch.randn(ITEMS, 2, generator=generator)


def loss(model, inputs, targets):
    return (model(inputs) - targets).square().sum(-1).mean()


def steps(model, inputs, targets):
    """Two steps of gradient descent; the gradients of both."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        loss(model, inputs, targets).backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
        optimizer.step()
    return found


def train(rank, store, results):
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    inputs, targets = data()
    mine = slice(rank * ITEMS // WORLD, (rank + 1) * ITEMS // WORLD)
    model = nn.parallel.DistributedDataParallel(network())
    torch.save(steps(model, inputs[mine], targets[mine]), f"{results}/{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # threads of other libraries may still run when an interpreter is torn down, and abort it


def test_gradients_are_those_of_one_process(tmp_path):
    mp.spawn(train, (tmp_path / "store", tmp_path), nprocs=WORLD)
    expected = steps(network(), *data())
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    for step in range(2):
        for ours, theirs, single in zip(found[0][step], found[1][step], expected[step], strict=True):
            assert torch.equal(ours, theirs)
            assert single.abs().max() > 0
            assert torch.allclose(ours, single, rtol=1e-10, atol=1e-12)

"""The real thing on a CUDA device, against the engine of the CPU."""

from __future__ import annotations

import threading

import cvxpy as cp
import numpy as np
import pytest
import torch

pytest.importorskip("conelayers.native")

from gpu.test_cuda_emulated import CONES, family  # noqa: E402

import conelayers.native.cuda.kernels as kernels  # noqa: E402
from conelayers import CvxpyLayer, Smoothed  # noqa: E402
from conelayers.backends import Batched  # noqa: E402
from conelayers.native import Differentiator, Engine  # noqa: E402
from conelayers.native.cuda import DeviceDifferentiator, DeviceEngine, unavailable  # noqa: E402
from conelayers.native.cuda.plan import Plan  # noqa: E402

DEVICE = torch.device("cuda", 0)
REASON = unavailable(DEVICE)
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(REASON is not None, reason=f"no device: {REASON}")]


def there(*arrays):
    return [torch.as_tensor(np.ascontiguousarray(a), device=DEVICE) for a in arrays]


def close(ours, theirs, tolerance=1e-9):
    theirs = torch.as_tensor(theirs)
    scale = max(1.0, theirs.abs().max().item()) if theirs.numel() else 1.0
    return bool(((ours.cpu() - theirs).abs() <= tolerance * scale).all())


@pytest.fixture(params=["1", "32"])
def team(request, monkeypatch):
    """Threads per problem."""
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", request.param)


@pytest.mark.parametrize("name", list(CONES))
@pytest.mark.parametrize("items", [1, 33, 4096])
def test_kernels_agree_with_the_cpu(name, items, team):
    batch, structure = family(CONES[name], min(items, 128))
    data = [np.tile(v, (-(-items // len(v)), 1))[:items] for v in (batch.P, batch.q, batch.A, batch.b)]
    engine, differentiator = DeviceEngine(*structure, device=DEVICE), DeviceDifferentiator(*structure, device=DEVICE)
    found = engine.solve(*there(*data), items, differentiator=differentiator)
    expected = Engine(*structure).solve(*data, items, differentiator=Differentiator(*structure))
    assert np.array_equal(found["status"].cpu().numpy(), expected["status"])
    assert close(found["x"], expected["x"], 1e-7)
    for residual in ("primal_residual", "dual_residual", "gap"):
        assert found[residual].max().item() < 1e-9, residual
    start = [expected[k] for k in ("x", "y", "s")]
    polished = differentiator.polish(*there(*data, *start), steps=6, target=1e-12)
    on_cpu = Differentiator(*structure).polish(*data, *start, steps=6, target=1e-12)
    assert all(close(a, b) for a, b in zip(polished[:3], on_cpu[:3], strict=True))
    point = on_cpu[:3]
    cotangents = [np.random.default_rng(1).standard_normal(p.shape) for p in point]
    gradients = differentiator.pullback(*there(data[0], data[2], *point, *cotangents))
    theirs = Differentiator(*structure).pullback(data[0], data[2], *point, *cotangents)
    solvable = torch.as_tensor(theirs["residual"] < 1e-9)
    for key in ("dP", "dq", "dA", "db"):
        assert close(gradients[key][solvable.to(DEVICE)], torch.as_tensor(theirs[key])[solvable]), key


def problem():
    x, a, c = cp.Variable(5), cp.Parameter(5), cp.Parameter(5)
    objective = cp.sum_squares(x - a) + 0.3 * cp.norm(x, 2)
    return cp.Problem(cp.Minimize(objective), [c @ x == 1, x >= -0.2]), [a, c], [x]


def parameters(items=64, device=DEVICE):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(items, 5, generator=generator)
    c = torch.rand(items, 5, generator=generator) + 0.5
    return [v.to(device).requires_grad_() for v in (a, c)]


def derivatives(layer, a, c):
    (x,) = layer(a, c)
    grads = torch.autograd.grad(x.square().sum(), (a, c), create_graph=True)
    return (x, *grads, *torch.autograd.grad(sum(g.square().sum() for g in grads), (a, c)))


@pytest.mark.parametrize("derivative", [None, Smoothed(1e-2)])
def test_layer_stays_on_the_device(derivative, team):
    layer = CvxpyLayer(*problem(), derivative=derivative)
    on_device, on_cpu = (derivatives(layer, *parameters(device=d)) for d in (DEVICE, torch.device("cpu")))
    for ours, theirs in zip(on_device, on_cpu, strict=True):
        assert ours.device == DEVICE and close(ours.detach(), theirs.detach(), 1e-8)


def test_named_backend_and_cpu_on_request():
    values = [CvxpyLayer(*problem(), solver=s)(*parameters())[0] for s in ("CUDA", "BATCHED", Batched(device="cpu"))]
    assert all(v.device == DEVICE and close(v.detach(), values[0].detach().cpu(), 1e-8) for v in values)


@pytest.mark.parametrize("name", ["bordered", "every"])
def test_tables_in_shared_memory(name, monkeypatch):
    """The same bits whether a problem's table is there or in the device's memory."""
    batch, structure = family(CONES[name], 128)
    engine, data = DeviceEngine(*structure, device=DEVICE), there(batch.P, batch.q, batch.A, batch.b)
    found = []
    for shared in (True, False):
        monkeypatch.setattr(kernels, "plan", lambda items, table, *_, shared=shared: Plan(32, 8 * table * shared))
        found.append(engine.solve(*data, 128))
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_no_synchronisation_inside_the_kernels(team):
    batch, structure = family(CONES["every"], 64)
    engine, data = DeviceEngine(*structure, device=DEVICE), there(batch.P, batch.q, batch.A, batch.b)
    engine.solve(*data, 64)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.solve(*data, 64)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_streams():
    """Launches go to the current stream: results on side streams, computed at once, are those of the default stream."""
    batch, structure = family(CONES["soc"], 128)
    engine, data = DeviceEngine(*structure, device=DEVICE), there(batch.P, batch.q, batch.A, batch.b)
    expected = engine.solve(*data, 128)["x"].clone()
    streams = [torch.cuda.Stream() for _ in range(4)]
    found = []
    for stream in streams:
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            shifted = [d + 0.0 for d in data]  # made on this stream just before: the kernel must wait for it
            found.append(engine.solve(*shifted, 128)["x"])
    torch.cuda.synchronize()
    assert all(torch.equal(x, expected) for x in found)


def test_threads():
    layer = CvxpyLayer(*problem())
    expected, results = layer(*parameters())[0].detach(), {}

    def work(i):
        results[i] = layer(*parameters())[0].detach()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert all(close(results[i], expected.cpu(), 1e-12) for i in range(4))  # sparse products of torch's may vary


def test_a_thread_that_has_not_used_the_device():
    """Nor has the thread of the backward pass, if this layer's is its first kernel: the driver's context is not set."""
    batch, structure = family(CONES["qp"], 64)
    differentiator, (v,) = DeviceDifferentiator(*structure, device=DEVICE), there(batch.b)
    expected, found = differentiator.project_dual(v).clone(), []
    thread = threading.Thread(target=lambda: found.append(differentiator.project_dual(v)))
    thread.start(), thread.join()
    assert torch.equal(found[0], expected)


@pytest.mark.parametrize("items", [1, 2, 31, 32, 33, 63, 127, 1000, 4096])
def test_every_batch_size(items, team):
    batch, structure = family(CONES["qp"], 128)
    engine = DeviceEngine(*structure, device=DEVICE)
    order = np.arange(items) % 128
    found = engine.solve(*there(*(v[order] for v in (batch.P, batch.q, batch.A, batch.b))), items)
    whole = engine.solve(*there(batch.P, batch.q, batch.A, batch.b), 128)
    for key in ("x", "y", "s", "status", "iterations"):
        assert torch.equal(found[key], whole[key][torch.as_tensor(order, device=DEVICE)]), key


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one device")
def test_two_devices():
    layer = CvxpyLayer(*problem())
    first, second = (derivatives(layer, *parameters(device=torch.device("cuda", i))) for i in (0, 1))
    for a, b in zip(first, second, strict=True):
        assert b.device.index == 1 and close(a.detach(), b.detach().cpu(), 1e-12)

"""The GPU kernels, compiled by the host's compiler with the GPU's array layout, against the engine of the CPU."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

pytest.importorskip("conelayers.native")

from native.native_programmes import as_int64, cone_arrays, random_batch  # noqa: E402

import conelayers.native.cuda.kernels as kernels  # noqa: E402
from conelayers import ConeLayer, CvxpyLayer, Smoothed  # noqa: E402
from conelayers.backends import Batched, Cuda  # noqa: E402
from conelayers.cones import Nonnegative, ProductCone, SecondOrder, Zero  # noqa: E402
from conelayers.native import Differentiator, Engine  # noqa: E402
from conelayers.native.cuda import DeviceDifferentiator, DeviceEngine  # noqa: E402
from conelayers.program import ConeProgram, ConeStructure, Status  # noqa: E402
from conelayers.program.compiled import device_differentiator  # noqa: E402

CPU = torch.device("cpu")
CONES = {
    "qp": [("z", 5), ("l", 20)],
    "none": [],
    "soc": [("q", 4), ("q", 1), ("l", 3), ("q", 7)],
    "bordered": [("q", 14), ("l", 2), ("q", 20)],
    "psd": [("s", 3), ("q", 4), ("s", 1)],
    "exp": [("e", 0), ("de", 0), ("l", 4)],
    "power": [("p", 0.3), ("dp", 0.6), ("p", 0.5)],
    "every": [("z", 2), ("l", 6), ("q", 5), ("s", 4), ("e", 0), ("de", 0), ("p", 0.3), ("dp", 0.6)],
}
SYMMETRIC_BITS = {"q": 2, "s": 3, "e": 4, "de": 5, "p": 6, "dp": 7}


def family(cones, items=70, seed=0):
    rows = sum({"s": s * (s + 1) // 2 if k == "s" else s}.get(k, s if k in "zlq" else 3) for k, s in cones)
    batch = random_batch(np.random.default_rng(seed), max(4, (2 * rows) // 3), cones, items).strengthened()
    m, n = batch.A_pattern.shape
    patterns = (as_int64(v) for M in (batch.P_pattern, batch.A_pattern) for v in (M.indptr, M.indices))
    return batch, (n, m, *patterns, *cone_arrays(cones))


def tensors(*arrays):
    return tuple(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays)


def every_result(name, on_cpu, items=70):
    """Solutions, polished solutions, gradients, derivatives and projections of a family, as arrays by name."""
    batch, structure = family(CONES[name], items)
    data = (batch.P, batch.q, batch.A, batch.b)
    if on_cpu:
        engine, differentiator, wrap = Engine(*structure), Differentiator(*structure), lambda *a: a
    else:
        engine, differentiator = DeviceEngine(*structure, device=CPU), DeviceDifferentiator(*structure, device=CPU)
        wrap = tensors
    out = {f"solve {k}": v for k, v in engine.solve(*wrap(*data), items, differentiator=differentiator).items()}
    out |= {f"plain {k}": v for k, v in engine.solve(*wrap(*data), items).items()}
    start = [np.asarray(Engine(*structure).solve(*data, items)[k]) for k in ("x", "y", "s")]
    polished = differentiator.polish(*wrap(*data, *start), steps=6, target=1e-12)
    out.update({f"polish {k}": v for k, v in enumerate(polished)})
    point = Differentiator(*structure).polish(*data, *start, steps=6, target=1e-12)[:3]  # the same for both
    rng = np.random.default_rng(3)
    cotangents = [rng.standard_normal(p.shape) for p in point]
    (direction,) = wrap(rng.standard_normal((1, sum(value.shape[1] for value in data))))
    pulled = differentiator.pullback(*wrap(batch.P, batch.A, *point, *cotangents), direction=direction)
    out.update({f"pullback {k}": v for k, v in pulled.items()})
    n, m = structure[:2]
    v, r1, r2 = point[1] - point[2], rng.standard_normal((items, 3, n)), rng.standard_normal((items, 3, m))
    for mu in (0.0, 0.1):
        found = differentiator.derivative(*wrap(batch.P, batch.A, v, r1, r2), mu)
        out.update({f"derivative {mu} {k}": value for k, value in enumerate(found)})
        out[f"apply {mu}"] = differentiator.apply_D(*wrap(v, r2), mu)
        out[f"project {mu}"] = differentiator.project_dual(*wrap(v), mu)
    found = differentiator.probe(*wrap(batch.P, batch.A, point[1], point[2], rng.standard_normal(n + m)), 0.0)
    out.update(zip(("probe length", "probe residual"), found, strict=True))
    return {k: np.asarray(value) for k, value in out.items() if not k.endswith(("worst", "moved"))}  # the CPU's summary


@pytest.mark.parametrize("name", list(CONES))
def test_kernels_agree_with_the_cpu(name, emulated):
    agree(every_result(name, on_cpu=False), every_result(name, on_cpu=True))


def agree(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert (theirs["solve status"] == 0).all()
    for key in ours:
        if key.endswith("status"):
            assert np.array_equal(ours[key], theirs[key])
        elif key.startswith(("plain", "solve")):  # solutions of one programme, whose dual need not be unique
            if key[6:] in ("primal_residual", "dual_residual", "gap"):
                assert ours[key].max(initial=0.0) < (1e-7 if key.startswith("plain") else 1e-10), key
            if key == "solve x":
                assert np.allclose(ours[key], theirs[key], rtol=1e-7, atol=1e-7)
        else:
            scale = max(1.0, np.abs(theirs[key]).max(initial=0.0))
            if key == "pullback outside":
                assert np.abs(ours[key] - theirs[key]).max() < 1e-6
                continue
            tolerance = 1e-8 if key.startswith("polish") or "residual" in key or key[-1] == "2" else 1e-10
            assert np.abs(ours[key] - theirs[key]).max(initial=0.0) <= tolerance * scale, key


@pytest.mark.parametrize("items", [0, 1, 31, 32, 33, 64, 65, 100])
def test_every_item_of_any_batch(items, emulated):
    batch, structure = family(CONES["qp"], 100)
    engine = DeviceEngine(*structure, device=CPU)
    whole = engine.solve(*tensors(batch.P, batch.q, batch.A, batch.b), 100)
    part = engine.solve(*tensors(*(v[:items] for v in (batch.P, batch.q, batch.A, batch.b))), items)
    for name, values in part.items():
        assert torch.equal(values, whole[name][:items]), name
    if items:
        assert emulated.launched[-1] == ("solve", 0x103, min(-(-items // 32), emulated.warps))


def test_threads_keep_to_their_columns(emulated, monkeypatch):
    """The numbers that a thread writes are its own: neighbours in a warp and other warps have others."""
    batch, structure = family(CONES["every"], 64)
    differentiator, written = DeviceDifferentiator(*structure, device=CPU), []
    work, empty = [], torch.empty

    def marked(*shape, **options):
        work.append(empty(*shape, **options).fill_(-1.2345e67))
        return work[-1]

    v = torch.from_numpy(np.random.default_rng(0).standard_normal((64, structure[1])))
    for thread in (0, 1, 31, 32, 63):
        monkeypatch.setattr(kernels.torch, "empty", marked)
        emulated.libraries[1].only(thread)
        differentiator.project_dual(v)
        emulated.libraries[1].only(-1)
        monkeypatch.setattr(kernels.torch, "empty", empty)
        written.append(set(torch.nonzero(work[-1] != -1.2345e67)[:, 0].tolist()))
        assert written[-1] and {place % 32 for place in written[-1]} == {thread % 32}
        assert {place // (differentiator.entries * 32) for place in written[-1]} == {thread // 32}
    assert len(set.union(*written)) == sum(map(len, written))


def test_where_memory_is_short_fewer_warps_take_turns(emulated, monkeypatch):
    batch, structure = family(CONES["qp"], 100)
    engine, data = DeviceEngine(*structure, device=CPU), tensors(batch.P, batch.q, batch.A, batch.b)
    emulated.warps, empty, table = 4, torch.empty, 32 * sum(engine.entries)
    expected, left = engine.solve(*data, 100), 1.5 * table

    def scarce(shape, **options):
        if np.prod(shape) > left:
            raise torch.OutOfMemoryError("out of memory")
        return empty(shape, **options)

    monkeypatch.setattr(kernels.torch, "empty", scarce)
    found = engine.solve(*data, 100)
    assert [warps for _, _, warps in emulated.launched] == [4, 1]
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    left = 0.5 * table
    with pytest.raises(torch.OutOfMemoryError):
        engine.solve(*data, 100)


def test_shared_rows(emulated):
    batch, structure = family(CONES["every"], 40)
    engine = DeviceEngine(*structure, device=CPU)
    P, q, A, b = tensors(batch.P, batch.q, batch.A, batch.b)
    shared = engine.solve(P[:1], q, A[:1], b[:1], 40)
    spread = engine.solve(P[:1].expand(40, -1), q, A[:1].expand(40, -1), b[:1].expand(40, -1), 40)
    for name in shared:
        assert torch.equal(shared[name], spread[name])


@pytest.mark.parametrize("name", list(CONES))
def test_only_the_cones_at_hand_are_compiled(name, emulated):
    batch, structure = family(CONES[name], 2)
    DeviceEngine(*structure, device=CPU).solve(*tensors(batch.P, batch.q, batch.A, batch.b), 2)
    bits = {SYMMETRIC_BITS[k] for k, _ in CONES[name] if k in SYMMETRIC_BITS}
    assert emulated.launched[-1][1] == 0x103 | sum(1 << bit for bit in bits)


def test_bad_items_cost_others_nothing(emulated):
    batch, structure = family(CONES["soc"], 40)
    engine = DeviceEngine(*structure, device=CPU)
    good = engine.solve(*tensors(batch.P, batch.q, batch.A, batch.b), 40)
    q, b = batch.q.copy(), batch.b.copy()
    q[3, 0], b[17, 0] = np.nan, np.inf
    found = engine.solve(*tensors(batch.P, q, batch.A, b), 40)
    assert found["status"][[3, 17]].tolist() == [Status.FAILED, Status.FAILED]
    others = [i for i in range(40) if i not in (3, 17)]
    for name in ("x", "y", "s", "status", "iterations"):
        assert torch.equal(found[name][others], good[name][others])


def test_wrong_shapes_are_named(emulated):
    batch, structure = family(CONES["qp"], 4)
    P, q, A, b = tensors(batch.P, batch.q, batch.A, batch.b)
    engine, differentiator = DeviceEngine(*structure, device=CPU), DeviceDifferentiator(*structure, device=CPU)
    with pytest.raises(ValueError, match="q must have shape"):
        engine.solve(P, q[:, 1:], A, b, 4)
    with pytest.raises(ValueError, match="b must have shape"):
        engine.solve(P, q, A, b[:2], 4)
    with pytest.raises(ValueError, match="u must have shape"):
        differentiator.apply_D(b, b)
    with pytest.raises(ValueError, match="mu must be at least 0"):
        differentiator.project_dual(b, -1.0)


# ---- the package on an emulated device ------------------------------------------------------------------------


@pytest.fixture
def on_device(emulated, monkeypatch):
    """Everything that would run on a CUDA device runs on emulated kernels; tensors stay on the CPU."""
    monkeypatch.setattr(Cuda, "unavailable", lambda self, device: None)
    monkeypatch.setattr("conelayers.backends.cuda._current_device", lambda: CPU)
    monkeypatch.setattr("conelayers.residual.compiled._make", device_differentiator)
    return emulated


def problem():
    x, a, c = cp.Variable(5), cp.Parameter(5), cp.Parameter(5)
    objective = cp.sum_squares(x - a) + 0.3 * cp.norm(x, 2)
    return cp.Problem(cp.Minimize(objective), [c @ x == 1, x >= -0.2]), [a, c], [x]


def test_layer_values_and_derivatives(on_device, monkeypatch):
    ours = CvxpyLayer(*problem(), solver="CUDA")
    theirs = CvxpyLayer(*problem(), solver="BATCHED", solver_args={"threads": 1})
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(9, 5, generator=generator, requires_grad=True)
    c = torch.rand(9, 5, generator=generator).add_(0.5).requires_grad_()
    weight = torch.randn(9, 5, generator=generator)
    (found,), before = ours(a, c), len(on_device.launched)
    assert [name for name, _, _ in on_device.launched] == ["solve"]  # which polishes
    grads = torch.autograd.grad((found * weight).sum(), (a, c), create_graph=True)
    assert "pullback" in [name for name, _, _ in on_device.launched[before:]]
    seconds = torch.autograd.grad(sum((g**2).sum() for g in grads), (a, c))
    assert "derivative" in {name for name, _, _ in on_device.launched}
    monkeypatch.undo()  # from here on the compiled engine of the CPU
    (expected,) = theirs(a, c)
    expected_grads = torch.autograd.grad((expected * weight).sum(), (a, c), create_graph=True)
    expected_seconds = torch.autograd.grad(sum((g**2).sum() for g in expected_grads), (a, c))
    launched = len(on_device.launched)
    pairs = zip((found, *grads, *seconds), (expected, *expected_grads, *expected_seconds), strict=True)
    assert all(torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9) for ours, theirs in pairs)
    assert len(on_device.launched) == launched


def test_gradients_against_central_differences(on_device):
    layer = CvxpyLayer(*problem(), solver="CUDA")
    a = torch.tensor([0.3, -0.4, 0.9, 0.2, 0.1], requires_grad=True)
    c = torch.tensor([0.9, 1.1, 0.7, 1.0, 0.8], requires_grad=True)
    assert torch.autograd.gradcheck(lambda *p: layer(*p)[0], (a, c), eps=1e-6, atol=1e-7)
    assert torch.autograd.gradcheck(lambda *p: layer(*p)[0], (a, c), eps=1e-6, atol=1e-7, check_forward_ad=True)


def test_smoothed_derivatives(on_device):
    layer = CvxpyLayer(*problem(), solver="CUDA", derivative=Smoothed(1e-2))
    a, c = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), requires_grad=True), torch.ones(3, 5)
    (gradient,) = torch.autograd.grad(layer(a, c)[0][:, 0].sum(), a)
    assert {"derivative", "apply"} & {name for name, _, _ in on_device.launched}
    assert torch.isfinite(gradient).all()


def test_backend_statuses(on_device):
    """Infeasible, unbounded and solvable items of one batch, with zeros where there is no solution."""
    A = torch.tensor([[1.0], [-1.0]])
    structure = ConeStructure.from_matrices(None, A.numpy(), ProductCone([Nonnegative(2)]))
    q = torch.tensor([[1.0], [1.0]])
    b = torch.tensor([[2.0, -1.0], [-1.0, -1.0]])  # 1 <= x <= 2, and x <= -1 with x >= 1
    found = Cuda().solve(ConeProgram(structure, torch.zeros(0), q, torch.tensor([1.0, -1.0]), b))
    assert found.status.tolist() == [Status.SOLVED, Status.PRIMAL_INFEASIBLE]
    assert found.x[0].item() == pytest.approx(1.0, abs=1e-7) and found.x[1].item() == 0.0
    assert torch.isinf(found.gap[1]) and found.x.dtype == torch.float64


def test_batch_axes_and_single_precision(on_device):
    layer = ConeLayer([Zero(1), SecondOrder(3)], torch.ones(4, 3), torch.eye(3), solver=Cuda(tol=1e-9))
    generator = torch.Generator().manual_seed(2)
    P, A = torch.eye(3), torch.randn(4, 3, generator=generator)
    b = A @ torch.randn(3, generator=generator) + torch.tensor([0.0, 5.0, 0.1, 0.2])
    q = torch.randn(2, 3, 3, generator=generator)
    double = layer(P, q, A, b)
    assert double.x.shape == (2, 3, 3) and (double.status_code == 0).all()
    single = layer(P.float(), q.float(), A.float(), b.float())
    assert single.x.dtype == torch.float32 and torch.allclose(single.x.double(), double.x, atol=1e-4)
    reference = ConeLayer([Zero(1), SecondOrder(3)], torch.ones(4, 3), torch.eye(3), solver=Batched())(P, q, A, b)
    assert torch.allclose(double.x, reference.x, atol=1e-10)


def test_the_shortest_solution_of_singular_systems(emulated):
    """Columns that nothing determines in some items of a batch, and rows that repeat each other."""
    batch, structure = family(CONES["qp"], 9)
    rng = np.random.default_rng(4)
    P, A, v = batch.P.copy(), batch.A.copy(), rng.standard_normal((9, structure[1]))
    A_columns = np.repeat(np.arange(structure[0]), np.diff(batch.A_pattern.indptr))
    P_columns = np.repeat(np.arange(structure[0]), np.diff(batch.P_pattern.indptr))
    for values, columns, rows in ((A, A_columns, None), (P, P_columns, batch.P_pattern.indices)):
        gone = (columns < 2) if rows is None else (columns < 2) | (rows < 2)
        values[::2, gone] = 0.0
    r1, r2 = rng.standard_normal((9, 2, structure[0])), rng.standard_normal((9, 2, structure[1]))
    theirs = Differentiator(*structure).derivative(P, A, v, r1, r2)
    mine = DeviceDifferentiator(*structure, device=CPU).derivative(*tensors(P, A, v, r1, r2))
    assert theirs[2].max() < 1e-9 and np.abs(theirs[0][::2, :, :2]).max() < 1e-7
    for found, expected in zip(mine, theirs, strict=True):
        assert np.abs(found.numpy() - expected).max() < 1e-6

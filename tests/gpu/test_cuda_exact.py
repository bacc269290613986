"""The kernels against the engine of the CPU, to the bit: the same source, without fused operations on either side."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("conelayers.native")

from gpu.emulated import Emulated  # noqa: E402
from gpu.hard_cases import mixed_batch, odd_structures  # noqa: E402
from gpu.test_cuda_emulated import CONES, CPU, every_result, tensors  # noqa: E402

import conelayers.native.cuda.kernels as kernels  # noqa: E402
from conelayers.native import Differentiator, Engine, derivative_image, engine_image  # noqa: E402
from conelayers.native.cuda import DeviceDifferentiator, DeviceEngine  # noqa: E402
from conelayers.program import Status  # noqa: E402


def solved(structure, data, items, on_cpu, finished=True):
    """What `solve` finds, as arrays by name; finished: with Newton steps at the end."""
    if on_cpu:
        found = Engine(*structure).solve(*data, items, differentiator=Differentiator(*structure) if finished else None)
        return {name: values for name, values in found.items() if name != "worst"}  # the CPU's summary
    newton = DeviceDifferentiator(*structure, device=CPU) if finished else None
    found = DeviceEngine(*structure, device=CPU).solve(*tensors(*data), items, differentiator=newton)
    return {name: values.numpy() for name, values in found.items()}


def differences(ours, theirs):
    """Names of what is not the same to the bit; `probe` is no kernel on a device, and torch sums up its lengths."""
    same = (key for key in theirs if not key.startswith("probe"))
    return [key for key in same if not np.array_equal(ours[key], theirs[key], equal_nan=True)]


def compare_everything():
    """Names of what differs from the engine of the CPU; run by a process whose CPU kernels do not fuse operations."""
    found = {}
    for name in CONES:
        found[name] = differences(every_result(name, False, 37), every_result(name, True, 37))
        for quadratic in (True, False):
            structure, data, _ = mixed_batch(CONES[name], quadratic)
            for finished in (True, False):
                ours, theirs = (solved(structure, data, 37, on_cpu, finished) for on_cpu in (False, True))
                found[f"{name}, mixed, {quadratic=}, {finished=}"] = differences(ours, theirs)
    for name, (structure, data) in odd_structures().items():
        found[name] = differences(*(solved(structure, data, 5, on_cpu) for on_cpu in (False, True)))
    return {name: keys for name, keys in found.items() if keys}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="rounds as the portable x86 kernels do")
def test_every_number_is_that_of_the_cpu(threads):
    program = (
        "import ctypes, sys\n"
        "from gpu import test_cuda_exact as t\n"
        "emulated = t.Emulated({1: ctypes.CDLL(sys.argv[1])}, warps=1)\n"
        "t.kernels.launcher = lambda device: emulated\n"
        "different = t.compare_everything()\n"
        "assert not different, different\n"
    )
    settings = {"CONELAYERS_MAX_ARCH": "0", "CONELAYERS_CUDA_TEAM": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program, threads._name]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("quadratic", [True, False])
@pytest.mark.parametrize("name", list(CONES))
def test_items_without_a_solution(name, quadratic, emulated):
    """Each item gets its status, whatever stands beside it; what is found is what the CPU finds."""
    structure, data, statuses = mixed_batch(CONES[name], quadratic)
    ours, theirs = (solved(structure, data, 37, on_cpu) for on_cpu in (False, True))
    known = [item for item, status in enumerate(statuses) if status is not None]
    assert ours["status"][known].tolist() == [statuses[item] for item in known]
    assert (_outcome(ours["status"]) == _outcome(theirs["status"])).all()
    good = theirs["status"] == 0
    for key in ("primal_residual", "dual_residual", "gap"):
        assert ours[key][good].max(initial=0.0) <= 1e-8


def _outcome(status):
    """The statuses with one word for both ways of giving up, between which rounding decides."""
    return np.where(status == int(Status.ITERATION_LIMIT), int(Status.FAILED), status)


def test_items_without_a_solution_by_warps(warps, monkeypatch):
    emulated = Emulated({32: warps}, warps=3)
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "32")
    monkeypatch.setattr(kernels, "launcher", lambda device: emulated)
    for name in ("qp", "every"):
        structure, data, _ = mixed_batch(CONES[name])
        data = [values[:20] for values in data]
        ours, theirs = (solved(structure, data, 20, on_cpu) for on_cpu in (False, True))
        assert (ours["status"] == theirs["status"]).all()
        good = theirs["status"] == 0
        assert np.allclose(ours["x"][good], theirs["x"][good], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", list(odd_structures()))
@pytest.mark.parametrize("team", [1, 32])
def test_odd_structures(name, team, threads, warps, monkeypatch):
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", str(team))
    monkeypatch.setattr(kernels, "launcher", lambda device: Emulated({1: threads, 32: warps}))
    structure, data = odd_structures()[name]
    scratch, newton = engine_image(*structure)[3][1], derivative_image(*structure)[3]
    assert (scratch > newton) == (name == "much fill")  # which then share memory the other way round
    ours, theirs = (solved(structure, data, 5, on_cpu) for on_cpu in (False, True))
    assert (ours["status"] == theirs["status"]).all()
    good = theirs["status"] == 0
    assert np.allclose(ours["x"][good], theirs["x"][good], rtol=1e-9, atol=1e-9)


def test_memory_need_not_be_clean(emulated, monkeypatch):
    """Tables full of NaN give the same numbers: nothing is read before it is written."""
    structure, data, _ = mixed_batch(CONES["every"])
    expected = solved(structure, data, 37, on_cpu=False)
    empty = kernels.torch.empty
    monkeypatch.setattr(kernels.torch, "empty", lambda *shape, **o: _poisoned(empty(*shape, **o)))
    assert not differences(solved(structure, data, 37, on_cpu=False), expected)


def _poisoned(values):
    return values.fill_(float("nan")) if values.is_floating_point() else values

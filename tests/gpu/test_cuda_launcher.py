"""The launcher, through NVIDIA's own bindings, on a driver that runs emulated kernels (driver.cpp)."""

from __future__ import annotations

import enum
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("conelayers.native")
pytest.importorskip("cuda.bindings.driver", exc_type=ImportError)

from gpu.emulated import COMPILER, HERE  # noqa: E402

from conelayers.native.cuda.toolkit import call  # noqa: E402

PROGRAM = """
import threading, types
import numpy as np, torch
from conelayers.native import Differentiator, Engine
from conelayers.native.cuda import DeviceDifferentiator, DeviceEngine, kernels, launcher
from conelayers.native.cuda.plan import Device
from gpu.test_cuda_emulated import CONES, CPU, family, tensors

DEVICES = [torch.device("cuda", index) for index in (0, 1)]
stream = types.SimpleNamespace(cuda_stream=7)
torch.cuda.current_stream = lambda device: stream
torch.cuda.get_device_capability = lambda device: (9, 0)
torch.cuda.get_device_properties = lambda device: types.SimpleNamespace(multi_processor_count=3, total_memory=1 << 34)
asked = []
launcher.compiled = lambda name, cones, capability, team: asked.append((name, team)) or b"code of team %d\\0" % team
run = launcher._Driver(DEVICES[0])
kernels.launcher = lambda device: run
assert run.device == Device(3, 1 << 34, 100 * 1024, 99 * 1024), run.device

batch, structure = family(CONES["qp"], 768)
data = (batch.P, batch.q, batch.A, batch.b)
engine, newton = DeviceEngine(*structure, device=CPU), DeviceDifferentiator(*structure, device=CPU)
for items in (3, 768):  # by warps, tables in shared memory; by threads
    rows = [v[:items] for v in data]
    found = [engine.solve(*tensors(*rows), items, differentiator=newton) for _ in range(2)]
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    expected = Engine(*structure).solve(*rows, items, differentiator=Differentiator(*structure))
    assert np.allclose(found[0]["x"], expected["x"], rtol=1e-7, atol=1e-7)
    assert (found[0]["status"].numpy() == expected["status"]).all()
    newton.project_dual(torch.zeros(items, structure[1]))
assert asked == [("solve", 32), ("project", 32), ("solve", 1), ("project", 1)], asked

# Threads that have never used the device, as those of backward passes may be; another device has code of its own.
v, projected = torch.randn(768, structure[1]), []
def project(index):
    kernels.launcher = lambda device: launchers[index]
    projected.append(newton.project_dual(v))
launchers = [run, launcher._Driver(DEVICES[1])]
for index in (0, 1):
    thread = threading.Thread(target=project, args=(index,))
    thread.start(), thread.join()
assert len(projected) == 2 and torch.equal(*projected)
assert asked[4:] == [("project", 1)], asked  # for the second device
try:
    with run._in_context():
        launcher.call(launcher.driver().cuModuleLoadData(b"no code\\0"))
except RuntimeError as error:
    assert "CUDA_ERROR_INVALID_VALUE (invalid argument)" in str(error), error
else:
    raise AssertionError("no error")
try:
    launcher.call(launcher.driver().cuModuleLoadData(b"code of team 1\\0"))
except RuntimeError as error:  # nothing was left behind
    assert "CUDA_ERROR_INVALID_CONTEXT (invalid device context)" in str(error), error
else:
    raise AssertionError("no error")
"""


@pytest.mark.skipif(COMPILER is None or not sys.platform.startswith("linux"), reason="needs a compiler, and Linux")
def test_launcher(tmp_path, threads, warps):
    library = tmp_path / "libcuda.so.1"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    built = subprocess.run(
        [str(COMPILER), *flags, str(HERE / "driver.cpp"), "-o", str(library), "-ldl"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    settings = {
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")])),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "FAKE_DRIVER_LOG": str(tmp_path / "log"),
        "FAKE_DRIVER_THREADS": threads._name,
        "FAKE_DRIVER_WARPS": warps._name,
    }
    environment = {k: v for k, v in os.environ.items() if k != "CONELAYERS_CUDA_TEAM"} | settings
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    log = pathlib.Path(settings["FAKE_DRIVER_LOG"]).read_text().splitlines()
    by_warps = ["solve 32 stream 7 shared", "solve 32 stream 7 shared", "project 32 stream 7 shared"]
    by_threads = ["solve 1 stream 7", "solve 1 stream 7", *["project 1 stream 7"] * 3]
    assert [line for line in log if line.startswith("launch")] == [f"launch {k}" for k in by_warps + by_threads]
    assert sum(line.startswith("function") for line in log) == 5  # each loaded once per device


def test_driver_errors_are_raised():
    class CUresult(enum.IntEnum):
        CUDA_ERROR_INVALID_IMAGE = 200

    with pytest.raises((RuntimeError, ImportError), match="CUDA_ERROR_INVALID_IMAGE|cuda|driver"):
        call((CUresult.CUDA_ERROR_INVALID_IMAGE,))
    assert call((0,)) is None and call((0, 5)) == 5 and call((0, 5, 6)) == (5, 6)

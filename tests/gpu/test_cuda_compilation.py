"""Run-time compilation, its cache, and what is said where it is impossible; no GPU needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("conelayers.native")

from gpu.emulated import SOURCES  # noqa: E402

from conelayers.backends import Batched, Clarabel, Cuda, get_backend  # noqa: E402
from conelayers.cones import Nonnegative, ProductCone  # noqa: E402
from conelayers.errors import UnsupportedError  # noqa: E402
from conelayers.native.cuda import compilation, toolkit, unavailable  # noqa: E402
from conelayers.program import ConeProgram, ConeStructure  # noqa: E402
from conelayers.residual.solve import solve_and_polish  # noqa: E402

POLYHEDRAL, EVERY = 0x103, 0x1FF


def _without_compiler():
    try:
        toolkit.nvrtc_version()
    except (ImportError, RuntimeError) as error:
        return f"no run-time compiler: {error}"
    return ""


NO_NVRTC = _without_compiler()
NVCC = shutil.which("nvcc")
needs_nvrtc = pytest.mark.skipif(bool(NO_NVRTC), reason=NO_NVRTC)
# Machine code of everything takes minutes: set this to check it.
THOROUGH = os.environ.get("CONELAYERS_COMPILE_ALL") == "1"
MACHINES = [(name, capability) for name in compilation.KERNELS for capability in ((8, 0), (9, 0), (10, 0))]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONELAYERS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@needs_nvrtc
@pytest.mark.parametrize("name", compilation.KERNELS)
def test_every_kernel_compiles_with_every_cone(name):
    """To portable assembler, by the compiler that runs on users' machines."""
    code = compilation._compile(name, compilation.options(EVERY, "compute_90"))
    assert f".entry conelayers_{name}".encode() in code and b".target sm_90" in code
    assert b"shfl.sync" not in code


@needs_nvrtc
@pytest.mark.parametrize("name", compilation.KERNELS if THOROUGH else ["solve"])
def test_a_warp_per_problem(name):
    code = compilation._compile(name, compilation.options(EVERY, "compute_90", team=32))
    assert f".entry conelayers_{name}".encode() in code
    assert b"bar.warp.sync" in code
    # The projection deals its cones to the threads; what sums or factors does so by all of them.
    assert (b"shfl.sync" in code) == (name not in ("apply", "project"))


@needs_nvrtc
@pytest.mark.parametrize(("name", "capability"), MACHINES if THOROUGH else [("project", c) for _, c in MACHINES[:3]])
@pytest.mark.parametrize("cones", [POLYHEDRAL, EVERY] if THOROUGH else [POLYHEDRAL])
def test_machine_code(name, capability, cones):
    known = toolkit.call(toolkit.nvrtc().nvrtcGetSupportedArchs())
    if 10 * capability[0] + capability[1] not in known:
        pytest.skip(f"the compiler does not know sm_{capability[0]}{capability[1]}")
    assert compilation.compiled(name, cones, capability)[:4] == b"\x7fELF"


@needs_nvrtc
def test_compiler_messages_are_passed_on(monkeypatch, tmp_path):
    (tmp_path / "solve.cu").write_text("this is no C++")
    monkeypatch.setattr(compilation, "_HERE", tmp_path)
    with pytest.raises(RuntimeError, match=r"solve\.cu.*error"):
        compilation._compile("solve", compilation.options(EVERY, "compute_90"))


@needs_nvrtc
def test_targets():
    known = toolkit.call(toolkit.nvrtc().nvrtcGetSupportedArchs())
    assert compilation.target((9, 0)) == "sm_90"
    assert compilation.target((99, 0)) == f"compute_{max(known)}"
    with pytest.raises(RuntimeError, match="does not support sm_35"):
        compilation.target((3, 5))


@pytest.mark.skipif(NVCC is None, reason="no nvcc on the path")
@pytest.mark.parametrize("name", compilation.KERNELS if THOROUGH else ["solve", "pullback"])
def test_nvcc_takes_the_same_sources(name, tmp_path):
    source, includes = SOURCES / f"{name}.cu", [f"-I{SOURCES.parent / 'include'}", f"-I{SOURCES}"]
    command = [str(NVCC), "-std=c++17", "-arch=compute_90", "-ptx", *includes, str(source), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- the cache, with a compiler that only counts ----------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    calls = []

    def fake(name, arguments):
        calls.append((name, arguments[0], arguments[2]))
        return f"code {len(calls)}".encode()

    monkeypatch.setattr(compilation, "_compile", fake)
    monkeypatch.setattr(compilation, "nvrtc_version", lambda: (13, 0))
    monkeypatch.setattr(compilation, "target", lambda capability: f"sm_{capability[0]}{capability[1]}")
    return calls


def test_code_is_compiled_once(counted, cache):
    assert [compilation.compiled("solve", EVERY, (9, 0)) for _ in range(3)] == [b"code 1"] * 3
    assert len(counted) == 1 and len(list(cache.iterdir())) == 1


def test_code_depends_on_everything(counted, monkeypatch):
    base = compilation.compiled("solve", EVERY, (9, 0))
    others = [
        compilation.compiled("polish", EVERY, (9, 0)),
        compilation.compiled("solve", POLYHEDRAL, (9, 0)),
        compilation.compiled("solve", EVERY, (8, 0)),
        compilation.compiled("solve", EVERY, (9, 0), team=32),
    ]
    monkeypatch.setattr(compilation, "nvrtc_version", lambda: (13, 1))
    others.append(compilation.compiled("solve", EVERY, (9, 0)))
    monkeypatch.setattr(compilation, "_sources", lambda: b"other headers")
    others.append(compilation.compiled("solve", EVERY, (9, 0)))
    assert len({base, *others}) == 7


def test_sources_are_read_whole():
    names = {path.name for path in compilation._source_files()}
    assert {"interior_point.hpp", "exponential.hpp", "solve.cu", "task.cuh"} <= names
    assert all((SOURCES / f"{name}.cu").exists() for name in compilation.KERNELS)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:-1] + b"x"])
def test_damaged_files_are_compiled_again(counted, cache, damage):
    compilation.compiled("solve", EVERY, (9, 0))
    (path,) = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert compilation.compiled("solve", EVERY, (9, 0)) == b"code 2"
    assert compilation.compiled("solve", EVERY, (9, 0)) == b"code 2"


def test_a_cache_that_cannot_be_written_costs_only_time(counted, cache, monkeypatch):
    cache.write_text("a file, not a folder")
    assert [compilation.compiled("solve", EVERY, (9, 0)) for _ in range(2)] == [b"code 1", b"code 2"]


# ---- where there is no device -----------------------------------------------------------------------------------


def programme():
    structure = ConeStructure.from_matrices(None, np.array([[1.0], [-1.0]]), ProductCone([Nonnegative(2)]))
    return ConeProgram(structure, torch.zeros(0), torch.ones(1), torch.tensor([1.0, -1.0]), torch.tensor([2.0, 1.0]))


def test_a_cpu_is_no_gpu():
    assert "no CUDA device" in str(unavailable(torch.device("cpu")))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_backend_says_what_is_missing():
    assert isinstance(get_backend("cuda"), Cuda)
    with pytest.raises(UnsupportedError, match="Backend CUDA cannot run on cuda"):
        Cuda().solve(programme())


def test_missing_bindings_come_with_the_remedy(monkeypatch):
    def missing():
        raise ImportError("No module named 'cuda.bindings'")

    monkeypatch.setattr(toolkit, "nvrtc_version", missing)
    assert "conelayers[cuda]" in str(toolkit.unavailable.__wrapped__(torch.device("cuda", 0)))


@pytest.mark.parametrize(("version", "suits"), [(12_080, False), (13_000, True), (14_010, True)])
def test_a_driver_older_than_the_compiler_is_named(version, suits, monkeypatch):
    monkeypatch.setattr(toolkit, "nvrtc_version", lambda: (13, 5))
    monkeypatch.setattr(toolkit, "driver", lambda: SimpleNamespace(cuDriverGetVersion=lambda: (0, version)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    reason = toolkit.unavailable.__wrapped__(torch.device("cuda", 0))
    assert (reason is None) == suits
    assert suits or ("up to 12.8" in reason and "compiler 13.5" in reason and "conelayers[cuda12]" in reason)


def test_the_engine_stays_on_the_cpu_where_asked(monkeypatch):
    device = torch.device("cuda", 0)
    monkeypatch.setattr(Cuda, "unavailable", lambda self, device: None)
    assert Batched(tol=1e-6, max_iter=7).on(device) == Cuda(tol=1e-6, max_iter=7)
    assert Batched(device="cpu").on(device) == Batched(device="cpu")
    assert Clarabel().on(device) == Clarabel() and "cpu" in str(Clarabel().unavailable(device)).lower()
    assert Batched().on(torch.device("cpu")).name in ("BATCHED", "CUDA")
    monkeypatch.setattr(Cuda, "unavailable", lambda self, device: "there is none")
    assert Batched().on(device) == Batched() and Batched().unavailable(device) == "there is none"


def test_one_clear_message_where_a_gpu_cannot_be_used(monkeypatch):
    from conelayers.residual import solve

    monkeypatch.setattr(solve, "_warned_about_device", False)
    with pytest.warns(UserWarning, match="BATCHED on the CPU.*The reason: "):
        solve._warn_about_device(torch.device("cuda", 0), Batched())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve._warn_about_device(torch.device("cuda", 0), Batched())  # once per process


def test_cpu_programmes_need_no_gpu():
    assert solve_and_polish(programme(), Batched()).x.item() == pytest.approx(-1.0)

"""The emulated kernels, compiled once for all tests of a run."""

import pytest


def built(name):
    pytest.importorskip("conelayers.native")
    from gpu.emulated import COMPILER, TEAM, build

    if COMPILER is None:
        pytest.skip("no C++ compiler to emulate a GPU with")
    flags = TEAM if name == "warps" else ()
    # Without fused operations the kernels round as the portable ones of the CPU do.
    return lambda folder: build(folder, "-ffp-contract=off", *flags)


@pytest.fixture(scope="session")
def threads(tmp_path_factory):
    """One problem per thread."""
    return built("threads")(tmp_path_factory.mktemp("threads"))


@pytest.fixture(scope="session")
def warps(tmp_path_factory):
    """One problem per warp."""
    return built("warps")(tmp_path_factory.mktemp("warps"))


@pytest.fixture
def emulated(threads, monkeypatch):
    """Kernels on CPU tensors run emulated, one problem per thread, two warps at a time."""
    from gpu.emulated import Emulated

    import conelayers.native.cuda.kernels as kernels

    emulated = Emulated({1: threads})
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "1")
    monkeypatch.setattr(kernels, "launcher", lambda device: emulated)
    return emulated

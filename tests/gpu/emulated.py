"""The GPU kernels compiled by the host's compiler and run thread after thread, behind the launcher's interface."""

from __future__ import annotations

import ctypes
import pathlib
import shutil
import subprocess

import conelayers.native.cuda as cuda
from conelayers.native.cuda.plan import Device

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = pathlib.Path(cuda.__file__).resolve().parent
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
TEAM = ("-DCONELAYERS_TEAM=32", "-DCONELAYERS_LANES=1")


def build(folder: pathlib.Path, *flags: str) -> ctypes.CDLL:
    """The emulated kernels as a shared library; with the flags of `TEAM`, those of one problem per warp."""
    library = folder / f"libemulated{len(flags)}.so"
    includes = (f"-I{SOURCES.parent / 'include'}", f"-I{SOURCES}", f"-I{HERE}")
    command = [str(COMPILER), "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", *flags, *includes]
    done = subprocess.run([*command, str(HERE / "emulation.cpp"), "-o", str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


class Emulated:
    """A launcher for tensors on the CPU; `warps` at a time, so that larger batches take several rounds.

    `libraries` maps threads per problem to the kernels so compiled; shared: bytes of shared memory of a multiprocessor.
    """

    def __init__(self, libraries: dict[int, ctypes.CDLL], warps: int = 2, shared: int = 0) -> None:
        self.libraries, self.warps = libraries, warps
        self.device = Device(processors=1, memory=1 << 40, shared=shared, shared_per_block=shared)
        self.launched: list[tuple[str, int, int]] = []
        self.shared: list[int] = []

    def resident(self, kernel, shared):
        return self.warps

    def launch(self, kernel, arguments, warps, shared):
        self.launched.append((kernel.name, kernel.cones, warps))
        self.shared.append(shared)
        view, second, task = arguments[0], arguments[-2], arguments[-1]
        assert self.libraries[kernel.team].emulate(kernel.name.encode(), view, second, task, warps, 32) == 0

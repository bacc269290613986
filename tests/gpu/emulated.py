"""The GPU kernels compiled by the host's compiler and run thread after thread, behind the launcher's interface."""

from __future__ import annotations

import ctypes
import pathlib
import shutil
import subprocess

import conelayers.native.cuda as cuda

HERE = pathlib.Path(__file__).resolve().parent
SOURCES = pathlib.Path(cuda.__file__).resolve().parent
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def build(folder: pathlib.Path, *flags: str) -> ctypes.CDLL:
    """The emulated kernels as a shared library."""
    library = folder / "libemulated.so"
    includes = (f"-I{SOURCES.parent / 'include'}", f"-I{SOURCES}", f"-I{HERE}")
    command = [str(COMPILER), "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", *flags, *includes]
    done = subprocess.run([*command, str(HERE / "emulation.cpp"), "-o", str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


class Emulated:
    """A launcher for tensors on the CPU; `warps` at a time, so that larger batches take several rounds."""

    def __init__(self, library: ctypes.CDLL, warps: int = 2) -> None:
        self.library, self.warps = library, warps
        self.launched: list[tuple[str, int, int]] = []

    def resident(self, name, cones, team):
        return self.warps

    def launch(self, name, cones, team, view, task, warps):
        """A team is emulated by one thread, which does the work of all: what is shared out, not how."""
        self.launched.append((name, cones, warps))
        assert self.library.emulate(name.encode(), view, task, warps, 32 // team) == 0

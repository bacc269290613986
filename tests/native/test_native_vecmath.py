"""The headers that have no Python face: their C++ unit tests, compiled and run."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("name", ["vecmath", "eigen"])
def test_unit(name, tmp_path):
    program = tmp_path / name
    command = [str(COMPILER), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-psabi", "-o", str(program)]
    command += [f"-I{ROOT / 'conelayers/native/include'}", str(ROOT / f"tests/native/cpp/test_{name}.cpp")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0 and not built.stderr, built.stderr
    run = subprocess.run([str(program)], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout

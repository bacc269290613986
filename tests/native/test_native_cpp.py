"""The C++ unit tests of the headers, compiled with AddressSanitizer and UBSan and run."""

import pathlib
import shutil
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent / "cpp"
INCLUDE = HERE.parents[2] / "conelayers" / "native" / "include"
COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
FLAGS = ["-std=c++17", "-O0", "-g1", "-Wall", "-Wno-psabi", "-pthread", "-fno-sanitize-recover=all"]


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("source", sorted(HERE.glob("test_*.cpp")), ids=lambda path: path.stem)
def test_header(source, tmp_path):
    program = tmp_path / source.stem
    command = [COMPILER, *FLAGS, "-fsanitize=address,undefined", f"-I{INCLUDE}", str(source), "-o", str(program)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in compiled.stderr and "san" in compiled.stderr:
        pytest.skip("the compiler has no sanitizer libraries")
    assert compiled.returncode == 0, compiled.stderr
    run = subprocess.run([str(program)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr

"""Machine code of the kernels, compiled at run time and kept on disk."""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

from conelayers.native.cuda.toolkit import call, nvrtc, nvrtc_version

__all__ = ["KERNELS", "cache_folder", "compiled", "options", "target"]

KERNELS = ("solve", "derivative", "apply", "project", "pullback", "polish")
"""Each is a file ``<name>.cu`` with the entry point ``conelayers_<name>``."""

_HERE = pathlib.Path(__file__).resolve().parent
_HEADERS = _HERE.parent / "include"


def compiled(name: str, cones: int, capability: tuple[int, int], team: int = 1) -> bytes:
    """The code of a kernel, from disk where it has been compiled before.

    Args:
        name: One of `KERNELS`.
        cones: The kinds of cones compiled in, a bit for each.
        capability: The device's compute capability.
        team: Threads per problem, 1 or 32.

    Raises:
        RuntimeError: If the compiler fails; the message holds what it said.
    """
    arguments = options(cones, target(capability), team)
    path = cache_folder() / f"{name}-{_key(name, arguments)}.bin"
    code = _read(path)
    if code is None:
        code = _compile(name, arguments)
        _write(path, code)
    return code


def target(capability: tuple[int, int]) -> str:
    """The architecture to compile for: the device's own, or for newer ones than the compiler knows, portable code.

    Raises:
        RuntimeError: If the compiler no longer supports the device.
    """
    known = call(nvrtc().nvrtcGetSupportedArchs())
    wanted = 10 * capability[0] + capability[1]
    if wanted in known:
        return f"sm_{wanted}"
    older = [arch for arch in known if arch < wanted]
    if not older:
        raise RuntimeError(f"CUDA's run-time compiler {nvrtc_version()} does not support sm_{wanted}.")
    return f"compute_{max(older)}"


def options(cones: int, architecture: str, team: int = 1) -> tuple[str, ...]:
    """The compiler's arguments."""
    shared = () if team == 1 else (f"-DCONELAYERS_TEAM={team}", "-DCONELAYERS_LANES=1")
    return (
        f"--gpu-architecture={architecture}",
        "--std=c++17",
        f"-DCONELAYERS_CONES={cones:#x}",
        f"-I{_HEADERS}",
        f"-I{_HERE}",
        *shared,
    )


def cache_folder() -> pathlib.Path:
    """Where compiled code is kept: $CONELAYERS_CACHE, or `conelayers` in the user's cache folder."""
    chosen = os.environ.get("CONELAYERS_CACHE")
    if chosen:
        return pathlib.Path(chosen)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "conelayers"


def _compile(name: str, arguments: tuple[str, ...]) -> bytes:
    compiler = nvrtc()
    source = (_HERE / f"{name}.cu").read_bytes()
    program = call(compiler.nvrtcCreateProgram(source, f"{name}.cu".encode(), 0, [], []))
    try:
        (status,) = compiler.nvrtcCompileProgram(program, len(arguments), [argument.encode() for argument in arguments])
        if int(status) != 0:
            log = b"\0" * call(compiler.nvrtcGetProgramLogSize(program))
            call(compiler.nvrtcGetProgramLog(program, log))
            said = log.rstrip(b"\0").decode()
            raise RuntimeError(f"Compiling {name}.cu failed: {status.name}\n{said}")
        binary = arguments[0].split("=")[1].startswith("sm_")
        size, get = (
            (compiler.nvrtcGetCUBINSize, compiler.nvrtcGetCUBIN)
            if binary
            else (compiler.nvrtcGetPTXSize, compiler.nvrtcGetPTX)
        )
        code = b"\0" * call(size(program))
        call(get(program, code))
        return code
    finally:
        compiler.nvrtcDestroyProgram(program)


def _key(name: str, arguments: tuple[str, ...]) -> str:
    """Changes with anything the code depends on; folders do not count, their contents do."""
    digest = hashlib.sha256(_sources())
    relevant = [argument for argument in arguments if not argument.startswith("-I")]
    digest.update(repr((name, relevant, nvrtc_version())).encode())
    return digest.hexdigest()[:32]


@functools.cache
def _sources() -> bytes:
    digest = hashlib.sha256()
    for path in _source_files():
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.digest()


def _source_files() -> Iterator[pathlib.Path]:
    yield from sorted(_HEADERS.rglob("*.hpp"))
    yield from sorted(path for path in _HERE.iterdir() if path.suffix in (".cu", ".cuh"))


def _read(path: pathlib.Path) -> bytes | None:
    """The code in a file, if it is whole: a digest stands before it."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def _write(path: pathlib.Path, code: bytes) -> None:
    """Keep the code, atomically; a folder that cannot be written to only costs time at the next start."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(temporary, path)
    except OSError:
        pass

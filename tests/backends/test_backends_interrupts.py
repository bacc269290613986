"""An interrupt of the process (Ctrl-C) ends a solve soon, raises in its caller, and leaves everything usable."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, threading, time
import numpy as np, torch
from conelayers.backends import SCS, Batched, Clarabel
from conelayers.cones import Nonnegative, ProductCone
from conelayers.program import ConeProgram, ConeStructure

torch.set_default_dtype(torch.float64)
generator = torch.Generator().manual_seed(0)


def polytope(items, n, m):
    "minimise q'x subject to -1 <= Ax <= 1"
    A = torch.randn(m, n, generator=generator)
    structure = ConeStructure.from_matrices(None, np.ones((2 * m, n)), ProductCone([Nonnegative(2 * m)]))
    both = torch.cat([A, -A])[structure.A_indices, structure.A_columns]
    return ConeProgram(structure, both[:0], torch.randn(items, n, generator=generator), both, torch.ones(2 * m))


few = polytope(3, 4, 8)
for name, (backend, program) in SETUPS.items():
    backend.solve(few)
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    begin = time.monotonic()
    try:
        while time.monotonic() - begin < 20:
            backend.solve(program)
    except KeyboardInterrupt:
        print("ended", name, time.monotonic() - begin, sep="|")
    assert backend.solve(few).all_solved
"""

# Each takes many seconds if nobody ends it.
SETUPS = """{
    "engine, packs": (Batched(threads=2), polytope(4000, 60, 100)),
    "engine, iterations": (Batched(threads=1), polytope(1, 200, 400)),
    "clarabel, items": (Clarabel(threads=2), polytope(1000, 60, 100)),
    "clarabel, iterations": (Clarabel(), polytope(1, 250, 450)),
    "scs": (SCS(tol=1e-15, tol_infeas=1e-15, threads=1), polytope(1, 100, 200)),
}"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals between processes")
def test_interrupts_are_answered():
    script = PROGRAM.replace("SETUPS", SETUPS)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 0, found.stderr
    ended = [line.split("|")[1:] for line in found.stdout.splitlines() if line.startswith("ended|")]
    seconds = {name: float(value) for name, value in ended}
    assert len(seconds) == 5 and max(seconds.values()) < 3.0, seconds

"""One problem per warp, its 32 threads emulated each by itself: each runs as far ahead of the others as it may."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("conelayers.native")

from gpu.emulated import Emulated  # noqa: E402
from gpu.test_cuda_emulated import CONES, CPU, agree, every_result, family, tensors  # noqa: E402

import conelayers.native.cuda.kernels as kernels  # noqa: E402
from conelayers.native.cuda import DeviceDifferentiator, DeviceEngine  # noqa: E402


def launcher(library, monkeypatch, **device):
    emulated = Emulated({32: library}, **device)
    monkeypatch.setenv("CONELAYERS_CUDA_TEAM", "32")
    monkeypatch.setattr(kernels, "launcher", lambda device: emulated)
    return emulated


@pytest.mark.parametrize("name", list(CONES))
def test_threads_keep_out_of_each_others_way(name, warps, monkeypatch):
    """The right numbers, and to the bit the same whichever thread is ahead.

    A thread that reads what another one writes before they meet next, or that writes what all of them do, finds
    one value where it comes first and another where it comes last.
    """
    launcher(warps, monkeypatch, warps=3)
    found = []
    for order in range(3):
        warps.in_order(order)
        found.append(every_result(name, on_cpu=False, items=3))
    warps.in_order(0)
    agree(found[0], every_result(name, on_cpu=True, items=3))
    for other in found[1:]:
        assert all(np.array_equal(other[key], found[0][key], equal_nan=True) for key in other)


def test_no_number_is_changed_by_two_threads_at_once(warps, monkeypatch):
    """Not even scratch, which each of them would leave right where they take turns."""
    launcher(warps, monkeypatch)
    batch, structure = family([("q", 3), ("q", 2), ("l", 2), ("e", 0), ("e", 0), ("s", 2)], 1)
    differentiator = DeviceDifferentiator(*structure, device=CPU)
    warps.watch(1)
    data = tensors(batch.P, batch.q, batch.A, batch.b)
    found = DeviceEngine(*structure, device=CPU).solve(*data, 1, differentiator=differentiator)
    assert not warps.clash()
    differentiator.pullback(*data[::2], *(found[k] for k in "xys"), *(found[k] for k in "xys"))
    warps.watch(0)
    assert not warps.clash()


@pytest.mark.parametrize("order", [0, 1, 2])
def test_phases_keep_their_promises(order, warps):
    """All have read before a phase writes, all read what it wrote, and what is joined is the same for all."""
    warps.in_order(order)
    broken = warps.broken_promises()
    warps.in_order(0)
    assert broken == 0


def test_tables_in_shared_memory(warps, monkeypatch):
    """The same numbers from the memory of a multiprocessor, whatever was in it before."""
    batch, structure = family(CONES["every"], 3)
    data, found = tensors(batch.P, batch.q, batch.A, batch.b), []
    for shared in (0, 227 * 1024):
        emulated = launcher(warps, monkeypatch, shared=shared)
        differentiator = DeviceDifferentiator(*structure, device=CPU)
        found.append(DeviceEngine(*structure, device=CPU).solve(*data, 3, differentiator=differentiator))
        assert (emulated.shared[-1] > 0) == (shared > 0)
    for key, values in found[0].items():
        assert values.equal(found[1][key]), key

"""How a batch is laid out on a device: threads per problem, and where a problem's numbers are kept."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

__all__ = ["SETTING", "Device", "Plan", "Problem", "plan"]

SETTING = "CONELAYERS_CUDA_TEAM"
"""The environment variable that sets the threads per problem: 1, 32, or auto for `plan` to choose."""

WARP = 32
_NUMBER = 8  # bytes
_WARPS_PER_PROCESSOR = 8  # that a plan counts on
# A load from the device's memory takes 650 cycles, and a thread has six of them under way.
_CYCLES_PER_LOAD = 650 / 6
_SOLVES = 7  # with residuals, for each factorization
# A table in shared memory leaves room for this many warps of a multiprocessor, or for all that there are.
_WARPS_IN_SHARED, _RESERVED = 4, 1024


@dataclasses.dataclass(frozen=True)
class Device:
    """What a plan depends on: multiprocessors, bytes of memory, bytes of shared memory per multiprocessor and block."""

    processors: int
    memory: int
    shared: int
    shared_per_block: int


@dataclasses.dataclass(frozen=True)
class Problem:
    """Its size: variables, rows, entries of A and twice those of P, entries of L and operations of a factorization."""

    n: int
    m: int
    entries: int
    fill: float
    flops: float

    @property
    def cycles_of_thread(self) -> float:
        """One factorization and the solves that go with it by a thread, which waits for the device's memory."""
        loads = self.flops / 4 + 2 * _SOLVES * self.fill + 3 * _SOLVES * self.entries
        return _CYCLES_PER_LOAD * loads

    @property
    def cycles_of_warp(self) -> float:
        """The same by a warp, which waits at barriers: of four columns of L, of a column of A, of a vector."""
        blocks, rounds = (self.n + self.m) / 4, (self.n + self.m) / WARP
        factorization = self.flops / 16 + 300 * blocks
        solve, product, vector = 450 * blocks, 120 * self.n + 12 * self.entries / WARP, 50 + 50 * rounds
        return factorization + _SOLVES * solve + (_SOLVES + 1) * product + 60 * vector


class Plan(NamedTuple):
    """Threads per problem, and bytes of shared memory per warp (0: its table is in the device's memory)."""

    team: int
    shared: int


def plan(items: int, table: int, problem: Problem, device: Device) -> Plan:
    """The layout of `items` problems with `table` numbers of work each; docs/gpu.md derives the figures.

    Raises:
        ValueError: If the setting is neither 1 nor 32 nor auto.
    """
    team, size = _chosen(), _NUMBER * table
    if team is None:
        resident = _WARPS_PER_PROCESSOR * device.processors
        by_threads = problem.cycles_of_thread * -(-items // (WARP * resident))
        by_warps = problem.cycles_of_warp * -(-items // resident)
        team = 1 if by_threads < by_warps else WARP
    if team == 1 or size > device.shared_per_block:
        return Plan(team, 0)
    fit, needed = device.shared // (size + _RESERVED), -(-items // device.processors)
    return Plan(team, size if fit >= min(_WARPS_IN_SHARED, needed) else 0)


def _chosen() -> int | None:
    setting = os.environ.get(SETTING, "auto")
    if setting not in ("1", "32", "auto"):
        raise ValueError(f"{SETTING} is {setting!r}; it must be 1, 32 or auto")
    return None if setting == "auto" else int(setting)

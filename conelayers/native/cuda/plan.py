"""How a batch is laid out on a device: threads per problem, and where a problem's numbers are kept."""

from __future__ import annotations

import dataclasses
import os
from typing import NamedTuple

__all__ = ["SETTING", "Device", "Plan", "plan"]

SETTING = "CONELAYERS_CUDA_TEAM"
"""The environment variable that sets the threads per problem: 1, 32, or auto for `plan` to choose."""

WARP = 32
_NUMBER = 8  # bytes
# One problem per thread pays where each multiprocessor has four full warps of them, with small tables: a thread waits
# for each number alone, and what 32 of them need soon comes from the device's memory (docs/gpu.md, "Which of the two").
_PROBLEMS_PER_PROCESSOR, _SMALL_TABLE = 4 * WARP, 32 * 1024
# Tables in shared memory leave room for this many warps of a multiprocessor, or for all that there are.
_WARPS_IN_SHARED, _RESERVED = 4, 1024


@dataclasses.dataclass(frozen=True)
class Device:
    """What a plan depends on: multiprocessors, bytes of memory, bytes of shared memory per multiprocessor and block."""

    processors: int
    memory: int
    shared: int
    shared_per_block: int


class Plan(NamedTuple):
    """Threads per problem, and bytes of shared memory per warp (0: its table is in the device's memory)."""

    team: int
    shared: int


def plan(items: int, entries: int, device: Device) -> Plan:
    """The layout of `items` problems with tables of `entries` numbers.

    Raises:
        ValueError: If the setting is neither 1 nor 32 nor auto.
    """
    team, table = _chosen(), _NUMBER * entries
    if team is None:
        many = items >= _PROBLEMS_PER_PROCESSOR * device.processors
        team = 1 if many and table <= _SMALL_TABLE else WARP
    if team == 1 or table > device.shared_per_block:
        return Plan(team, 0)
    fit, needed = device.shared // (table + _RESERVED), -(-items // device.processors)
    return Plan(team, table if fit >= min(_WARPS_IN_SHARED, needed) else 0)


def _chosen() -> int | None:
    setting = os.environ.get(SETTING, "auto")
    if setting not in ("1", "32", "auto"):
        raise ValueError(f"{SETTING} is {setting!r}; it must be 1, 32 or auto")
    return None if setting == "auto" else int(setting)

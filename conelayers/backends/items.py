"""Solving a batch item by item: threads, persistent solver objects, and the assembly of the solution."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from conelayers.backends.base import Solver
from conelayers.backends.outcomes import proven
from conelayers.backends.rows import RowMap
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status, residuals, without_absent_rows
from conelayers.program.compiled import clearly_indefinite

__all__ = ["QUICK", "Item", "Point", "Worker", "WorkerPool", "solve_items"]

QUICK = 300
"""Unknowns and rows up to which one solve is too short to be interrupted."""

REDUCED_TOLERANCE = 1e-5
"""Residual up to which a solver's last point counts as an inaccurate solution and not as a failure."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """Data of one programme, float64; `shared_*` says that all items of this call have the same values.

    `ended` says whether nobody waits for the solution any more: a long solve should ask now and then.
    """

    P: np.ndarray
    q: np.ndarray
    A: np.ndarray
    b: np.ndarray
    first: bool
    shared_P: bool
    shared_A: bool
    ended: Callable[[], bool]
    warm_start: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """What a solver returned for one programme.

    Where there is no solution, x or y is the ray that proves it, and the others may be None or not numbers.
    """

    status: Status
    iterations: int
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    s: np.ndarray | None = None


class Worker(Protocol):
    """A solver object that takes one programme after another, all of one structure."""

    def solve(self, item: Item) -> Point:
        """Solve one programme."""
        ...


class WorkerPool:
    """Idle workers by structure (weakly referenced) and settings.

    A call takes as many as it has threads and gives them back, so simultaneous calls never share a worker.
    """

    def __init__(self) -> None:
        self._idle: weakref.WeakKeyDictionary[ConeStructure, dict[Hashable, list[Worker]]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()

    def take(self, structure: ConeStructure, settings: Hashable, make: Callable[[], Worker]) -> Worker:
        """An idle worker, the one given back last, or a new one."""
        with self._lock:
            idle = self._idle.setdefault(structure, {}).setdefault(settings, [])
            if idle:
                return idle.pop()
        return make()

    def give_back(self, structure: ConeStructure, settings: Hashable, worker: Worker) -> None:
        """Return a worker for later calls."""
        with self._lock:
            self._idle.setdefault(structure, {}).setdefault(settings, []).append(worker)


def solve_items(
    program: ConeProgram,
    settings: Hashable,
    pool: WorkerPool,
    make: Callable[[], Worker],
    rows: RowMap,
    threads: int | None,
    warm_start: ConeSolution | None = None,
    again: Solver | None = None,
) -> ConeSolution:
    """Solve every item by workers from the pool; item i goes to worker i modulo the number of threads.

    Args:
        program: The programmes.
        settings: Key of the workers in the pool, beside the structure.
        pool: Where workers are kept between calls.
        make: Makes a worker.
        rows: The solver's rows.
        threads: Number of threads; None for all cores.
        warm_start: A previous solution.
        again: Solves programmes another way where this one failed, or claimed what does not hold.
    """
    structure, batch_shape = program.structure, program.batch_shape
    count = batch_shape.numel()
    flat, absent = without_absent_rows(_on_cpu(program.flatten()))
    P, q, A, b = (_numpy(values) for values in (flat.P, flat.q, flat.A, flat.b))
    usable = _finite(P, q, A, b, count) & ~clearly_indefinite(structure, P)
    A, b = rows.A(A), rows.b(b)
    start = None if warm_start is None else _flat_points(warm_start, batch_shape)

    def item(i: int, first: bool) -> Item:
        at = [values[i if len(values) > 1 else 0] for values in (P, q, A, b)]
        guess = None if start is None or not start[3][i] else (start[0][i], start[1][i], start[2][i])
        shared = {"shared_P": len(P) == 1, "shared_A": len(A) == 1}
        return Item(*at, first=first, **shared, ended=ended.is_set, warm_start=guess)

    slots = max(1, min(threads if threads is not None else _cores(), count))
    points: list[Point | None] = [None] * count
    ended = threading.Event()

    def run(slot: int, worker: Worker) -> None:
        first = True
        for i in range(slot, count, slots):
            if ended.is_set():
                return
            if usable[i]:
                points[i] = worker.solve(item(i, first))
                first = False

    workers = [pool.take(structure, settings, make) for _ in range(slots)]
    if slots == 1 and structure.n + structure.m < QUICK:
        run(0, workers[0])
    else:  # the main thread waits, and an interrupt of the process reaches it
        try:
            list(_executor(slots, os.getpid()).map(run, range(slots), workers))
        except BaseException:
            ended.set()
            raise
    for worker in reversed(workers):
        pool.give_back(structure, settings, worker)
    found = _with_last_points(assemble(flat, points))
    retry = None if again is None else again.solve
    solution = _without_rays(proven(flat, found, retry, failures=True))
    return (solution if absent is None else absent.restore(solution)).reshape(batch_shape)


def assemble(program: ConeProgram, points: Sequence[Point | None]) -> ConeSolution:
    """What became of a batch with one axis, with measured residuals; None stands for a failure."""
    structure, count = program.structure, len(points)
    x, y, s = (np.zeros((count, size)) for size in (structure.n, structure.m, structure.m))
    code = np.full(count, int(Status.FAILED), dtype=np.int8)
    iterations = np.zeros(count, dtype=np.int64)
    for i, point in enumerate(points):
        if point is None:
            continue
        code[i], iterations[i] = point.status, point.iterations
        for values, found in ((x, point.x), (y, point.y), (s, point.s)):
            if found is not None:
                values[i] = found
        if point.status.has_solution and not all(np.isfinite(values[i]).all() for values in (x, y, s)):
            code[i] = Status.FAILED
    tensors = [torch.from_numpy(values) for values in (x, y, s)]
    measured = residuals(program, *tensors)
    measures = (torch.nan_to_num(value, nan=torch.inf) for value in (measured.primal, measured.dual, measured.gap))
    everything = (*tensors, torch.from_numpy(code), torch.from_numpy(iterations), *measures)
    return ConeSolution(*everything)


def _with_last_points(solution: ConeSolution) -> ConeSolution:
    """Count the last point of an item that was stopped as an inaccurate solution if its residuals are small."""
    code = solution.status_code
    stopped = (code == int(Status.ITERATION_LIMIT)) | (code == int(Status.FAILED))
    has_point = (solution.x != 0).any(-1) | (solution.y != 0).any(-1) | (solution.s != 0).any(-1)
    good = stopped & has_point & (solution.worst <= REDUCED_TOLERANCE)
    return dataclasses.replace(solution, status_code=torch.where(good, int(Status.INACCURATE), code).to(torch.int8))


def _without_rays(solution: ConeSolution) -> ConeSolution:
    """Zeros in the items that have neither a solution nor a last iterate."""
    keep = (solution.has_solution | (solution.status_code == int(Status.ITERATION_LIMIT))).unsqueeze(-1)
    x, y, s = (torch.where(keep, value, 0.0) for value in (solution.x, solution.y, solution.s))
    return dataclasses.replace(solution, x=x, y=y, s=s)


def _on_cpu(program: ConeProgram) -> ConeProgram:
    P, q, A, b = (v.detach().to("cpu", torch.float64) for v in (program.P, program.q, program.A, program.b))
    return ConeProgram(program.structure, P, q, A, b)


def _numpy(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().to("cpu", torch.float64).numpy())


def _finite(P: np.ndarray, q: np.ndarray, A: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    usable = np.ones(count, dtype=bool)
    for values in (P, q, A, b):
        usable &= np.isfinite(values).all(axis=1)
    return usable


def _flat_points(solution: ConeSolution, batch_shape: torch.Size) -> tuple[np.ndarray, ...]:
    """x, y, s and whether they are a solution, expanded to the batch and flattened."""
    count = batch_shape.numel()
    points = [value.expand(*batch_shape, value.shape[-1]) for value in (solution.x, solution.y, solution.s)]
    flat = [_numpy(value.reshape(count, value.shape[-1])) for value in points]
    return *flat, solution.has_solution.expand(batch_shape).reshape(count).cpu().numpy()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _executor(threads: int, process: int) -> ThreadPoolExecutor:
    """Kept threads of a process; a forked one inherits the object but none of the threads, and needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="conelayers-backend")

"""Layers on a GPU against the engine on the CPU and against their peers, at batches from 1 to 16384, with a roofline.

Contestants: conelayers on the device (layout chosen, by threads, by warps) and on the CPU (all threads), qpth on the
device (dense QPs), cvxpylayers with Moreau on the device, cvxpylayers with diffcp on the CPU. What is not installed,
or refuses, is named and left out. A contestant leaves a family after the first batch that takes longer than
`--patience` seconds. Before a family is timed, both layouts are held to the CPU's values and gradients. The most
important family comes first, each row is printed and written to --json as soon as it is known, and no batch is begun
after `--minutes`.

Run: python benchmarks/gpu.py [--families qp50 soc] [--batches 1 128 4096] [--rounds 5] [--minutes 9] [--json FILE]
Without a CUDA device it says so, and measures what runs on the CPU at batches up to 128.
Needs: pip install ".[benchmarks,cuda]" qpth moreau-cuda13
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from families import FAMILIES, Family

from conelayers import CvxpyLayer
from conelayers.backends import Cuda
from conelayers.native import Differentiator, Engine, derivative_image, engine_image
from conelayers.native.cuda.plan import SETTING, Problem
from conelayers.program import ConeStructure
from conelayers.program.compiled import described

Call = Callable[..., tuple[torch.Tensor, ...]]
Build = Callable[[Family], Call]
DEVICE = torch.device("cuda", 0)
CHECKED = 37  # items held to the CPU's before anything is timed: more than a warp, less than two


@dataclasses.dataclass(frozen=True)
class Machine:
    """Ceilings of a device: bytes, double precision operations and cycles per second, and multiprocessors."""

    name: str
    bandwidth: float
    flops: float
    processors: int
    clock: float


# The vendor's figures; double precision without tensor cores.
H200 = Machine("H200 (datasheet)", 4.8e12, 34e12, 132, 1.755e9)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Operations, bytes and waiting of one problem, forward and backward (docs/gpu.md derives them)."""

    flops: float
    bytes: float
    thread: float  # cycles of a thread, or of a warp, that works on the problem alone
    warp: float
    table: int  # bytes of work per problem

    @classmethod
    def of(cls, structure: ConeStructure, iterations: float, solves: int = 7, factors: float = 4.0) -> Cost:
        """`solves` with residuals per iteration; `factors` beside those of iterations: start, Newton steps, adjoint."""
        arrays = described(structure)
        (*_, (kept, scratch), factor), newton = engine_image(*arrays), derivative_image(*arrays)[3]
        problem = Problem(structure.n, structure.m, structure.A_nnz + 2 * structure.P_nnz, *factor)
        flops = problem.flops + solves * (4 * problem.fill + 4 * problem.entries)
        # A register tile of four by four loads a quarter of a number per operation; a solve reads the factor twice; a
        # product reads its matrix once, and reads and writes what it adds to.
        moved = 2 * problem.flops + solves * 8 * (2 * problem.fill + 3 * problem.entries)
        table = 8 * (kept + max(scratch, newton) + structure.n + 2 * structure.m)
        costs = flops, moved, problem.cycles_of_thread, problem.cycles_of_warp
        return cls(*((iterations + factors) * cost for cost in costs), table)

    def seconds(self, batch: int, machine: Machine) -> dict[str, float]:
        """Lower bounds from bandwidth and arithmetic; from waiting, with eight warps on each multiprocessor."""
        resident = 8 * machine.processors
        return {
            "bandwidth": batch * self.bytes / machine.bandwidth,
            "arithmetic": batch * self.flops / machine.flops,
            "waiting, threads": self.thread / machine.clock * -(-batch // (32 * resident)),
            "waiting, warps": self.warp / machine.clock * -(-batch // resident),
        }


# ---- contestants ------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Contestant:
    """One way to solve a family, and where its tensors live."""

    name: str
    build: Build
    device: torch.device
    takes: Callable[[Family], bool] = lambda family: True
    missing: str = ""
    team: str = "auto"  # threads per problem on the device


def ours(family: Family) -> Call:
    return CvxpyLayer(family.problem, family.parameters, family.variables)


def cvxpylayers(**solver_args) -> Build:
    def build(family: Family) -> Call:
        from cvxpylayers.torch import CvxpyLayer as Peer

        return Peer(family.problem, family.parameters, family.variables, **solver_args)

    return build


def qpth(family: Family) -> Call:
    """The dense QP family as qpth takes it: minimise 1/2 x'Qx + p'x subject to G x <= h."""
    from qpth.qp import QPFunction

    def call(F, g, G, h):
        Q = 2 * (F.mT @ F) + 0.2 * torch.eye(F.shape[-1], dtype=F.dtype, device=F.device)
        p = -2 * (F.mT @ g[..., None])[..., 0]
        none = torch.empty(0, dtype=F.dtype, device=F.device)
        return (QPFunction(verbose=-1, eps=1e-8, check_Q_spd=False)(Q, p, G, h, none, none),)

    return call


def contestants() -> list[Contestant]:
    reason = Cuda().unavailable(DEVICE)
    gpu = "" if reason is None else reason
    dense = lambda family: family.name.startswith("dense QP")  # noqa: E731
    symmetric = lambda family: not family.semidefinite  # noqa: E731
    cpu = torch.device("cpu")
    return [
        Contestant("conelayers CUDA", ours, DEVICE, missing=gpu),
        Contestant("conelayers CUDA warps", ours, DEVICE, missing=gpu, team="32"),
        Contestant("conelayers CUDA threads", ours, DEVICE, missing=gpu, team="1"),
        Contestant("conelayers CPU", ours, cpu),
        Contestant("qpth CUDA", qpth, DEVICE, dense, missing=gpu or absent("qpth")),
        Contestant("cvxpylayers Moreau CUDA", cvxpylayers(solver="MOREAU"), DEVICE, symmetric, gpu or absent("moreau")),
        Contestant("cvxpylayers diffcp CPU", cvxpylayers(), cpu, missing=absent("cvxpylayers")),
    ]


def absent(module: str) -> str:
    try:
        __import__(module)
    except ImportError as error:
        return str(error)
    return ""


# ---- measuring --------------------------------------------------------------------------------------------------


def wait(device: torch.device) -> float:
    """The time, once the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextlib.contextmanager
def layout(team: str) -> Iterator[None]:
    """Threads per problem for what runs inside."""
    before = os.environ.get(SETTING)
    os.environ[SETTING] = team
    try:
        yield
    finally:
        os.environ.pop(SETTING)
        if before is not None:
            os.environ[SETTING] = before


def one_round(call: Call, arrays: Sequence[np.ndarray], by: Contestant) -> tuple[float, float, list[torch.Tensor]]:
    """Seconds forward and backward; the solution and the gradients."""
    leaves = [torch.tensor(a, dtype=torch.float64, device=by.device, requires_grad=True) for a in arrays]
    with layout(by.team):
        start = wait(by.device)
        (x,) = call(*leaves)
        middle = wait(by.device)
        x.square().sum().backward()
        end = wait(by.device)
    return middle - start, end - middle, [x.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def check(family: Family) -> None:
    """Both layouts against the engine on the CPU, values and gradients; compiles the kernels."""
    arrays = family.sample(CHECKED, np.random.default_rng(1))
    call = ours(family)
    expected = one_round(call, arrays, Contestant("CPU", ours, torch.device("cpu")))[2]
    for team in ("32", "1"):
        start = time.perf_counter()
        try:
            found = one_round(call, arrays, Contestant("CUDA", ours, DEVICE, team=team))[2]
            worst = max((a.cpu() - b).abs().max().item() for a, b in zip(found, expected, strict=True))
            said = f"values and gradients differ by {worst:.0e} from the CPU's" + (" WRONG" * (not worst < 1e-6))
        except Exception as error:  # the other layout may work
            said = f"FAILED: {type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        print(f"check {family.name:>18}, {team:>2} threads per problem: {said}; {seconds:.1f} s", flush=True)


def measure(
    family: Family, batches: Sequence[int], rounds: int, patience: float, until: float, keep: Callable[[dict], None]
) -> list[dict]:
    """Medians of alternating rounds; one row per batch, given to `keep` at once."""
    calls: dict[str, tuple[Call, Contestant]] = {}
    rows: list[dict] = []
    expected: dict[str, float] = {}  # seconds per item
    for contestant in contestants():
        if not contestant.missing and contestant.takes(family):
            try:
                calls[contestant.name] = (contestant.build(family), contestant)
            except Exception as error:  # a peer may refuse a family: say so and go on
                print(f"{family.name:>18}         {contestant.name:<24} left out: {first_line(error)}")
    for batch in batches:
        if time.monotonic() > until:
            print(f"{family.name:>18} {batch:>6}  not begun: the time is over", flush=True)
            break
        for name in [name for name in calls if expected.get(name, 0.0) * batch > 4 * patience]:
            print(f"{family.name:>18} {batch:>6}  {name:<24} left out: would take too long")
            del calls[name]
        row = measure_batch(family, batch, rounds, patience, until, calls)
        expected |= {name: sum(seconds) / batch for name, seconds in row["seconds"].items()}
        for name, seconds in row["seconds"].items():
            if sum(seconds) > patience:
                calls.pop(name, None)
        rows.append(row)
        print_row(row)
        keep(row)
    return rows


def measure_batch(
    family: Family, batch: int, rounds: int, patience: float, until: float, calls: dict[str, tuple[Call, Contestant]]
) -> dict:
    """One row; contestants that fail are taken out of `calls`."""
    arrays = family.sample(batch, np.random.default_rng(0))
    times, solutions, failures = {name: [] for name in calls}, {}, {}
    for round_ in range(rounds + 1):  # the first compiles and warms up
        for name, (call, contestant) in list(calls.items()):
            if round_ > 1 and (time.monotonic() > until or sum(times[name][-1]) > patience):
                continue
            try:
                *seconds, (solution, *_) = one_round(call, arrays, contestant)
            except Exception as error:  # a peer may refuse a size
                failures[name] = first_line(error)
                del calls[name]
                continue
            solutions[name] = solution.cpu()
            if round_:
                times[name].append(seconds)
    reference = solutions.get("conelayers CPU", next(iter(solutions.values()), None))
    row = {"family": family.name, "batch": batch, "failures": failures, "seconds": {}, "difference": {}}
    for name, values in times.items():
        if name in failures or not values:
            continue
        row["seconds"][name] = np.median(values, axis=0).tolist()
        row["difference"][name] = (solutions[name] - reference).abs().max().item()
    return row


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def print_row(row: dict) -> None:
    for name, (forward, backward) in row["seconds"].items():
        print(
            f"{row['family']:>18} {row['batch']:>6}  {name:<24} {1e3 * forward:9.2f} + {1e3 * backward:8.2f} ms   "
            f"values differ by {row['difference'][name]:.0e}",
            flush=True,
        )
    for name, failure in row["failures"].items():
        print(f"{row['family']:>18} {row['batch']:>6}  {name:<24} left out: {failure[:90]}", flush=True)


def print_roofline(family: Family, rows: list[dict], batches: Sequence[int], machine: Machine) -> None:
    program = CvxpyLayer(family.problem, family.parameters, family.variables).program
    sample = family.sample(16, np.random.default_rng(0))
    values = program.values(*(torch.tensor(a, dtype=torch.float64) for a in sample)).flatten()
    data = [np.ascontiguousarray(value.numpy()) for value in (values.P, values.q, values.A, values.b)]
    arrays = described(program.structure)
    iterations = Engine(*arrays).solve(*data, 16, differentiator=Differentiator(*arrays))["iterations"].mean()
    cost = Cost.of(program.structure, iterations)
    print(
        f"{family.name:>18}: {iterations:.1f} iterations; forward and backward {cost.flops / 1e6:.1f} Mflop each "
        f"and {cost.bytes / 1e6:.1f} MB ({cost.flops / cost.bytes:.2f} flop per byte), or {1e-6 * cost.warp:.2f} "
        f"Mcycles of a warp; table of {cost.table / 1e3:.0f} kB"
    )
    for batch in batches:
        bounds = ", ".join(f"{name} {1e3 * t:.2f}" for name, t in cost.seconds(batch, machine).items())
        found = [r["seconds"].get("conelayers CUDA") for r in rows if r["batch"] == batch]
        measured = f"measured {1e3 * sum(found[0]):.2f}" if found and found[0] else "not measured"
        print(f"{'':>18} {batch:>6}  model of {machine.name}: {bounds} ms; {measured}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=["qp50", "qp10", "soc", "logistic", "mpc"], choices=FAMILIES)
    parser.add_argument("--batches", nargs="*", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=5.0, help="seconds after which a contestant leaves a family")
    parser.add_argument("--minutes", type=float, default=9.0, help="no batch is begun after so many")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    torch.set_default_dtype(torch.float64)
    there = Cuda().unavailable(DEVICE) is None
    batches = options.batches or ([128, 4096, 16384, 1024, 16, 1] if there else [1, 16, 128])
    name = torch.cuda.get_device_name(DEVICE) if there else "no CUDA device"
    cpu = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"device: {name}; CPU: {cpu}; torch {torch.__version__}", flush=True)
    for contestant in contestants():
        if contestant.missing:
            print(f"not available: {contestant.name}: {contestant.missing}")
    rows: list[dict] = []

    def keep(row: dict) -> None:
        rows.append(row)
        if options.json:
            options.json.write_text(json.dumps({"device": name, "cpu": cpu, "rows": rows}, indent=1))

    for key in options.families:
        family = FAMILIES[key]()
        if there and time.monotonic() < until:
            check(family)
        found = measure(family, batches, options.rounds, options.patience, until, keep)
        print_roofline(family, found, sorted(batches) if there else [1, 128, 1024, 4096, 16384], H200)


if __name__ == "__main__":
    main()

"""Layers on a GPU against the engine on the CPU and against their peers, at batches from 1 to 16384, with a roofline.

Contestants: conelayers on the device and on the CPU (all threads), qpth on the device (dense QPs), cvxpylayers with
Moreau on the device, cvxpylayers with diffcp on the CPU. What is not installed, or refuses, is named and left out. A
contestant leaves a family after the first batch that takes longer than `--patience` seconds.

Run: python benchmarks/gpu.py [--families qp50 soc] [--batches 1 128 4096] [--rounds 5] [--json FILE]
Without a CUDA device it says so, and measures what runs on the CPU at batches up to 128.
Needs: pip install ".[benchmarks,cuda]" qpth moreau-cuda13
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from families import FAMILIES, Family

from conelayers import CvxpyLayer
from conelayers.backends import Cuda
from conelayers.native import Engine, derivative_image, engine_image
from conelayers.program import ConeStructure
from conelayers.program.compiled import described

Call = Callable[..., tuple[torch.Tensor, ...]]
Build = Callable[[Family], Call]
DEVICE = torch.device("cuda", 0)


@dataclasses.dataclass(frozen=True)
class Machine:
    """Ceilings of a device: bytes and double precision operations per second, and the latency of its memory."""

    name: str
    bandwidth: float
    flops: float
    processors: int
    clock: float
    latency: float = 650.0  # cycles from a load to its value, from the memory of the device
    overlap: float = 6.0  # loads of one thread under way at a time: half a register tile of the factorization


# The vendor's figures; double precision without tensor cores.
H200 = Machine("H200 (datasheet)", 4.8e12, 34e12, 132, 1.755e9)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Operations and bytes of one problem, forward and backward, one problem per thread (docs/gpu.md derives them)."""

    flops: float
    bytes: float
    table: int  # bytes of work per problem

    @classmethod
    def of(cls, structure: ConeStructure, iterations: float, solves: int = 7, factors: float = 3.0) -> Cost:
        """`solves` with residuals per iteration; `factors` beside those of iterations: start, polish, adjoint."""
        arrays = described(structure)
        engine = Engine(*arrays)
        entries = structure.A_nnz + 2 * structure.P_nnz
        one_solve = 4 * engine.fill + 4 * entries
        rounds = iterations + factors
        # A register tile of four by four loads a quarter of a number per operation; a solve reads the factor twice; a
        # product reads its matrix once, and reads and writes what it adds to.
        moved = 2 * engine.flops + solves * 8 * (2 * engine.fill + 3 * entries)
        table = 8 * max(engine_image(*arrays)[3], derivative_image(*arrays)[3])
        return cls(rounds * (engine.flops + solves * one_solve), rounds * moved, table)

    def seconds(self, batch: int, machine: Machine) -> tuple[float, float, float]:
        """Lower bounds from bandwidth, arithmetic and latency."""
        waves = -(-batch // (32 * machine.processors * 8))
        latency = self.bytes / 8 / machine.overlap * machine.latency / machine.clock * max(1, waves)
        return batch * self.bytes / machine.bandwidth, batch * self.flops / machine.flops, latency


# ---- contestants ------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Contestant:
    """One way to solve a family, and where its tensors live."""

    name: str
    build: Build
    device: torch.device
    takes: Callable[[Family], bool] = lambda family: True
    missing: str = ""


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


def one_round(call: Call, arrays: Sequence[np.ndarray], device: torch.device) -> tuple[float, float, torch.Tensor]:
    """Seconds forward and backward, and the solution."""
    leaves = [torch.tensor(a, dtype=torch.float64, device=device, requires_grad=True) for a in arrays]
    start = wait(device)
    (x,) = call(*leaves)
    middle = wait(device)
    x.square().sum().backward()
    return middle - start, wait(device) - middle, x.detach()


def measure(family: Family, batches: Sequence[int], rounds: int, patience: float) -> list[dict]:
    """Medians of alternating rounds; one row per batch."""
    calls, rows = {}, []
    for contestant in contestants():
        if not contestant.missing and contestant.takes(family):
            calls[contestant.name] = (contestant.build(family), contestant.device)
    for batch in batches:
        arrays = family.sample(batch, np.random.default_rng(0))
        times, solutions, failures = {name: [] for name in calls}, {}, {}
        for round_ in range(rounds + 1):  # the first compiles and warms up
            for name, (call, device) in list(calls.items()):
                try:
                    *seconds, solutions[name] = one_round(call, arrays, device)
                except Exception as error:  # a peer may refuse a family or a size: say so and go on
                    failures[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                    del calls[name]
                    continue
                if round_:
                    times[name].append(seconds)
        reference = solutions.get("conelayers CPU")
        row = {"family": family.name, "batch": batch, "failures": failures, "seconds": {}, "difference": {}}
        for name, values in times.items():
            if name in failures or not values:
                continue
            row["seconds"][name] = np.median(values, axis=0).tolist()
            row["difference"][name] = (solutions[name].cpu() - reference).abs().max().item()
            if sum(row["seconds"][name]) > patience:
                calls.pop(name, None)
        rows.append(row)
        print_row(row)
    return rows


def print_row(row: dict) -> None:
    for name, (forward, backward) in row["seconds"].items():
        print(
            f"{row['family']:>18} {row['batch']:>6}  {name:<24} {1e3 * forward:9.2f} + {1e3 * backward:8.2f} ms   "
            f"values differ by {row['difference'][name]:.0e}"
        )
    for name, failure in row["failures"].items():
        print(f"{row['family']:>18} {row['batch']:>6}  {name:<24} left out: {failure[:90]}")


def print_roofline(family: Family, rows: list[dict], batches: Sequence[int], machine: Machine) -> None:
    program = CvxpyLayer(family.problem, family.parameters, family.variables).program
    sample = family.sample(16, np.random.default_rng(0))
    values = program.values(*(torch.tensor(a, dtype=torch.float64) for a in sample)).flatten()
    data = [np.ascontiguousarray(value.numpy()) for value in (values.P, values.q, values.A, values.b)]
    # Without Newton steps inside, as the kernels of the device solve.
    iterations = Engine(*described(program.structure)).solve(*data, 16)["iterations"].mean()
    cost = Cost.of(program.structure, iterations)
    print(
        f"{family.name:>18}: {cost.flops / 1e6:.1f} Mflop and {cost.bytes / 1e6:.1f} MB per problem, forward and "
        f"backward, "
        f"{cost.flops / cost.bytes:.2f} flop per byte; table of {cost.table / 1e3:.0f} kB"
    )
    for batch in batches:
        bandwidth, arithmetic, latency = (1e3 * t for t in cost.seconds(batch, machine))
        found = [r["seconds"].get("conelayers CUDA") for r in rows if r["batch"] == batch]
        measured = f"measured {1e3 * sum(found[0]):9.2f}" if found and found[0] else "not measured"
        print(
            f"{'':>18} {batch:>6}  model of {machine.name}: bandwidth {bandwidth:8.2f}, arithmetic {arithmetic:7.2f}, "
            f"latency {latency:7.2f} ms; {measured}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=["qp10", "qp50", "soc", "logistic", "mpc"], choices=FAMILIES)
    parser.add_argument("--batches", nargs="*", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patience", type=float, default=5.0, help="seconds after which a contestant leaves a family")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    there = Cuda().unavailable(DEVICE) is None
    batches = options.batches or ([1, 16, 128, 1024, 4096, 16384] if there else [1, 16, 128])
    name = torch.cuda.get_device_name(DEVICE) if there else "no CUDA device"
    cpu = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    print(f"device: {name}; CPU: {cpu}; torch {torch.__version__}")
    for contestant in contestants():
        if contestant.missing:
            print(f"not available: {contestant.name}: {contestant.missing}")
    rows = []
    for key in options.families:
        family = FAMILIES[key]()
        found = measure(family, batches, options.rounds, options.patience)
        print_roofline(family, found, batches if there else [1, 128, 1024, 4096, 16384], H200)
        rows += found
    if options.json:
        options.json.write_text(json.dumps({"device": name, "cpu": cpu, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

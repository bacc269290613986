"""Deep equilibrium solves against torchdeq and the unrolled iteration: same cell, data and accuracy, one process.

    python benchmarks/fixed_points.py [--device cpu] [--repeat 7] [--threads 1] [--json out.json]

For each cell torchdeq runs with each of its solvers (Anderson with lam = 1e-10) to a tolerance; ours then has to
reach the residual that the fastest of them actually reached, which is below the tolerance. Our derivative solve
gets the loosest of 1, 0.3 and 0.1 times torchdeq's tolerance at which our gradient's error against a long unrolled
iteration is no larger than that of torchdeq's most accurate solver. Runs alternate, so that a busy machine treats
all alike; times are medians, in CPU seconds of the process where the device is the CPU.

Memory is printed twice: `kept`, what autograd holds between forward and backward (tensors seen by saved-tensor
hooks), and `peak`, the growth of the high-water mark of the resident set over one solve with its gradient, each in
a fresh process; on a GPU the peak of allocated memory. Both for 50 and for 1000 Picard steps. The data are such that
no solver's error crosses a kink of a relu (smallest pre-activation 1e-3), where gradients jump.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from conelayers.fixed_points.iterations import Anderson, Picard
from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.fixed_points.modes.unrolled import Unrolled
from conelayers.layers.fixed_point import fixed_point
from conelayers.linalg.neumann import NeumannGMRES

TORCHDEQ = {"fixed_point_iter": {}, "anderson": {"lam": 1e-10}, "broyden": {}}


@dataclasses.dataclass
class Cell:
    """A map f(z, W, x), its data, and the number of recorded steps that serve as the reference."""

    name: str
    f: Callable[[Tensor, Tensor, Tensor], Tensor]
    W: Tensor
    x: Tensor
    steps: int


def dense_few(dtype, device) -> Cell:
    """Tanh cell of norm 1/2."""
    W = torch.randn(128, 128, dtype=dtype, device=device)
    W = 0.5 * W / torch.linalg.matrix_norm(W, ord=2)
    x = torch.randn(64, 128, dtype=dtype, device=device)
    return Cell("dense tanh, few steps", lambda z, W, x: torch.tanh(z @ W.T + x), W, x, 60)


def dense_many(dtype, device) -> Cell:
    """Relu cell that diffuses on a ring: spectrum over the whole of [-0.96, 0.96], hundreds of Picard steps."""
    eye = torch.eye(128, dtype=dtype, device=device)
    W = 0.98 * (0.5 * eye + 0.25 * (eye.roll(1, 0) + eye.roll(-1, 0)))
    x = torch.randn(64, 128, dtype=dtype, device=device) + 0.3
    return Cell("dense relu, hundreds", lambda z, W, x: torch.relu(z @ W.T + x), W, x, 1200)


def conv_few(dtype, device) -> Cell:
    """Convolutional tanh cell, contracting by about a half."""
    W = torch.randn(16, 16, 3, 3, dtype=dtype, device=device) / 40
    x = torch.randn(16, 16, 14, 14, dtype=dtype, device=device)
    return Cell("conv tanh, few steps", lambda z, W, x: torch.tanh(torch.conv2d(z, W, padding=1) + x), W, x, 60)


def conv_many(dtype, device) -> Cell:
    """Convolutional relu cell that blurs every channel."""
    blur = torch.tensor([1.0, 2.0, 1.0], dtype=dtype, device=device) / 4
    W = 0.98 * torch.eye(8, dtype=dtype, device=device)[:, :, None, None] * torch.outer(blur, blur)
    x = torch.randn(16, 8, 14, 14, dtype=dtype, device=device) + 0.3
    return Cell("conv relu, hundreds", lambda z, W, x: torch.relu(torch.conv2d(z, W, padding=1) + x), W, x, 1200)


def torchdeq_solve(cell: Cell, solver: str, tolerance: float) -> Tensor:
    """Forward pass of torchdeq, with its implicit gradient attached."""
    from torchdeq import get_deq

    limit = 200 if solver == "broyden" else 2000
    deq = get_deq(
        f_solver=solver, b_solver=solver, f_max_iter=limit, b_max_iter=limit, f_tol=tolerance, b_tol=tolerance, ift=True
    )
    out, _ = deq(
        lambda z: cell.f(z, cell.W, cell.x), torch.zeros_like(cell.x), solver_kwargs=TORCHDEQ[solver]
    )  # fmt: skip
    return out[-1]


def our_solve(cell: Cell, atol: float, tolerance: float) -> Tensor:
    """Forward pass of this package, with its default methods."""
    return fixed_point(
        cell.f,
        torch.zeros_like(cell.x),
        cell.W,
        cell.x,
        solver=Anderson(atol=atol, rtol=0),
        adjoint=ImplicitAdjoint(NeumannGMRES(tolerance=tolerance)),
    )


def unrolled_solve(cell: Cell, steps: int) -> Tensor:
    """The recorded iteration."""
    return fixed_point(cell.f, torch.zeros_like(cell.x), cell.W, cell.x, adjoint=Unrolled(steps))


def residual(cell: Cell, z: Tensor) -> float:
    """Largest 2-norm of f(z) - z over the batch."""
    with torch.no_grad():
        return float((cell.f(z, cell.W, cell.x) - z).flatten(1).norm(dim=1).max())


def kept_bytes(solve: Callable[[], Tensor]) -> int:
    """What autograd holds between forward and backward."""
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        sizes[t.data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        solve()
    return sum(sizes.values())


def clock(device: str) -> float:
    """CPU seconds of this process, or seconds after the device has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(cell: Cell, runs: dict[str, Callable[[], Tensor]], repeat: int, device: str) -> dict[str, dict[str, Any]]:
    """Alternate the runs; medians of forward and backward."""
    times = {name: ([], []) for name in runs}
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(repeat + 1):
        for name, solve in runs.items():
            a = clock(device)
            z = solve()
            b = clock(device)
            gradients = torch.autograd.grad(z.sum(), (cell.W, cell.x))
            c = clock(device)
            times[name][0].append(b - a)
            times[name][1].append(c - b)
            rows[name] = {"residual": residual(cell, z.detach()), "gradients": gradients}
    for name, (forward, backward) in times.items():
        # The first round warms up.
        rows[name] |= {"forward": statistics.median(forward[1:]), "backward": statistics.median(backward[1:])}
        rows[name]["kept"] = kept_bytes(runs[name])
    return rows


def error(gradients: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    """Largest relative error of the gradients."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(gradients, exact, strict=True))


def adjoint_tolerance(cell: Cell, target: float, tolerance: float, exact: tuple[Tensor, ...], goal: float) -> float:
    """The loosest tolerance of our adjoint, relative to a cotangent of ones, whose gradients are as good as `goal`."""
    size = cell.x[0].numel() ** 0.5  # torchdeq's tolerance is absolute
    for factor in (1.0, 0.3):
        gradients = torch.autograd.grad(our_solve(cell, target, factor * tolerance / size).sum(), (cell.W, cell.x))
        if error(gradients, exact) <= goal:
            return factor * tolerance / size
    return 0.1 * tolerance / size


def compare(cell: Cell, tolerance: float, repeat: int, device: str) -> list[dict[str, Any]]:
    """All runs on one cell."""
    cell.W.requires_grad_()
    cell.x.requires_grad_()
    exact = torch.autograd.grad(unrolled_solve(cell, 2 * cell.steps).sum(), (cell.W, cell.x))
    peers = {f"torchdeq {s}": (lambda s=s: torchdeq_solve(cell, s, tolerance)) for s in TORCHDEQ}
    rows = measure(cell, peers, 2, device)
    quickest = min((row for row in rows.values() if row["residual"] >= 0), key=lambda row: row["forward"])  # not NaN
    target = min(tolerance, quickest["residual"])
    adjoint = adjoint_tolerance(
        cell,
        target,
        tolerance,
        exact,
        min(error(row["gradients"], exact) for row in rows.values() if row["residual"] >= 0),
    )
    # Who is far behind in the first round need not run again.
    quick = min(row["forward"] + row["backward"] for row in rows.values())
    slow = {name: row for name, row in rows.items() if row["forward"] + row["backward"] > 2.5 * quick}
    ours = {"ours": lambda: our_solve(cell, target, adjoint), "unrolled": lambda: unrolled_solve(cell, cell.steps)}
    rows = slow | measure(cell, {n: f for n, f in peers.items() if n not in slow} | ours, repeat, device)
    table = []
    for name, row in rows.items():
        wrong = error(row.pop("gradients"), exact)
        table.append({"cell": cell.name, "dtype": str(cell.W.dtype)[6:], "run": name, **row, "gradient_error": wrong})
    report(table, tolerance)
    return table


def report(table: list[dict[str, Any]], tolerance: float) -> None:
    """Print one cell's runs and the ratios."""
    print(f"\n{table[0]['cell']}, {table[0]['dtype']}, tolerance {tolerance:g}")
    for row in table:
        print(
            f"  {row['run']:26s} forward {1e3 * row['forward']:8.2f} ms  backward {1e3 * row['backward']:8.2f} ms  "
            f"residual {row['residual']:.1e} gradient error {row['gradient_error']:.1e} kept {row['kept'] / 1e6:.2f} MB"
        )
    mine = next(row for row in table if row["run"] == "ours")
    peers = [row for row in table if row["run"].startswith("torchdeq")]
    forward = min(row["forward"] for row in peers) / mine["forward"]
    # torchdeq may solve forward by one method and backward by another.
    fastest = min(row["forward"] for row in peers) + min(row["backward"] for row in peers)
    both = fastest / (mine["forward"] + mine["backward"])
    print(f"  ratio to torchdeq's fastest: forward {forward:.2f}, forward and backward {both:.2f}", flush=True)


def memory(device: str) -> list[dict[str, Any]]:
    """Kept and peak memory of ours and of the unrolled iteration on a convolutional cell, for two step counts."""
    table = []
    print("\nmemory of 50 and of 1000 Picard steps, conv relu, float32, batch 64")
    for name in ("ours", "unrolled"):
        for steps in (50, 1000):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                kept, peak = pool.apply(_footprint, (name, steps, device))
            table.append({"run": name, "steps": steps, "kept": kept, "peak": peak})
            print(f"  {name:10s} {steps:5d} steps   kept {kept / 1e6:9.2f} MB   peak {peak / 1e6:9.1f} MB", flush=True)
    return table


def _footprint(name: str, steps: int, device: str) -> tuple[int, int]:
    """Bytes kept for the backward pass, and the growth of peak memory over a solve with its gradient."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cell = conv_many(torch.float32, device)
    cell.x = cell.x.repeat(4, 1, 1, 1)
    cell.W.requires_grad_()

    def solve() -> Tensor:
        if name == "unrolled":
            return unrolled_solve(cell, steps)
        z0 = torch.zeros_like(cell.x)
        return fixed_point(cell.f, z0, cell.W, cell.x, solver=Picard(atol=0, rtol=0, max_steps=steps))

    def peak() -> int:
        if device != "cpu":
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    small = fixed_point(cell.f, torch.zeros_like(cell.x), cell.W, cell.x, solver=Picard(max_steps=2))
    torch.autograd.grad(small.sum(), cell.W)  # libraries, thread pools and workspaces are there from now on
    before = peak()
    torch.autograd.grad(solve().sum(), cell.W)
    grown = peak() - before
    return kept_bytes(solve), grown


def main() -> None:
    """Run all cells in both precisions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    table, footprints = [], memory(arguments.device)
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.float64, 1e-8)):
        for make in (dense_few, dense_many, conv_few, conv_many):
            torch.manual_seed(3)
            table += compare(make(dtype, arguments.device), tolerance, arguments.repeat, arguments.device)
    if arguments.json:
        arguments.json.write_text(json.dumps({"speed": table, "memory": footprints}, indent=1))


if __name__ == "__main__":
    main()

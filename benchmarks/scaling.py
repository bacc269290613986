"""How the cost grows with the batch and with the size of a dense QP, against the fastest peer and a floor.

The floor counts the additions and multiplications that factorizations and triangular solves need and divides by the
rate that this machine shows in large double-precision matrix products. Counted are as many factorizations as the
interior-point method made iterations on average, one Newton step, and one factorization for the backward pass; each
comes with three solves. Equilibration, products, cones, conversions, autograd and CVXPY's map from parameters are not
in it.

Run: python benchmarks/scaling.py [--figure FILE] [--seconds 2]
Needs: pip install ".[benchmarks]"
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from families import Family, dense_qp
from layers import moreau, ours, tensors, versions

from conelayers.program.compiled import engine

BATCHES = (1, 4, 16, 64, 256, 1024, 4096)
SIZES = (5, 10, 20, 50, 100, 150)


def multiply_add_rate(n: int = 1536) -> float:
    """Additions and multiplications per second in products of n x n matrices, the best of ten."""
    a, b = torch.rand(n, n, dtype=torch.float64), torch.rand(n, n, dtype=torch.float64)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * n**3 / min(times)


def measured(call, arrays, seconds: float) -> float:
    """Median seconds of forward plus backward over repeated calls, at most `seconds` in all; one call wakes it."""
    times: list[float] = []
    for k in range(50):
        leaves = tensors(arrays)
        start = time.perf_counter()
        (x,) = call(*leaves)
        x.sum().backward()
        if k or sum(times) > seconds:
            times.append(time.perf_counter() - start)
        if k and sum(times) > seconds:
            break
    return float(np.median(times))


def floor(layer, arrays, batch: int, rate: float) -> float:
    """Seconds below which the linear algebra alone cannot come on this machine."""
    kkt = engine(layer.program.structure)
    iterations = float(layer.solve(*tensors(arrays, False)).cone.iterations.double().mean())
    factorizations, solves = iterations + 2, 3 * (iterations + 2)
    return batch * (factorizations * kkt.flops + solves * 4 * kkt.fill) / rate


Row = tuple[float, float, float]
"""Seconds: conelayers, the peer, the floor."""


def row(family: Family, batch: int, rate: float, seconds: float, rng: np.random.Generator) -> Row:
    arrays = family.sample(batch, rng)
    layer, peer = ours(None)(family), moreau(family)
    return measured(layer, arrays, seconds), measured(peer, arrays, seconds), floor(layer, arrays, batch, rate)


def print_table(title: str, rows: dict[int, Row]) -> None:
    print(f"\n| {title} | conelayers | Moreau | times faster | floor | over the floor |\n|---|---|---|---|---|---|")
    for key, (mine, peer, least) in rows.items():
        cells = f"{mine * 1e3:.2f} | {peer * 1e3:.2f} | {peer / mine:.1f} | {least * 1e3:.3f} | {mine / least:.1f}"
        print(f"| {key} | {cells} |")


def draw(tables: dict[str, dict[int, Row]], path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(tables), figsize=(11, 4), layout="constrained")
    for axis, (title, rows) in zip(axes, tables.items(), strict=True):
        for k, (label, style) in enumerate(
            (("conelayers", "o-"), ("cvxpylayers Moreau", "s-"), ("floor of the linear algebra", "k--"))
        ):
            axis.loglog(list(rows), [values[k] * 1e3 for values in rows.values()], style, label=label)
        axis.set(xlabel=title, ylabel="forward + backward (ms)")
        axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--seconds", type=float, default=2.0, help="per point and contestant")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rate = multiply_add_rate()
    print(f"{versions()}; {torch.get_num_threads()} threads, {rate / 1e9:.0f} Gflop/s in matrix products")
    rng = np.random.default_rng(0)
    family = dense_qp(50)
    over_batch = {batch: row(family, batch, rate, options.seconds, rng) for batch in BATCHES}
    print_table("batch (n = 50)", over_batch)
    over_size = {n: row(dense_qp(n), 128, rate, options.seconds, rng) for n in SIZES}
    print_table("n (batch 128)", over_size)
    if options.figure:
        draw({"batch (n = 50)": over_batch, "n (batch 128)": over_size}, options.figure)


if __name__ == "__main__":
    main()

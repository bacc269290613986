"""Warm starts: forward time from the previous solution over that from nothing, as the parameters move.

Each family's parameters go a part of the way to another, independent sample of them; the new problems are solved from
nothing and from the old solutions, in alternation. In brackets: the part of the items that need no iterations.

Run: python benchmarks/warm_start.py [--families mpc qp50] [--batch 128] [--rounds 9]
Needs: pip install ".[benchmarks]"
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from families import FAMILIES

from conelayers import CvxpyLayer

STEPS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def measure(layer: CvxpyLayer, here, there, step: float, rounds: int) -> tuple[float, float, float]:
    """Milliseconds from nothing and from the old solutions (medians), and the part of items without iterations."""
    start = layer.solve(*(torch.tensor(a) for a in here))
    moved = [torch.tensor(a + step * (b - a)) for a, b in zip(here, there, strict=True)]
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(rounds):
        for warm in times:
            begin = time.perf_counter()
            found = layer.solve(*moved, warm_start=start if warm else False)
            times[warm].append(time.perf_counter() - begin)
            iterations = found.iterations
    cold, warm = (1e3 * float(np.median(times[key])) for key in (False, True))
    return cold, warm, float((iterations == 0).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", nargs="+", default=["mpc", "qp50", "soc", "portfolio", "logistic", "sdp"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    columns = [f"{100 * step:g} %" for step in STEPS[:-1]] + ["another sample"]
    print("| family | from nothing, ms | " + " | ".join(columns) + " |")
    print("|---" * (len(STEPS) + 2) + "|")
    for name in args.families:
        family, rng = FAMILIES[name](), np.random.default_rng(0)
        layer = CvxpyLayer(family.problem, family.parameters, family.variables)
        here, there = family.sample(args.batch, rng), family.sample(args.batch, rng)
        found = [measure(layer, here, there, step, args.rounds) for step in STEPS]
        cells = [f"{warm / cold:.2f} ({100 * part:.0f} %)" for cold, warm, part in found]
        print(
            f"| {family.name} | {np.median([cold for cold, *_ in found]):.1f} | " + " | ".join(cells) + " |", flush=True
        )


if __name__ == "__main__":
    with torch.no_grad():
        main()

"""Layers against their peers: forward and backward time, residuals and gradient errors, all measured in the same run.

Peers: cvxpylayers with diffcp (each derivative mode; Clarabel inside, SCS at 1e-9 for semidefinite problems, where
diffcp's gradients with Clarabel are wrong) and cvxpylayers with Moreau (left out of semidefinite problems). Every
contestant solves the same parameters; rounds alternate between contestants and medians are reported. At its turn a
contestant runs twice and the second run counts, as in a training loop: the first wakes its threads and caches.

Run: python benchmarks/layers.py [--families qp50 mpc] [--batch 128] [--rounds 5] [--figure FILE] [--json FILE]
Needs: pip install ".[benchmarks]"
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from families import FAMILIES, Family

from conelayers import CvxpyLayer
from conelayers.backends import Clarabel

Call = Callable[..., tuple[torch.Tensor, ...]]


@dataclasses.dataclass
class Contestant:
    """One way to run a family: how it is built and its measured times."""

    name: str
    build: Callable[[Family], Call]
    construct: float = float("nan")
    forward: list[float] = dataclasses.field(default_factory=list)
    backward: list[float] = dataclasses.field(default_factory=list)
    value_error: float = float("nan")
    gradient_error: float = float("nan")
    failure: str = ""

    @property
    def median(self) -> tuple[float, float]:
        """Median forward and backward time in seconds."""
        return float(np.median(self.forward)), float(np.median(self.backward))


def ours(solver: str | None) -> Callable[[Family], Call]:
    return lambda family: CvxpyLayer(family.problem, family.parameters, family.variables, solver=solver)


def diffcp(mode: str) -> Callable[[Family], Call]:
    def build(family: Family) -> Call:
        from cvxpylayers.torch import CvxpyLayer as Peer

        method = (
            {"solve_method": "SCS", "eps": 1e-9, "max_iters": 100_000}
            if family.semidefinite
            else {"solve_method": "Clarabel"}
        )
        return Peer(family.problem, family.parameters, family.variables, solver_args={**method, "mode": mode})

    return build


def moreau(family: Family) -> Call:
    from cvxpylayers.torch import CvxpyLayer as Peer

    return Peer(family.problem, family.parameters, family.variables, solver="MOREAU")


def contestants(family: Family, include_peers: bool) -> list[Contestant]:
    found = [Contestant("conelayers", ours(None)), Contestant("conelayers Clarabel", ours("CLARABEL"))]
    if include_peers:
        found += [Contestant(f"cvxpylayers {mode}", diffcp(mode)) for mode in ("lsqr", "lsmr", "dense")]
        if not family.semidefinite:
            found.append(Contestant("cvxpylayers Moreau", moreau))
    return found


def tensors(arrays, requires_grad=True) -> list[torch.Tensor]:
    return [torch.tensor(a, dtype=torch.float64, requires_grad=requires_grad) for a in arrays]


def turn(contestant: Contestant, call: Call, arrays, weights) -> None:
    """One run to wake it, one that counts; the slow ones are awake enough."""
    if not contestant.forward or sum(contestant.median) < 0.3:
        one_round(contestant, call, arrays, weights, False)
    one_round(contestant, call, arrays, weights, True)


def one_round(contestant: Contestant, call: Call, arrays, weights, rounds_kept: bool) -> None:
    leaves = tensors(arrays)
    start = time.perf_counter()
    (x,) = call(*leaves)
    middle = time.perf_counter()
    (x * weights).sum().backward()
    end = time.perf_counter()
    if rounds_kept:
        contestant.forward.append(middle - start)
        contestant.backward.append(end - middle)


def reference_slopes(family: Family, arrays, weights, directions, step=1e-6):
    """Solutions, and slopes of the loss per item along directions: central differences of polished solutions."""
    layer = CvxpyLayer(
        family.problem, family.parameters, family.variables, solver=Clarabel(tol=1e-12), on_failure="nan"
    )
    exact = layer.solve(*tensors(arrays, False))
    dims = tuple(range(1, weights.dim()))

    def loss(sign, direction):
        moved = [a + sign * step * d for a, d in zip(arrays, direction, strict=True)]
        solution = layer.solve(*tensors(moved, False))
        accurate = solution.primal_residual.maximum(solution.dual_residual) < 1e-12
        value = (solution.variables[0] * weights).sum(dims)
        return torch.where(accurate, value, torch.nan)

    slopes = [(loss(1, d) - loss(-1, d)) / (2 * step) for d in directions]
    return exact.variables[0], torch.stack(slopes)


def accuracy(contestant: Contestant, call: Call, family: Family, arrays, weights, reference) -> None:
    """Worst relative error of the values and median relative error of slopes over items and directions."""
    values, slopes, directions = reference
    leaves = tensors(arrays)
    (x,) = call(*leaves)
    gradients = torch.autograd.grad((x * weights).sum(), leaves)
    predicted = torch.stack(
        [
            sum(
                (g * torch.tensor(d)).flatten(1).sum(1) if g.dim() > 1 else g * torch.tensor(d)
                for g, d in zip(gradients, direction)
            )
            for direction in directions
        ]
    )
    contestant.value_error = float((x.detach() - values).abs().max() / values.abs().max())
    contestant.gradient_error = float(((predicted - slopes).abs() / slopes.abs().clamp(min=1e-3)).nanmedian())


def measure(family: Family, batch: int, rounds: int, include_peers: bool, seed: int = 0) -> list[Contestant]:
    rng = np.random.default_rng(seed)
    arrays = family.sample(batch, rng)
    weights = torch.tensor(rng.standard_normal((batch, *family.variables[0].shape)))
    few = min(batch, 16)
    small = [a[:few] for a in arrays]
    directions = [[rng.standard_normal(a.shape) for a in small] for _ in range(4)]
    values, slopes = reference_slopes(family, small, weights[:few], directions)
    running: list[tuple[Contestant, Call]] = []
    found = contestants(family, include_peers)
    for contestant in found:
        try:
            start = time.perf_counter()
            call = contestant.build(family)
            contestant.construct = time.perf_counter() - start
            one_round(contestant, call, arrays, weights, False)
            accuracy(contestant, call, family, small, weights[:few], (values, slopes, directions))
            running.append((contestant, call))
        except Exception as error:  # a peer that cannot run is reported, not hidden
            contestant.failure = f"{type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}"
    for _ in range(rounds):
        fastest = min((sum(c.median) for c, _ in running if c.forward), default=float("inf"))
        for contestant, call in running:
            # One measured round is enough for what is twenty times slower than the fastest.
            if not contestant.forward or sum(contestant.median) < 20 * fastest:
                turn(contestant, call, arrays, weights)
    return found


def print_table(family: Family, batch: int, found: list[Contestant]) -> dict:
    print(f"\n{family.name}, batch {batch}")
    print(f"{'':24}{'construct':>10}{'forward':>10}{'backward':>10}{'total':>10}{'value err':>11}{'grad err':>11}")
    rows = {}
    for c in found:
        if c.failure or not c.forward:
            print(f"{c.name:24}{c.failure}")
            continue
        forward, backward = c.median
        print(
            f"{c.name:24}{c.construct * 1e3:8.1f}ms{forward * 1e3:8.1f}ms{backward * 1e3:8.1f}ms"
            f"{(forward + backward) * 1e3:8.1f}ms{c.value_error:11.1e}{c.gradient_error:11.1e}"
        )
        rows[c.name] = {
            "construct": c.construct, "forward": forward, "backward": backward,
            "value_error": c.value_error, "gradient_error": c.gradient_error,
        }  # fmt: skip
    right = [n for n in rows if n.startswith("cvxpylayers") and rows[n]["value_error"] < 1e-4]
    if right:
        best = min(right, key=lambda n: rows[n]["forward"] + rows[n]["backward"])
        for name in ("conelayers", "conelayers Clarabel"):
            ratio = (rows[best]["forward"] + rows[best]["backward"]) / (rows[name]["forward"] + rows[name]["backward"])
            print(f"  {name}: {ratio:.2f} times the speed of the best peer ({best})")
            rows[name]["ratio"] = ratio
    return rows


def draw(results: dict[str, dict], batch: int, path: Path) -> None:
    import matplotlib.pyplot as plt

    names = sorted({name for rows in results.values() for name in rows})
    figure, axis = plt.subplots(figsize=(11, 4.2), layout="constrained")
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        totals = [
            rows[name]["forward"] + rows[name]["backward"] if name in rows else np.nan for rows in results.values()
        ]
        axis.bar(np.arange(len(results)) + i * width, np.array(totals) * 1e3, width, label=name)
    axis.set_yscale("log")
    axis.set_xticks(np.arange(len(results)) + 0.4 - width / 2, list(results), fontsize=9)
    axis.set(ylabel="forward + backward (ms)", title=f"Batch of {batch}, {torch.get_num_threads()} threads")
    axis.legend(fontsize=8, ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def versions() -> str:
    packages = ["conelayers", "torch", "cvxpy", "clarabel", "scs", "diffcp", "cvxpylayers", "moreau", "numpy"]
    found = []
    for package in packages:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} -")
    return f"{platform.machine()}, Python {platform.python_version()}, " + ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(versions())
    results = {}
    for key in options.families:
        family = FAMILIES[key]()
        found = measure(family, options.batch, options.rounds, not options.no_peers)
        results[family.name] = print_table(family, options.batch, found)
    if options.figure:
        draw(results, options.batch, options.figure)
    if options.json:
        options.json.write_text(
            json.dumps({"versions": versions(), "batch": options.batch, "results": results}, indent=1)
        )


if __name__ == "__main__":
    main()

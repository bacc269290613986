"""What a call costs over the compiled engine's own work, one problem at a time: forward plus backward.

In every round follow each other: the layer's call and its backward pass, the engine's solve and pullback alone on
arrays that are ready, and an autograd function of torch with the same parameters and results that computes nothing.
Each thus finds the processor's caches as the others left them, as it would in a network.

Run: python benchmarks/call.py [--families qp10 mpc] [--rounds 2000]
Needs: pip install ".[benchmarks]"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from families import FAMILIES, Family
from torch import Tensor

from conelayers import CvxpyLayer
from conelayers.program.compiled import compiled_differentiator, engine, rows


def layer_call(layer: CvxpyLayer, params: Sequence[Tensor]) -> Callable[[], object]:
    """The sum of all results, differentiated in all parameters."""
    return lambda: torch.autograd.grad(_total(layer(*params)), params)


def engine_work(layer: CvxpyLayer, params: Sequence[Tensor]) -> Callable[[], object]:
    """The compiled solve and pullback of the same programme, arrays in and arrays out."""
    program, threads = layer.program.values(*params).flatten(), torch.get_num_threads()
    solver, kernels = engine(program.structure), compiled_differentiator(program.structure)
    assert kernels is not None
    P, q, A, b = (rows(part) for part in (program.P, program.q, program.A, program.b))
    gx, zero = np.ones_like(q), np.zeros_like(b)

    def work() -> None:
        found = solver.solve(P, q, A, b, 1, differentiator=kernels, threads=threads)
        kernels.pullback(P, A, found["x"], found["y"], found["s"], gx, zero, zero, threads=threads)

    return work


def empty_node(layer: CvxpyLayer, params: Sequence[Tensor]) -> Callable[[], object]:
    """The part that is torch's own: a function of the parameters that returns ready tensors, forward and backward."""
    results = [result.detach() for result in layer(*params)]
    gradients = [torch.zeros_like(p) for p in params]

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *values: Tensor) -> tuple[Tensor, ...]:
            ctx.save_for_backward(*values)
            return tuple(result.view_as(result) for result in results)

        @staticmethod
        def backward(ctx, *cotangents: Tensor) -> tuple[Tensor, ...]:
            assert len(ctx.saved_tensors) == len(gradients)
            return tuple(gradients)

    def node() -> object:
        found: Any = Nothing.apply(*params)
        return torch.autograd.grad(_total(found), params)

    return node


def _total(results: Sequence[Tensor]) -> Tensor:
    total: Any = sum(result.sum() for result in results)
    return total


def measure(family: Family, rounds: int) -> list[float]:
    """Median milliseconds of the whole call, the engine and the empty node."""
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    params = [torch.as_tensor(value).requires_grad_() for value in family.sample(1, np.random.default_rng(0))]
    contestants = [make(layer, params) for make in (layer_call, engine_work, empty_node)]
    times = np.empty((rounds, len(contestants)))
    for round_ in range(-rounds // 10, rounds):  # the first ones wake caches and threads, and are overwritten
        for k, contestant in enumerate(contestants):
            begin = time.perf_counter()
            contestant()
            times[round_, k] = time.perf_counter() - begin
    return list(1e3 * np.median(times, axis=0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", nargs="+", default=list(FAMILIES))
    parser.add_argument("--rounds", type=int, default=2000)
    args = parser.parse_args()
    print("| family | whole call, ms | engine | torch's empty node | call over engine | without torch's part |")
    print("|---" * 6 + "|")
    for name in args.families:
        family = FAMILIES[name]()
        call, alone, node = measure(family, args.rounds)
        cells = [f"{value:.3f}" for value in (call, alone, node)] + [
            f"{call / alone:.1f}",
            f"{(call - node) / alone:.1f}",
        ]
        print(f"| {family.name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()

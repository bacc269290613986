"""Backward passes where the solution is not unique, beside those of regular data and beside cvxpylayers'.

    python benchmarks/irregular.py [rounds]

Four kinds: ties of a linear programme at zero initialisation, underdetermined least squares, missing samples, and
sums of block norms that leave part of x free. In each round every contender takes its turn; the table has the fastest
rounds. cvxpylayers (with diffcp) is run where it is installed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import torch

from conelayers import CvxpyLayer

Kind = tuple[cp.Problem, list[cp.Parameter], list[cp.Variable], list[torch.Tensor], list[torch.Tensor]]


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=float))


def ties(rng: np.random.Generator, n: int = 30, batch: int = 64) -> Kind:
    x, c = cp.Variable(n), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1])
    return problem, [c], [x], [tensor(np.zeros((batch, n)))], [tensor(rng.standard_normal((batch, n)))]


def underdetermined(rng: np.random.Generator, n: int = 30, batch: int = 64) -> Kind:
    x, b, ridge = cp.Variable(n), cp.Parameter(20), cp.Parameter(nonneg=True)
    M = rng.standard_normal((20, n))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(M @ x - b) + ridge * cp.sum_squares(x)))
    data = tensor(rng.standard_normal((batch, 20)))
    return problem, [b, ridge], [x], [data, tensor(np.zeros(batch))], [data, tensor(np.ones(batch))]


def missing(rng: np.random.Generator, n: int = 20, batch: int = 64, samples: int = 40) -> Kind:
    """Weights of zero leave fewer samples than unknowns."""
    features, x = rng.standard_normal((samples, n)), cp.Variable(n)
    w, y = cp.Parameter(samples, nonneg=True), cp.Parameter(samples)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(w, features @ x) - y)), [x <= 5])
    few, all_ = np.ones((batch, samples)), np.ones((batch, samples))
    few[:, n // 2 :] = 0
    values = rng.standard_normal((batch, samples))
    return problem, [w, y], [x], [tensor(few), tensor(few * values)], [tensor(all_), tensor(values)]


def block_norms(rng: np.random.Generator, blocks: int = 76, size: int = 10) -> Kind:
    x, p, ridge = cp.Variable(blocks * size), cp.Parameter((blocks, 3)), cp.Parameter(nonneg=True)
    maps = [rng.standard_normal((3, size)) for _ in range(blocks)]
    parts = [cp.norm(M @ x[g * size : (g + 1) * size] - p[g]) for g, M in enumerate(maps)]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.hstack(parts)) + ridge * cp.sum_squares(x)))
    data = tensor(rng.standard_normal((blocks, 3)))
    return problem, [p, ridge], [x], [data, tensor(0.0)], [data, tensor(0.1)]


def backward(layer: Callable[..., tuple[torch.Tensor, ...]], params: list[torch.Tensor]) -> Callable[[], float]:
    """A function that runs one backward pass and returns its seconds."""

    def run() -> float:
        inputs = [p.clone().requires_grad_() for p in params]
        (x,) = layer(*inputs)
        cotangent = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
        start = time.perf_counter()
        torch.autograd.grad(x, inputs, cotangent)
        return time.perf_counter() - start

    return run


def peer(problem: cp.Problem, params: list, variables: list) -> Callable[..., tuple[torch.Tensor, ...]] | None:
    try:
        from cvxpylayers.torch import CvxpyLayer as Theirs
    except ImportError:
        return None
    return Theirs(problem, parameters=params, variables=variables)


def main(rounds: int = 7) -> None:
    print(f"{'kind':16s} {'regular':>10s} {'irregular':>10s} {'ratio':>7s} {'cvxpylayers':>12s}   (ms, fastest)")
    for make in (ties, underdetermined, missing, block_norms):
        problem, params, variables, irregular, regular = make(np.random.default_rng(0))
        ours, theirs = CvxpyLayer(problem, params, variables), peer(problem, params, variables)
        contenders = {"regular": backward(ours, regular), "irregular": backward(ours, irregular)}
        if theirs is not None:
            contenders["theirs"] = backward(theirs, irregular)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, run in contenders.items():
                seconds[name].append(run())
        ms = {name: 1e3 * min(values) for name, values in seconds.items()}
        ratio = ms["irregular"] / ms["regular"]
        last = f"{ms['theirs']:12.1f}" if "theirs" in ms else f"{'-':>12s}"
        print(f"{make.__name__:16s} {ms['regular']:10.2f} {ms['irregular']:10.2f} {ratio:7.1f} {last}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))

"""Large semidefinite blocks: this package, SCS and Clarabel alone, and cvxpylayers with SCS, in the same run.

Run: python benchmarks/semidefinite.py [--orders 40 60 100] [--families max_cut] [--rounds 3] [--without-clarabel]
Needs: pip install ".[benchmarks]"

Times are medians of alternating rounds; the gradient's error is relative, against central differences of this package's
solutions (fourth order, residuals below 1e-11), in one random direction. Peers' values are compared with ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import torch

from conelayers import CvxpyLayer
from conelayers.backends import SCS, Clarabel

torch.set_default_dtype(torch.float64)


def _symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    root = rng.normal(size=(n, n))
    return (root + root.T) / 2


def max_cut(n: int, rng: np.random.Generator):
    """The relaxation of max-cut: n equalities of one entry each."""
    X, C = cp.Variable((n, n), PSD=True), cp.Parameter((n, n), symmetric=True)
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), [cp.diag(X) == 1]), C, X, _symmetric(rng, n)


def dense_equalities(n: int, rng: np.random.Generator):
    """Equalities with dense matrices, n / 2 + 1 of them."""
    X, C = cp.Variable((n, n), PSD=True), cp.Parameter((n, n), symmetric=True)
    inside, sides = _symmetric(rng, n), [_symmetric(rng, n) for _ in range(n // 2 + 1)]
    inside = inside @ inside / n
    rows = [cp.trace(E @ X) == float(np.sum(E * inside)) for E in sides]
    root = _symmetric(rng, n)
    return cp.Problem(cp.Minimize(cp.trace(C @ X)), rows), C, X, root @ root / n + np.eye(n)


def matrix_inequality(n: int, rng: np.random.Generator):
    """A matrix inequality of order n in 31 variables."""
    x, c = cp.Variable(31), cp.Parameter(31)
    sides, root = [_symmetric(rng, n) for _ in range(31)], _symmetric(rng, n) / np.sqrt(n)
    rows = [sum(x[i] * F for i, F in enumerate(sides)) << 10 * np.eye(n)]
    return cp.Problem(cp.Minimize(c @ x), rows), c, x, -np.array([np.sum(root @ root * F) for F in sides])


def nearest_correlation(n: int, rng: np.random.Generator):
    """The nearest correlation matrix."""
    X, C = cp.Variable((n, n), symmetric=True), cp.Parameter((n, n), symmetric=True)
    return cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.diag(X) == 1, X >> 0]), C, X, _symmetric(rng, n)


FAMILIES: dict[str, Callable] = {
    family.__name__: family for family in (max_cut, dense_equalities, matrix_inequality, nearest_correlation)
}


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


class _Case:
    """One family at one order."""

    def __init__(self, name: str, order: int) -> None:
        rng = np.random.default_rng(0)
        problem, parameter, variable, value = FAMILIES[name](order, rng)
        self.value, self.weights = value, torch.tensor(rng.normal(size=variable.shape))
        direction = rng.normal(size=value.shape)
        self.direction = torch.tensor(direction + direction.T if value.ndim == 2 else direction)
        self.layer = CvxpyLayer(problem, [parameter], [variable])
        self.program = self.layer.program.values(torch.tensor(value))
        self.peer, self.peer_args = _cvxpylayer(problem, parameter, variable)

    def both_ways(self, layer, **arguments) -> tuple[float, float, torch.Tensor, torch.Tensor]:
        """Time forward, time backward, the solution and the gradient."""
        point = torch.tensor(self.value, requires_grad=True)
        forward, (found,) = _timed(lambda: layer(point, **arguments))
        backward, (gradient,) = _timed(lambda: torch.autograd.grad((found * self.weights).sum(), point))
        return forward, backward, found.detach(), gradient

    def difference(self) -> float:
        """The derivative along the direction."""

        def at(step: float) -> float:
            with torch.no_grad():
                (found,) = self.layer(torch.tensor(self.value) + step * self.direction)
            return float((found * self.weights).sum())

        h = 1e-4
        return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def _cvxpylayer(problem, parameter, variable):
    try:
        from cvxpylayers.torch import CvxpyLayer as Peer
    except ImportError:
        return None, {}
    args = {"solve_method": "SCS", "eps": 1e-9, "max_iters": 100_000}
    return Peer(problem, [parameter], [variable]), {"solver_args": args}


def run(name: str, order: int, rounds: int, clarabel: bool) -> None:
    """Print one row."""
    case = _Case(name, order)
    times: dict[str, list[float]] = {}
    case.both_ways(case.layer)  # first uses are not counted
    for _ in range(rounds):
        forward, backward, found, gradient = case.both_ways(case.layer)
        times.setdefault("forward", []).append(forward)
        times.setdefault("backward", []).append(backward)
        times.setdefault("SCS alone", []).append(_timed(lambda: SCS().solve(case.program))[0])
        if clarabel:
            times.setdefault("Clarabel alone", []).append(_timed(lambda: Clarabel().solve(case.program))[0])
        if case.peer is not None:
            peer = case.both_ways(case.peer, **case.peer_args)
            times.setdefault("cvxpylayers forward", []).append(peer[0])
            times.setdefault("cvxpylayers backward", []).append(peer[1])
    slope = case.difference()

    def error(value: torch.Tensor) -> float:
        return abs(float((value * case.direction).sum()) - slope) / abs(slope)

    cells = [f"{label} {np.median(taken):.3f} s" for label, taken in times.items()]
    cells.append(f"gradient error {error(gradient):.0e}")
    if case.peer is not None:
        far = float((peer[2] - found).abs().max() / found.abs().max())
        cells.append(f"cvxpylayers' gradient error {error(peer[3]):.0e}, value {far:.0e}")
    print(f"{name} {order}: " + "; ".join(cells), flush=True)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, nargs="*", default=[40, 60, 100])
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-clarabel", action="store_true", help="Clarabel takes half a minute at order 100")
    options = parser.parse_args()
    for name in options.families:
        for order in options.orders:
            run(name, order, options.rounds, not options.without_clarabel)


if __name__ == "__main__":
    main()

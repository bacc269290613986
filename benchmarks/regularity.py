"""What regularity="warn" costs per call on ordinary solutions, beside the backward pass of the same batch.

Both are measured on the same solved batches, alternating; medians, and the ratio of the least times, which noise does
not reach. Ordinary means that no item lies on a kink: items that the screening sends to the rank tests are counted.

Run: python benchmarks/regularity.py [--batch 128] [--rounds 40]
"""

from __future__ import annotations

import argparse
import time

import cvxpy as cp
import numpy as np
import torch
from families import Family, control, dense_qp, logistic, portfolio, second_order, semidefinite

from conelayers import CvxpyLayer
from conelayers.regularity import suspicious


def exponential(n: int = 10) -> Family:
    """Entropy-regularised choice under linear constraints: n exponential cones."""
    p, c, G = cp.Variable(n), cp.Parameter(n), cp.Parameter((3, n))
    problem = cp.Problem(cp.Minimize(c @ p - cp.sum(cp.entr(p))), [cp.sum(p) == 1, G @ p <= 0.1])

    def sample(batch, rng):
        return [rng.standard_normal((batch, n)), 0.3 * rng.standard_normal((batch, 3, n))]

    return Family(f"entropy n={n}", problem, [c, G], [p], sample)


FAMILIES = [lambda n=n: dense_qp(n) for n in (10, 50, 100)]
FAMILIES += [second_order, semidefinite, exponential, logistic, control, portfolio]


def measure(family: Family, batch: int, rounds: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Seconds of backward passes and of screenings, and the number of suspicious items."""
    rng = np.random.default_rng(0)
    layer = CvxpyLayer(family.problem, family.parameters, family.variables)
    parameters = [torch.tensor(a, requires_grad=True) for a in family.sample(batch, rng)]
    solution = layer.solve(*parameters)
    weights = torch.tensor(rng.standard_normal(solution.variables[0].shape))
    loss = (solution.variables[0] * weights).sum()
    with torch.no_grad():
        program, cone = layer.program.values(*parameters), solution.cone.detach()
        found = suspicious(program, cone)
    backward, screening = [], []
    for round_ in range(rounds + 2):
        start = time.perf_counter()
        torch.autograd.grad(loss, parameters, retain_graph=True)
        middle = time.perf_counter()
        with torch.no_grad():
            suspicious(program, cone)
        end = time.perf_counter()
        if round_ >= 2:
            backward.append(middle - start)
            screening.append(end - middle)
    return 1e3 * np.array(backward), 1e3 * np.array(screening), int(found.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    print("| family | backward, ms | screening, ms | ratio | suspicious items |\n|---|---|---|---|---|")
    for make in FAMILIES:
        family = make()
        backward, screening, count = measure(family, options.batch, options.rounds)
        ratio = screening.min() / backward.min()
        print(f"| {family.name} | {np.median(backward):.2f} | {np.median(screening):.2f} | {ratio:.2f} | {count} |")


if __name__ == "__main__":
    main()

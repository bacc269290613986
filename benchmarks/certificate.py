"""How often the certificate errs, on programmes whose regularity is known by construction.

A programme is made from its solution: for every block of the cone a pair (s, y) is drawn with a chosen face and strict
or weak complementarity, curved cones included; then P and A, made irregular on purpose or not; then q and b, for which
that pair is optimal; then units of rows, columns and objective. The package solves the programme from its data alone,
and its verdict is compared with the truth. Irregularity of one kind each:

- "dual": constraint nondegeneracy is broken, A'u = 0 for a u in the eigenvalue-1 space of the largest element;
- "primal": the second-order condition is broken, P d = 0 and A d in the eigenvalue-0 space of the smallest element;
- "near": as these two up to a random part of relative size 1e-5 to 1e-2: regular, and hard to tell from irregular.

Run: python benchmarks/certificate.py [--count 300] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import time

import numpy as np
import scipy.sparse as sp
import torch

from conelayers.backends import default_backend
from conelayers.cones import Cone, Exponential, Nonnegative, PositiveSemidefinite, Power, ProductCone, SecondOrder, Zero
from conelayers.cones.svec import svec
from conelayers.program import ConeProgram, ConeStructure
from conelayers.regularity import certify
from conelayers.residual.solve import solve_and_polish

KINDS = ("regular", "dual", "primal", "both", "near dual", "near primal")
# Singular values of the constructed matrices between these leave the truth open; such draws are not used.
ZERO, FULL = 1e-11, 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One programme and what is known of it."""

    program: ConeProgram
    kind: str
    regular: bool
    sigma: float
    scales: str
    blocks: tuple[str, ...]


def half_lines(rng) -> tuple[Cone, np.ndarray, str]:
    count = int(rng.integers(1, 5))
    return Nonnegative(count), rng.choice([1.0, -1.0, 0.0], count, p=[0.4, 0.4, 0.2]) * rng.uniform(0.5, 2, count), "nn"


def equations(rng) -> tuple[Cone, np.ndarray, str]:
    count = int(rng.integers(1, 3))
    return Zero(count), rng.standard_normal(count), "zero"


def second_order(rng) -> tuple[Cone, np.ndarray, str]:
    size = int(rng.integers(2, 5))
    w = rng.standard_normal(size)
    length = np.linalg.norm(w)
    face = rng.choice(["outside", "boundary", "polar", "apex", "inside", "beyond"], p=[0.5, 0.1, 0.1, 0.05, 0.15, 0.1])
    t = {"outside": rng.uniform(-0.8, 0.8), "boundary": 1.0, "polar": -1.0, "apex": 0.0, "inside": -1.6, "beyond": 1.6}
    return SecondOrder(size + 1), (face != "apex") * np.array([t[face] * length, *w]), f"soc {face}"


def semidefinite(rng) -> tuple[Cone, np.ndarray, str]:
    order = int(rng.integers(2, 4))
    signs = rng.choice([1.0, -1.0, 0.0], order, p=[0.42, 0.42, 0.16])
    basis, _ = np.linalg.qr(rng.standard_normal((order, order)))
    matrix = basis @ np.diag(signs * rng.uniform(0.5, 2, order)) @ basis.T
    return (
        PositiveSemidefinite(order),
        svec(torch.tensor(matrix)).numpy(),
        "psd " + "".join("0+-"[int(i)] for i in signs),
    )


def swept(rng) -> tuple[Cone, np.ndarray, str]:
    """Exponential and power blocks: s on a ray of the boundary, y on the normal there."""
    r = rng.uniform(-1, 1)
    if rng.random() < 0.5:
        cone, ray, normal = Exponential(), [r, 1, np.exp(r)], [np.exp(r), (1 - r) * np.exp(r), -1.0]
    else:
        a, sign = rng.uniform(0.2, 0.8), rng.choice([-1.0, 1.0])
        X, Y = np.exp((1 - a) * r), np.exp(-a * r)
        cone, ray, normal = Power(a), [X, Y, sign], [-a / X, -(1 - a) / Y, sign]
    face = rng.choice(["outside", "s only", "y only", "apex", "inside"], p=[0.6, 0.1, 0.1, 0.05, 0.15])
    along = 0.0 if face in ("y only", "apex") else rng.uniform(0.5, 2)
    across = 0.0 if face in ("s only", "apex") else rng.uniform(0.5, 2)
    v = -across * np.array(normal) - along * np.array(ray)
    if face == "inside":  # s in the interior
        v = -along * np.array(ray) - 0.5 * np.array(
            [0.0, 0.0, 1.0] if isinstance(cone, Exponential) else [1.0, 1.0, 0.0]
        )
    return cone, v, f"{type(cone).__name__.lower()} {face}"


def drawn(rng) -> tuple[ProductCone, np.ndarray, tuple[str, ...]]:
    """A product of blocks and v = y - s."""
    makers = rng.choice([half_lines, equations, second_order, semidefinite, swept], int(rng.integers(2, 5)))
    cones, points, names = zip(*(make(rng) for make in makers), strict=True)
    return ProductCone(cones), np.concatenate(points), names


def frames(cone: ProductCone, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns that span the eigenvalue-1 space of the largest element, and the range of the smallest."""
    high, low = (
        np.linalg.eigh(cone.dual_derivative(torch.tensor(v), weak=weak, radius=1e-11).matrix().numpy())
        for weak in ("max", "min")
    )
    return high[1][:, high[0] > 1 - 1e-9], low[1][:, low[0] > 1e-9]


def smallest(P: np.ndarray, A: np.ndarray, ones: np.ndarray, kept: np.ndarray) -> float:
    """The smaller of the smallest singular values of the two matrices."""
    values = [1.0]
    if ones.shape[1]:
        rows = ones.T @ A
        values.append(0.0 if rows.shape[0] > rows.shape[1] else np.linalg.svd(rows, compute_uv=False)[-1])
    stacked = np.vstack([P, kept.T @ A])
    values.append(np.linalg.svd(stacked, compute_uv=False)[-1])
    return float(min(values))


def matrices(kind: str, n: int, ones: np.ndarray, kept: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray] | None:
    """P and A of the kind asked for, or None where there is nothing to break."""
    m = ones.shape[0]
    root = rng.standard_normal((n, int(rng.integers(0, n + 1)))) / np.sqrt(n)
    A = rng.standard_normal((m, n)) / np.sqrt(n)
    left = 10.0 ** rng.uniform(-5, -2) if kind.startswith("near") else 0.0
    if "primal" in kind or kind == "both":
        d = rng.standard_normal(n)
        d /= np.linalg.norm(d)
        root = root - (1 - left) * np.outer(d, d @ root)
        A = A - (1 - left) * kept @ (kept.T @ A) @ np.outer(d, d)
        if kind == "both":
            A = A - A @ np.outer(d, d)
    if "dual" in kind or kind == "both":
        if not ones.shape[1]:
            return None
        u = ones @ rng.standard_normal(ones.shape[1])
        u /= np.linalg.norm(u)
        A = A - (1 - left) * np.outer(u, u @ A)
    return root @ root.T, A


def units(cone: ProductCone, n: int, rng) -> tuple[str, np.ndarray, np.ndarray, float]:
    """Factors of rows (one for each curved block), of columns and of the objective."""
    name = rng.choice(["none", "mild", "wide"])
    width = {"none": 0.0, "mild": 1.0, "wide": 3.0}[name]
    rows = np.concatenate(
        [
            10.0 ** (rng.uniform(-width, width, c.dim) if c.polyhedral else np.full(c.dim, rng.uniform(-width, width)))
            for c in cone.cones
        ]
    )
    return name, rows, 10.0 ** rng.uniform(-width, width, n), 10.0 ** rng.uniform(-width, width)


def case(kind: str, rng) -> Case | None:
    """A programme of this kind, or None where the draw leaves the truth open."""
    cone, v, names = drawn(rng)
    n = int(rng.integers(2, cone.dim + 2))
    ones, kept = frames(cone, v)
    found = matrices(kind, n, ones, kept, rng)
    if found is None:
        return None
    P, A = found
    sigma = smallest(P, A, ones, kept)
    if ZERO < sigma < FULL or (sigma > FULL) != (kind == "regular" or kind.startswith("near")):
        return None
    scales, rows, columns, objective = units(cone, n, rng)
    y = cone.project_dual(torch.tensor(v)).numpy()
    y, s = objective * y / rows, (y - v) * rows
    P, A = objective * columns[:, None] * P * columns, rows[:, None] * A * columns
    x = rng.standard_normal(n) / columns
    structure = ConeStructure.from_matrices(
        sp.csc_array(np.triu(np.ones((n, n)))), sp.csc_array(np.ones(A.shape)), cone
    )
    values = P[structure.P_indices, structure.P_columns]
    data = (values, -P @ x - A.T @ y, A[structure.A_indices, structure.A_columns], A @ x + s)
    return Case(ConeProgram(structure, *map(torch.tensor, data)), kind, sigma > FULL, sigma, scales, names)


def cases(count: int, seed: int):
    """This many programmes."""
    made, draw = 0, 0
    while made < count:
        rng = np.random.default_rng([seed, draw])
        found = case(KINDS[draw % len(KINDS)], rng)
        draw += 1
        if found is not None:
            made += 1
            yield found


def verdict(item: Case) -> str:
    """What the certificate says of the package's own solution: regular, not, undecided, or unsolved."""
    solution = solve_and_polish(item.program, default_backend(item.program.structure))
    if not bool(solution.has_solution):
        return "unsolved"
    found = certify(item.program, solution)
    return "regular" if found.regular else "not" if found.decided else "undecided"


def wrong(item: Case, said: str) -> bool:
    """Whether the verdict contradicts the construction."""
    return said == ("not" if item.regular else "regular")


def count_verdicts(count: int, seed: int) -> tuple[dict[str, collections.Counter], list[tuple[Case, str]]]:
    """Verdicts by kind, and the wrong ones."""
    table: dict[str, collections.Counter] = {kind: collections.Counter() for kind in KINDS}
    mistakes = []
    for item in cases(count, seed):
        said = verdict(item)
        table[item.kind][said] += 1
        if wrong(item, said):
            mistakes.append((item, said))
    return table, mistakes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    table, mistakes = count_verdicts(options.count, options.seed)
    columns = ("regular", "not", "undecided", "unsolved")
    print("| kind | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for kind, row in table.items():
        print(f"| {kind} | " + " | ".join(str(row[name]) for name in columns) + " |")
    for said in ("regular", "not"):
        print(f'wrong "{said}": {sum(name == said for _, name in mistakes)}')
    print(f"undecided: {sum(row['undecided'] for row in table.values())} of {options.count}")
    for item, said in mistakes:
        print(f'  "{said}": {item.kind}, units {item.scales}, {", ".join(item.blocks)}')
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

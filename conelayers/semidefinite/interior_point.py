"""A primal-dual interior-point method whose steps are reduced systems: large semidefinite blocks stay matrices.

Mehrotra's predictor and corrector with Nesterov and Todd's scaling from an infeasible start, as in Andersen, Dahl, Liu
and Vandenberghe, "Interior-point methods for large-scale cone programming" (2011). It ends at moderate accuracy:
Newton steps on the optimality conditions do the rest.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from conelayers.cones import Nonnegative, PositiveSemidefinite, Zero
from conelayers.cones.svec import svec_basis
from conelayers.semidefinite.form import Form
from conelayers.semidefinite.item import Item
from conelayers.semidefinite.reduced import ReducedSystem
from conelayers.semidefinite.scalings import MatrixScaling, OrthantScaling, Scaling
from conelayers.semidefinite.small import SmallBlocks
from conelayers.semidefinite.spectral import smat, svec

__all__ = ["Iterate", "knows", "solve"]

_STEP = 0.98  # part of the longest step that is taken
_SHORTEST = 1e-6  # a shorter step than this is no progress


@dataclasses.dataclass
class Iterate:
    """Where the method has ended.

    Attributes:
        x, z, s: The point, (n,), (m,), (m,); s and z inside their cones.
        error: The largest relative residual or gap.
        iterations: Steps taken.
    """

    x: np.ndarray
    z: np.ndarray
    s: np.ndarray
    error: float
    iterations: int


def knows(form: Form) -> bool:
    """Whether the method takes all cones of a form."""
    return all(isinstance(cone, Zero | Nonnegative | PositiveSemidefinite) for cone in form.cone.cones)


def solve(item: Item, q: np.ndarray, b: np.ndarray, tol: float, max_iter: int) -> Iterate:
    """Solve one programme to about `tol`; the best point where that is not reached.

    Args:
        item: P, A and the form.
        q: Linear objective, (n,).
        b: Right-hand side, (m,).
        tol: Relative residual and gap at which to stop.
        max_iter: Limit on steps.
    """
    cones = _Cones(item)
    x, z, s = _start(item, cones, q, b)
    best: Iterate | None = None
    for iteration in range(max_iter + 1):
        first, second = -(item.P @ x + q + item.A.T @ z), b - item.A @ x - s
        error = _error(item, q, b, x, z, s, first, second)
        if best is None or error < best.error:
            best = Iterate(x, z, s, error, iteration)
        if error <= tol or iteration == max_iter or not np.isfinite(error):
            break
        try:
            moved = _step(item, cones, (x, z, s), (first, second))
        except np.linalg.LinAlgError:  # on the border, up to rounding
            break
        if moved is None:
            break
        x, z, s = moved
    assert best is not None
    return best


def _step(item: Item, cones: _Cones, point: tuple, rest: tuple) -> tuple | None:
    """Predictor and corrector; None if no step of any length can be taken."""
    (x, z, s), (first, second) = point, rest
    scalings = cones.scale(s, z)
    system = cones.system(scalings)
    mu = float(s @ z) / cones.degree
    _, dz, ds = cones.direction(system, scalings, first, second, 0.0, None)
    length = min(1.0, cones.longest_step(scalings, ds, dz))
    sigma = (1 - length) ** 3
    corrections = (ds, dz)
    dx, dz, ds = cones.direction(system, scalings, first, second, sigma * mu, corrections)
    length = min(1.0, _STEP * cones.longest_step(scalings, ds, dz))
    if length < _SHORTEST:
        return None
    return x + length * dx, z + length * dz, s + length * ds


def _start(item: Item, cones: _Cones, q: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The solution of  P x + q + A'z = 0, A x + s = b, s + z = 0,  moved inside the cones."""
    identity = cones.identity
    scalings = cones.scale(identity, identity)
    x, z, _ = cones.direction(cones.system(scalings), scalings, -q, b, 1.0, None)
    s, z = cones.inside(b - item.A @ x), cones.inside(z)
    return x, z, s


def _error(item: Item, q, b, x, z, s, first, second) -> float:
    Px, size = item.P @ x, lambda *parts: max(1.0, *(np.abs(part).max(initial=0.0) for part in parts))
    primal = np.abs(second).max(initial=0.0) / size(b, s, item.A @ x)
    dual = np.abs(first).max(initial=0.0) / size(q, Px, item.A.T @ z)
    terms = float(x @ Px), float(q @ x), float(b @ z)
    gap = abs(sum(terms)) / max(1.0, abs(terms[0] / 2 + terms[1]), abs(terms[0] / 2 + terms[2]))
    return max(primal, dual, gap)


class _Cones:
    """The blocks of a programme, as the interior-point method sees them."""

    def __init__(self, item: Item) -> None:
        self.item, form = item, item.form
        self.large = (*form.variables, *form.inequalities)
        self.parts: list[tuple[Any, int]] = [(block.rows, block.order) for block in self.large]
        self._orthant, self._small = np.zeros(0, np.int64), []
        at, orthants = 0, []
        for cone in form.cone.cones:
            rows = form.rows[at : at + cone.dim]
            at += cone.dim
            if isinstance(cone, Nonnegative):
                orthants.append(rows)
            elif isinstance(cone, PositiveSemidefinite):
                self.parts.append((rows, cone.order))
        self._orthant = np.concatenate([self._orthant, *orthants])
        self.identity = np.zeros(item.structure.m)
        self.identity[self._orthant] = 1.0
        for rows, order in self.parts:
            self.identity[rows] = svec(np.eye(order))
        self.degree = max(1, len(self._orthant) + sum(order for _, order in self.parts))

    def scale(self, s: np.ndarray, z: np.ndarray) -> list[tuple[np.ndarray | slice, Scaling]]:
        """All scalings, the matrices' first."""
        found: list[tuple[np.ndarray | slice, Scaling]] = [
            (rows, MatrixScaling(s[rows], z[rows], order)) for rows, order in self.parts
        ]
        return [*found, (self._orthant, OrthantScaling(s[self._orthant], z[self._orthant]))]

    def system(self, scalings: list) -> ReducedSystem:
        """The reduced system for D = (I + H)^-1."""
        form, count = self.item.form, len(self.large)
        matrices = [scaling for _, scaling in scalings[:-1]]
        values = np.ones(self.item.structure.m)  # of equalities: H = 0
        values[self._orthant] = 1 / (1 + scalings[-1][1].h)
        vectors = []
        for (rows, order), scaling in zip(self.parts[count:], matrices[count:], strict=True):
            columns, places = np.triu_indices(order)
            values[rows] = scaling.block.weights[places, columns]
            vectors.append(svec_basis(torch.from_numpy(scaling.block.basis)).numpy())
        blocks = [scaling.block for scaling in matrices[:count]]
        variables = len(form.variables)
        small = SmallBlocks(self._eigenvectors(vectors), values[form.rows], self.item.hard)
        return ReducedSystem(self.item, small, blocks[:variables], blocks[variables:])

    def _eigenvectors(self, matrices: list[np.ndarray]) -> Any:
        """Those of the small cones' scalings, block by block: of rows on their own, and of small matrices."""
        found, blocks = [], iter(matrices)
        for cone in self.item.form.cone.cones:
            small = isinstance(cone, PositiveSemidefinite)
            found.append(next(blocks) if small else sp.eye_array(cone.dim))
        return sp.block_diag(found, format="csr") if found else sp.csr_array((0, 0))

    def direction(self, system: ReducedSystem, scalings: list, first, second, sigma_mu: float, moved):
        """(dx, dz, ds) with P dx + A'dz = first, A dx + ds = second, ds + H dz = the scalings' targets."""
        target = np.zeros_like(second)
        for rows, scaling in scalings:
            parts = (None, None) if moved is None else (moved[0][rows], moved[1][rows])
            target[rows] = scaling.target(sigma_mu, *parts)
        right = (first[None], (second - target)[None])
        dx, dv = system.solve(*right)
        dx, dz = dx[0], system.apply(dv)[0]
        ds = second - self.item.A @ dx
        keep = np.zeros(len(ds), dtype=bool)
        for rows, _ in scalings:
            keep[rows] = True
        return dx, dz, np.where(keep, ds, 0.0)

    def longest_step(self, scalings: list, ds: np.ndarray, dz: np.ndarray) -> float:
        """The largest step that leaves every block inside its cone."""
        return min(scaling.longest_step(ds[rows], dz[rows]) for rows, scaling in scalings)

    def inside(self, point: np.ndarray) -> np.ndarray:
        """The point moved along the identity until it is well inside; equalities' rows as they are."""
        least = point[self._orthant].min(initial=np.inf)
        for rows, order in self.parts:
            least = min(least, np.linalg.eigvalsh(smat(point[rows], order))[0])
        size = max(1.0, np.abs(point).max(initial=0.0))
        return point if least > 1e-3 * size else point + (0.1 * size - least) * self.identity

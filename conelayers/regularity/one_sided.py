"""One-sided derivatives of solutions: a cone programme over the critical cone.

The residual F1 = Px + q + A'Pi(v), F2 = Ax + Pi(v) - v - b is directionally differentiable because the projection is.
In the eigenvectors of an element of its Clarke Jacobian the projection's directional derivative w = Pi'(v; dv) is

    w_i = lambda_i dv_i   where all elements agree,    w_beta = Pi_C(dv_beta)   on the weakly active part,

with C a cone of its own: the half-line for weak rows, for curved blocks at smooth points of their boundary (or of that
of their polar cone) and for coordinates beside the exponential cone's flat face; the semidefinite cone of the zero
eigenvalues (Sun & Sun 2002); the whole dual cone at an apex. With ds = w - dv the linearised equations

    P dx + A'w = r1,    A dx + ds = r2

are the optimality conditions of a convex programme in dx and ds (Robinson 1980; Bonnans & Shapiro 2000, section 5.3):

    minimise  1/2 dx'P dx - r1'dx + 1/2 sum lambda_i / (1 - lambda_i) ds_i^2
    subject to  A dx + ds = r2,   ds_i = 0 where lambda_i = 1,   ds_beta in C*,

whose multipliers are w. The sum is the curvature of the cones ("sigma term"). Where every Clarke element of the
residual is invertible its solution is unique, and the one-sided derivative.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.cones import Cone, Nonnegative, ProductCone, Zero
from conelayers.errors import UnsupportedError
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.program.products import A_times, A_transpose_times, P_times
from conelayers.residual.polish import polish
from conelayers.residual.solve import Backend, solve_and_polish

__all__ = ["one_sided"]

# Eigenvalues this near to 0 or 1 count as such: solutions are known to an accuracy only.
_EIGENVALUE = 1e-6
# Auxiliary variables that are determined to second order only, as in a weakly active sum of hubers, are known to the
# square root of rounding errors. To first order that leaves a slope of 1e-8 where there is none, and nothing keeps
# these variables from moving by 1e8 along it: they are held by a proximal term of this size, whose bias a second solve
# about the first one's result removes.
_HELD = 1e-5


def one_sided(
    program: ConeProgram,
    solution: ConeSolution,
    tangent: ConeProgram,
    radius: float,
    backend: Backend,
    auxiliary: np.ndarray | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives (dx, dy, ds) of the solution of a single programme for t -> 0+ along program + t tangent.

    Args:
        program: The programme, without batch axes.
        solution: Its solution, where the problem is regular.
        tangent: How the data move.
        radius: Blocks within this distance of a kink lie on it.
        backend: What solves the programme of the derivative.
        auxiliary: Variables that nobody asks for and whose moves may be free, bool, (n,).

    Raises:
        UnsupportedError: If there is no derivative, or a block lies where a flat face, or ray, of an exponential or
            power cone touches its curved boundary.
    """
    structure, x, v = program.structure, solution.x, solution.y - solution.s
    r1 = -P_times(structure, tangent.P, x) - tangent.q - A_transpose_times(structure, tangent.A, solution.y)
    r2 = tangent.b - A_times(structure, tangent.A, x)
    size = float(torch.cat([r1, r2]).norm())
    if size == 0:
        return torch.zeros_like(x), torch.zeros_like(v), torch.zeros_like(v)
    parts = _parts(structure.cone, v, radius)
    P = structure.P_matrix(program.P.numpy())
    A = sp.csr_array(structure.A_matrix(program.A.numpy()))
    held = (
        _HELD * max(1.0, abs(P).max() if P.nnz else 0.0) * (np.zeros(structure.n) if auxiliary is None else auxiliary)
    )
    center = np.zeros(structure.n)
    for _ in range(2 if held.any() else 1):
        data = _programme(P + sp.diags_array(held), A, r1.numpy() / size + held * center, r2.numpy() / size, parts)
        found = polish(data, solve_and_polish(data, backend))  # to rounding: what is held counts a millionth
        if not bool(found.has_solution):
            raise UnsupportedError("The one-sided derivative does not exist: the problem is not regular here.")
        center = found.x[: structure.n].numpy()
    dx = size * found.x[: structure.n]
    dy = size * torch.from_numpy(parts.vectors @ found.y.numpy())
    return dx, dy, r2 - A_times(structure, program.A, dx)


@dataclasses.dataclass(frozen=True, eq=False)
class _Parts:
    """The directional derivative of the projection, part by part, without those where it vanishes.

    Attributes:
        vectors: Orthonormal columns, (m, k), in the order of `cones`.
        slack: sqrt((1 - lambda) / lambda) of each column, 0 for eigenvalue 1 and for weak parts, (k,).
        cones: What holds ds: zero where it is determined by w, the dual of C on weak parts; k rows in all.
    """

    vectors: sp.csc_array
    slack: np.ndarray
    cones: tuple[Cone, ...]


def _programme(P: sp.csc_array, A: sp.csr_array, r1: np.ndarray, r2: np.ndarray, parts: _Parts) -> ConeProgram:
    """The programme of the module's docstring, with ds_i = slack_i t_i, so that the curvature is 1/2 |t|^2."""
    curved = np.flatnonzero(parts.slack)
    count, k = len(curved), len(parts.slack)
    T = sp.csc_array((parts.slack[curved], (curved, np.arange(count))), shape=(k, count))
    rows = sp.csc_array(sp.hstack([parts.vectors.T @ A, T], format="csc"))
    quadratic = sp.csc_array(sp.triu(sp.block_diag([P, sp.eye_array(count)]), format="csc"))
    for matrix in (rows, quadratic):
        matrix.sort_indices()
    structure = ConeStructure.from_matrices(quadratic, rows, ProductCone(parts.cones))
    q = np.concatenate([-r1, np.zeros(count)])
    return ConeProgram(structure, *map(torch.from_numpy, (quadratic.data, q, rows.data, parts.vectors.T @ r2)))


def _parts(cone: ProductCone, v: Tensor, radius: float) -> _Parts:
    largest = cone.dual_derivative(v, weak="max", radius=radius).spectrum()
    smallest = cone.dual_derivative(v, weak="min", radius=radius).spectrum()
    owner = np.repeat(np.arange(len(cone.cones)), np.diff(cone.offsets))
    rows, entries, slack, cones = [], [], [], []
    for high, low in zip(largest, smallest, strict=True):
        for position, members in enumerate(high.rows.numpy()):
            block = _Block(cone.cones[owner[members[0]]], v[members], radius)
            for part in block.parts(high.vectors[position], high.values[position], low.values[position]):
                rows.extend([members] * part.vectors.shape[1])
                entries.extend(part.vectors.T)
                slack.extend(part.slack)
                cones.append(part.cone)
    columns = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    data = (np.concatenate([np.zeros(0), *entries]), (np.concatenate([np.zeros(0, int), *rows]), columns))
    return _Parts(sp.csc_array(data, shape=(cone.dim, len(rows))), np.array(slack, dtype=float), tuple(cones))


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
    """Columns of eigenvectors (d, k) of one block, their slack weights (k,) and what holds their ds."""

    vectors: np.ndarray
    slack: np.ndarray
    cone: Cone


@dataclasses.dataclass(frozen=True, eq=False)
class _Block:
    """One block of K at a point: v (d,) is projected onto the dual cone; or a single row of a polyhedral cone."""

    cone: Cone
    v: Tensor
    radius: float

    def parts(self, vectors: Tensor, high: Tensor, low: Tensor) -> list[_Part]:
        """The parts for the largest and smallest eigenvalues (d,) with common eigenvectors, the columns (d, d)."""
        weak = (high > 1 - _EIGENVALUE) & (low < _EIGENVALUE)
        kept = ~weak & (high > _EIGENVALUE)
        if bool((kept & (high - low > 1e-3)).any()):
            raise UnsupportedError(f"One-sided derivatives are not provided at an edge of {self.cone!r}.")
        found = []
        if bool(kept.any()):
            values = torch.where(high > 1 - _EIGENVALUE, 1.0, high)[kept]
            slack = ((1 - values) / values).sqrt().numpy()
            found.append(_Part(vectors[:, kept].numpy(), slack, Zero(len(slack))))
        if bool(weak.any()):
            found += self._weak(vectors[:, weak])
        return found

    def _weak(self, vectors: Tensor) -> list[_Part]:
        atom = self.cone if len(self.v) > 1 else self.cone.atoms()[0]
        parts = atom.critical_parts(vectors)
        if parts is None:
            # Where a flat face of the exponential cone, or a ray of the power cone, touches the curved boundary.
            raise UnsupportedError(f"One-sided derivatives are not provided at an edge of {self.cone!r}.")
        return [self._part(columns, holds) for columns, holds in parts]

    def _part(self, columns: Tensor, holds: Cone | None) -> _Part:
        nothing = np.zeros(columns.shape[1])
        if holds is not None:
            return _Part(columns.numpy(), nothing, holds)
        return _Part(self._oriented(columns[:, 0]).numpy()[:, None], nothing, Nonnegative(1))

    def _oriented(self, u: Tensor) -> Tensor:
        """The sign of u in which the projection follows it."""
        step = max(1e-4 * float(self.v.norm()), 10 * self.radius)
        points = torch.stack([self.v, self.v + step * u, self.v - step * u])
        here, ahead, behind = self.cone.dual().project(points)
        return u if (ahead - here).norm() >= (behind - here).norm() else -u

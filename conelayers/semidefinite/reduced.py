"""J(D) [dx; dv] = [r1; r2] with large semidefinite blocks, by a symmetric system of the size of everything else.

In the eigenbasis of a block, D is entrywise: dv~ -> B o dv~. For a *matrix variable* X (rows -X + s = 0, cost
rho |X|^2 / 2, entries E in the other rows, whose multipliers are w) every entry of dX~ and dv~ follows from w:

    dX~ = kappa o (r1~ + rho r2~ - (E'w)~) - r2~,    kappa = (1 - B) / (B + rho (1 - B)),

except where B = 0 and rho = 0: there dX~ is an unknown u, and (E'w)~ = r1~ a constraint. So the other rows see
-(sum of E~ kappa E~) w + E~ u. For a *matrix inequality* (s = b - A z) it is the mirror image: the entries with B < 1
add A~ beta A~', beta = B / (1 - B), to the cost of z, and those with B = 1 are equalities A~ z = r2~ with multipliers.

The derivation is Sturm and Zhang's Schur complement (SIAM J. Optim. 1999) at the limit where the smoothed derivative
becomes an element of the Clarke Jacobian; the entries that vanish there keep their own unknowns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conelayers.semidefinite.item import Item, MatrixVariable
from conelayers.semidefinite.small import SmallBlocks
from conelayers.semidefinite.spectral import SpectralBlock, smat, stack, svec
from conelayers.semidefinite.symmetric import SymmetricFactor

__all__ = ["ReducedSystem"]

_ROOT = np.sqrt(2.0)


class ReducedSystem:
    """The factored system at one point.

    Args:
        item: The programme's data.
        small: D of the other cones' hard rows.
        variables: D of each matrix variable.
        inequalities: D of each matrix inequality.
    """

    def __init__(
        self,
        item: Item,
        small: SmallBlocks,
        variables: Sequence[SpectralBlock],
        inequalities: Sequence[SpectralBlock],
    ) -> None:
        self.item, self.small = item, small
        self.variables = [_Variable(v, D) for v, D in zip(item.variables, variables, strict=True)]
        self.inequalities = [
            _Inequality(block, item.inequality(block), D)
            for block, D in zip(item.form.inequalities, inequalities, strict=True)
        ]
        self.factor = SymmetricFactor(self._matrix())

    def _matrix(self) -> np.ndarray:
        """The symmetric matrix in (dz, multipliers of rows, u of each variable, multipliers of each inequality)."""
        n_z, rows = len(self.item.columns), self.small.size
        sizes = [n_z, rows, *(v.free for v in self.variables), *(i.held for i in self.inequalities)]
        ends = np.cumsum(sizes)
        K = np.zeros((ends[-1], ends[-1]))
        at = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        K[at[0], at[0]] = self.item.P_hard + sum(i.hessian for i in self.inequalities)
        K[at[1], at[0]] = self.small.pull(self.item.A_hard.T).T
        K[at[0], at[1]] = K[at[1], at[0]].T
        seen = sum((v.gram for v in self.variables), np.zeros((len(self.item.rows),) * 2))
        K[at[1], at[1]] = -self.small.pull(self.small.pull(seen).T) - np.diag(self.small.slack)
        for part, variable in zip(at[2:], self.variables, strict=False):
            K[at[1], part] = self.small.pull(variable.free_entries).T
            K[part, at[1]] = K[at[1], part].T
        for part, inequality in zip(at[2 + len(self.variables) :], self.inequalities, strict=True):
            K[part, at[0]] = inequality.held_entries
            K[at[0], part] = inequality.held_entries.T
        self._parts = at
        return K

    def solve(self, r1: np.ndarray, r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(dx, dv), shapes (k, n) and (k, m), for right-hand sides of these shapes."""
        item, form = self.item, self.item.form
        soft = (r1[:, form.soft_columns] - item.soft_cost * r2[:, form.soft_rows] / item.soft_slope) / item.soft_slope
        first = r1 - soft @ item.soft_rest
        second = r2[:, item.rows]
        targets, cost = [second], first[:, item.columns]
        for variable in self.variables:
            variable.load(first, r2)
            targets.append(-variable.known_entries())
        for inequality in self.inequalities:
            cost = cost + inequality.load(r2)
        right = np.concatenate(
            [cost, self.small.pull(sum(targets)), *(v.constraint for v in self.variables)]
            + [i.target for i in self.inequalities],
            axis=1,
        )
        found = self.factor.solve(right)
        return self._unfold(found, r1, r2)

    def apply(self, dv: np.ndarray) -> np.ndarray:
        """D dv, (k, m)."""
        found = dv.copy()  # equalities keep theirs
        for variable in self.variables:
            rows = variable.data.block.rows
            found[:, rows] = variable.D.apply(dv[:, rows])
        for inequality in self.inequalities:
            found[:, inequality.rows] = inequality.D.apply(dv[:, inequality.rows])
        found[:, self.item.rows] = self.small.apply(dv[:, self.item.rows])
        return found

    def _unfold(self, found: np.ndarray, r1: np.ndarray, r2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All of dx and dv from the unknowns of the reduced system."""
        item, form = self.item, self.item.form
        dz, multipliers, *rest = (found[:, part] for part in self._parts)
        w = self.small.push(multipliers)
        dx, dv = np.zeros_like(r1), np.zeros_like(r2)
        dx[:, item.columns] = dz
        for variable, u in zip(self.variables, rest, strict=False):
            dx[:, variable.data.block.columns], dv[:, variable.data.block.rows] = variable.unfold(w, u)
        for inequality, t in zip(self.inequalities, rest[len(self.variables) :], strict=True):
            dv[:, inequality.rows] = inequality.unfold(dz, t)
        missing = r2[:, item.rows] - dx @ item.A[item.rows].T
        dv[:, item.rows] = self.small.unfold(multipliers, missing)
        left = r2[:, form.soft_rows] - dx @ item.soft_rest.T
        dx[:, form.soft_columns] = left / item.soft_slope
        held = r1[:, form.soft_columns] - item.soft_cost * dx[:, form.soft_columns]
        dv[:, form.soft_rows] = held / item.soft_slope
        return dx, dv


class _Variable:
    """What a matrix variable adds to the reduced system."""

    def __init__(self, data: MatrixVariable, D: SpectralBlock) -> None:
        self.data, self.D, self.order = data, D, data.block.order
        B, rho = D.weights, data.rho
        bottom = B + rho * (1 - B)
        self.open = bottom == 0  # entries whose dX~ is unknown
        self.bottom = np.where(self.open, 1.0, bottom)
        self.kappa = np.where(self.open, 0.0, (1 - B) / self.bottom)
        rows, columns = np.nonzero(np.triu(self.open))
        self._rows, self._columns, self._scales = rows, columns, np.where(rows == columns, 1.0, _ROOT)
        self.free = len(rows)
        rotated = self._rotated_rows()
        self.free_entries = (rotated[:, rows, columns] * self._scales).T  # (free, rows)
        weighted = (rotated * np.sqrt(self.kappa)).reshape(len(rotated), -1)
        self.gram = weighted @ weighted.T

    def _rotated_rows(self) -> np.ndarray:
        """E~ for every hard row, (rows, order, order), zeros where a row has no entry here."""
        E, used = self.data.E, np.unique(self.data.E.nonzero()[0])
        rotated = np.zeros((E.shape[0], self.order, self.order))
        if len(used):
            rotated[used] = self.D.rotate(stack(E[used], self.order))
        return rotated

    def load(self, r1: np.ndarray, r2: np.ndarray) -> None:
        """Take the right-hand sides, (k, n) and (k, m)."""
        block, rho = self.data.block, self.data.rho
        self._r1 = self.D.rotate(smat(r1[:, block.columns] / self.data.scale, self.order))
        self._r2 = self.D.rotate(smat(r2[:, block.rows], self.order))
        self._known = np.where(self.open, 0.0, self.kappa * (self._r1 + rho * self._r2) - self._r2)
        self.constraint = self._r1[:, self._rows, self._columns] * self._scales

    def known_entries(self) -> np.ndarray:
        """What the known part of dX gives in the hard rows, (k, rows)."""
        return self.D.restore(self._known) @ self.data.E.T

    def unfold(self, w: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """dX and dv from the multipliers (k, rows) and the unknown entries (k, free)."""
        pulled = self.D.rotate(smat(w @ self.data.E, self.order))
        free = np.zeros_like(pulled)
        free[:, self._rows, self._columns] = free[:, self._columns, self._rows] = u / self._scales
        dX = self._known - self.kappa * pulled + free
        dv = np.where(self.open, -dX - self._r2, (pulled - self._r1 - self.data.rho * self._r2) / self.bottom)
        return self.D.restore(dX) / self.data.scale, self.D.restore(dv)


class _Inequality:
    """What a matrix inequality adds to the reduced system."""

    def __init__(self, block: Any, entries: Any, D: SpectralBlock) -> None:
        self.rows, self.entries, self.D, self.order = block.rows, entries, D, block.order
        B = D.weights
        self.tight = B == 1
        self.beta = np.where(self.tight, 0.0, B / np.where(self.tight, 1.0, 1 - B))
        rows, columns = np.nonzero(np.triu(self.tight))
        self._rows, self._columns, self._scales = rows, columns, np.where(rows == columns, 1.0, _ROOT)
        self.held = len(rows)
        rotated = D.rotate(stack(entries.T, self.order))  # (n_z, order, order)
        self.held_entries = (rotated[:, rows, columns] * self._scales).T
        weighted = (rotated * np.sqrt(self.beta)).reshape(len(rotated), -1)
        self.hessian = weighted @ weighted.T

    def load(self, r2: np.ndarray) -> np.ndarray:
        """Take the right-hand side (k, m); what it adds to the stationarity of z, (k, n_z)."""
        self._r2 = self.D.rotate(smat(r2[:, self.rows], self.order))
        self.target = self._r2[:, self._rows, self._columns] * self._scales
        return self.D.restore(self.beta * self._r2) @ self.entries

    def unfold(self, dz: np.ndarray, t: np.ndarray) -> np.ndarray:
        """dv from dz (k, n_z) and the multipliers (k, held)."""
        moved = self.D.rotate(smat(dz @ self.entries.T, self.order)) - self._r2
        dv = moved / np.where(self.tight, 1.0, 1 - self.D.weights)
        dv[:, self._rows, self._columns] = dv[:, self._columns, self._rows] = t / self._scales
        return self.D.restore(dv)

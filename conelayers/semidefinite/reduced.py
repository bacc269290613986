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

import numpy as np

from conelayers.semidefinite.item import Item, MatrixInequality, MatrixVariable
from conelayers.semidefinite.small import SmallBlocks
from conelayers.semidefinite.spectral import MatrixStack, SpectralBlock, smat
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
        self.inequalities = [_Inequality(i, D) for i, D in zip(item.inequalities, inequalities, strict=True)]
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
        target, cost = r2[:, item.rows], first[:, item.columns]
        for variable in self.variables:
            variable.load(first, r2)
            target = target - variable.known_entries()
        for inequality in self.inequalities:
            cost = cost + inequality.load(r2)
        own = [*(v.constraint for v in self.variables), *(i.target for i in self.inequalities)]
        found = self.factor.solve(np.concatenate([cost, self.small.pull(target), *own], axis=1))
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
        missing = r2[:, item.rows] - dx @ item.A_kept.T
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
        self._places = _Places(self.open)
        self.free = self._places.count
        rows = len(data.E.indptr) - 1
        self.free_entries, self.gram = np.zeros((self.free, rows)), np.zeros((rows, rows))
        used = data.used
        self.free_entries[:, used], self.gram[np.ix_(used, used)] = self._rotated_rows()

    def _rotated_rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Entries of E~ at the unknowns, (free, used), and the sum of E~ kappa E~, (used, used)."""
        data, D = self.data, self.D
        if D.scaling is not None and data.rho == 0 and data.stack.is_thin:
            return np.zeros((0, len(data.used))), data.stack.gram(D.scaling[0])  # kappa = g g'
        return _rotated(data.stack, D.basis, self.kappa, self._places, np.diag(D.weights) < 1)

    def load(self, r1: np.ndarray, r2: np.ndarray) -> None:
        """Take the right-hand sides, (k, n) and (k, m)."""
        block, rho = self.data.block, self.data.rho
        self._r1 = self.D.rotate(smat(r1[:, block.columns] / self.data.scale, self.order))
        self._r2 = self.D.rotate(smat(r2[:, block.rows], self.order))
        self._known = np.where(self.open, 0.0, self.kappa * (self._r1 + rho * self._r2) - self._r2)
        self.constraint = self._places.take(self._r1)

    def known_entries(self) -> np.ndarray:
        """What the known part of dX gives in the hard rows, (k, rows)."""
        return self.D.restore(self._known) @ self.data.E.T

    def unfold(self, w: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return dX and dv from the multipliers (k, rows) and the unknown entries (k, free)."""
        pulled = self.D.rotate(smat(w @ self.data.E, self.order))
        dX = self._known - self.kappa * pulled
        self._places.put(u, dX)
        dv = np.where(self.open, -dX - self._r2, (pulled - self._r1 - self.data.rho * self._r2) / self.bottom)
        return self.D.restore(dX) / self.data.scale, self.D.restore(dv)


class _Inequality:
    """What a matrix inequality adds to the reduced system."""

    def __init__(self, data: MatrixInequality, D: SpectralBlock) -> None:
        self.rows, self.entries, self.D, self.order = data.block.rows, data.entries, D, data.block.order
        B = D.weights
        self.tight = B == 1
        self.beta = np.where(self.tight, 0.0, B / np.where(self.tight, 1.0, 1 - B))
        self._places = _Places(self.tight)
        self.held = self._places.count
        if D.scaling is not None and data.stack.is_thin:  # 1 / beta = g g'
            self.held_entries, self.hessian = np.zeros((0, data.stack.count)), data.stack.gram(D.scaling[1])
        else:
            self.held_entries, self.hessian = _rotated(data.stack, D.basis, self.beta, self._places, np.diag(B) > 0)

    def load(self, r2: np.ndarray) -> np.ndarray:
        """Take the right-hand side (k, m); what it adds to the stationarity of z, (k, n_z)."""
        self._r2 = self.D.rotate(smat(r2[:, self.rows], self.order))
        self.target = self._places.take(self._r2)
        return self.D.restore(self.beta * self._r2) @ self.entries

    def unfold(self, dz: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return dv from dz (k, n_z) and the multipliers (k, held)."""
        moved = self.D.rotate(smat(dz @ self.entries.T, self.order)) - self._r2
        dv = moved / np.where(self.tight, 1.0, 1 - self.D.weights)
        self._places.put(t, dv)
        return self.D.restore(dv)


class _Places:
    """Entries of a symmetric matrix that are unknowns of their own, as a vector in the scaling of svec.

    Args:
        mask: Which entries, symmetric, (order, order).
    """

    def __init__(self, mask: np.ndarray) -> None:
        self.rows, self.columns = np.nonzero(np.triu(mask))
        self.scales = np.where(self.rows == self.columns, 1.0, _ROOT)
        self.count = len(self.rows)

    def take(self, matrices: np.ndarray) -> np.ndarray:
        """The entries, (k, count), of matrices (k, order, order)."""
        return matrices[:, self.rows, self.columns] * self.scales

    def put(self, values: np.ndarray, matrices: np.ndarray) -> None:
        """Write the entries into the matrices."""
        matrices[:, self.rows, self.columns] = matrices[:, self.columns, self.rows] = values / self.scales


def _rotated(
    stack: MatrixStack, Q: np.ndarray, weights: np.ndarray, places: _Places, chosen: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Entries of E~ = Q'EQ at `places`, (count, k), and the Gram matrix of all E~ with these weights, (k, k).

    Args:
        stack: The matrices E.
        Q: The eigenbasis.
        weights: Symmetric; zero outside of the chosen rows and columns, as are the places.
        places: Which entries.
        chosen: The columns that are formed: at a solution they are few.
    """
    rotated = stack.rotate(Q, Q[:, chosen])  # (k, order, chosen)
    number = np.cumsum(chosen) - 1
    entries = (rotated[:, places.rows, number[places.columns]] * places.scales).T
    counted = np.where(chosen[:, None], 1.0, 2.0) * weights[:, chosen]  # the mirror images are not there
    weighted = (rotated * np.sqrt(counted)).reshape(len(rotated), -1)
    return entries, weighted @ weighted.T

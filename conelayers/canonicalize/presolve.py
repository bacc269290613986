"""Substitute epigraph variables by their bounds.

CVXPY lifts ||x|| <= d to ||x|| <= t, t <= d. While that constraint is inactive nothing determines t, so the optimality
conditions have a singular Jacobian although the user's solution is differentiable. Let t have no cost, appear with
constant coefficients a only, and be bounded by one nonnegative row r. If the direction d_i = -a_i / a_r over the other
rows lies in K, moving t to its bound moves every other slack along d (times the slack of r >= 0), so it keeps them
feasible: t may be substituted by its bound without changing the problem in the other variables. In matrix form

    A' = L A,  b' = L b,  L = rows i != r of  (I + d e_r'),   column t of L A vanishes,

which is affine in the parameters again. Stationarity of t, sum_i y_i a_i = 0, gives the removed row's dual as
y_r = sum_i d_i y_i, that is y = L' y' (nonnegative, since d in K and y' in K*).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from conelayers.canonicalize.form import CanonicalForm
from conelayers.canonicalize.outputs import Output
from conelayers.cones import Cone, Nonnegative, ProductCone, Zero

__all__ = ["substitute_epigraphs"]

_MEMBERSHIP = 1e-9  # relative distance from d to the cone: epigraph directions are exact, often on the boundary
_ROUNDS = 10  # nested epigraphs (a norm under a max) take one round per level


@dataclasses.dataclass(frozen=True)
class _Substitution:
    """Variable `column` is replaced by its bound in `row`; the other `rows` get `direction` times that row."""

    column: int
    row: int
    rows: np.ndarray
    direction: np.ndarray


def substitute_epigraphs(form: CanonicalForm) -> CanonicalForm:
    """Remove every epigraph variable that can be substituted, nested ones included.

    Variables that the outputs read stay, and so do those whose row could also substitute another variable
    (a sum of epigraphs leaves the others undetermined anyway), or whose substitution would fill A.
    """
    for _ in range(_ROUNDS):
        chosen = _choose(form)
        if not chosen:
            break
        form = _apply(form, chosen)
    return form


def _choose(form: CanonicalForm) -> list[_Substitution]:
    """Substitutions that can be made together: no chosen row holds another chosen variable."""
    A = form.A
    rows_of = _RowKinds(form.cones)
    indptr, constants = A.indptr, A.constant_values
    found = []
    for column in np.flatnonzero(_free_columns(form)):
        entries = slice(indptr[column], indptr[column + 1])
        substitution = _substitution(int(column), A.rows[entries], constants[entries], rows_of)
        if substitution is not None:
            found.append(substitution)
    if not found:
        return []
    shared = Counter(substitution.row for substitution in found)
    lengths = np.bincount(A.rows, minlength=A.shape[0])
    by_row = sp.csr_array((np.ones(len(A.rows)), (A.rows, A.columns)), shape=A.shape)
    chosen: list[_Substitution] = []
    columns: set[int] = set()
    touched: set[int] = set()  # columns that stand in chosen rows
    for substitution in found:
        row, size = substitution.row, len(substitution.rows)
        fill = size * (lengths[row] - 1)
        if shared[row] > 1 or fill > 4 * (size + lengths[row]) + 64:
            continue
        in_row = set(by_row.indices[by_row.indptr[row] : by_row.indptr[row + 1]].tolist())
        if substitution.column in touched or in_row & columns:
            continue
        chosen.append(substitution)
        columns.add(substitution.column)
        touched |= in_row
    return chosen


def _free_columns(form: CanonicalForm) -> np.ndarray:
    """Variables without cost, with constant coefficients, that no output reads; bool, shape (n,)."""
    free = np.ones(form.A.shape[1], dtype=bool)
    free[form.P.rows] = free[form.P.columns] = False
    free[form.q.rows] = False
    free[form.A.columns[~form.A.constant]] = False
    for output in form.outputs:
        if output.source == "primal":
            free[output.reads] = False
    return free


class _RowKinds:
    """Which cone each row belongs to."""

    def __init__(self, cones: Sequence[Cone]) -> None:
        self.cones = cones
        dims = [cone.dim for cone in cones]
        self.starts = np.concatenate([[0], np.cumsum(dims)]).astype(np.int64)
        self.block = np.repeat(np.arange(len(cones)), dims)
        kinds = np.array([isinstance(cone, Zero) - isinstance(cone, Nonnegative) for cone in cones], dtype=np.int64)
        self.kind = kinds[self.block] if len(cones) else kinds  # 1 equality, -1 nonnegative, 0 anything else
        self._known: dict[tuple, bool] = {}

    def contain(self, rows: np.ndarray, direction: np.ndarray) -> bool:
        """Whether `direction` on `rows`, zero elsewhere, lies in the cone; linear rows are left to the caller."""
        blocks = self.block[rows]
        for block in np.unique(blocks[self.kind[rows] == 0]):
            inside = blocks == block
            local, values = rows[inside] - self.starts[block], direction[inside]
            key = (self.cones[block], tuple(local.tolist()), tuple(values.tolist()))
            if key not in self._known:
                vector = torch.zeros(self.cones[block].dim, dtype=torch.float64)
                vector[torch.as_tensor(local)] = torch.as_tensor(values)
                distance = (ProductCone([self.cones[block]]).project(vector) - vector).norm()
                self._known[key] = bool(distance <= _MEMBERSHIP * vector.norm())
            if not self._known[key]:
                return False
        return True


def _substitution(column: int, rows: np.ndarray, coefficients: np.ndarray, rows_of: _RowKinds) -> _Substitution | None:
    """The substitution of one variable, from its column of A; None if no row bounds it as required."""
    kinds = rows_of.kind[rows]
    if np.any(kinds == 1):
        return None
    linear = np.flatnonzero(kinds == -1)
    signs = np.sign(coefficients[linear])
    for sign in (1.0, -1.0):
        bounding = linear[signs == sign]
        if len(bounding) != 1:  # another row of the same sign would get a negative entry of d
            continue
        others = np.arange(len(rows)) != bounding[0]
        direction = -coefficients[others] / coefficients[bounding[0]]
        if rows_of.contain(rows[others], direction):
            return _Substitution(column, int(rows[bounding[0]]), rows[others], direction)
    return None


def _apply(form: CanonicalForm, chosen: Sequence[_Substitution]) -> CanonicalForm:
    m, n = form.A.shape
    stays, columns = np.ones(m, dtype=bool), np.ones(n, dtype=bool)
    stays[[substitution.row for substitution in chosen]] = False
    columns[[substitution.column for substitution in chosen]] = False
    directions = sp.csr_array(
        (
            np.concatenate([substitution.direction for substitution in chosen]),
            (
                np.concatenate([substitution.rows for substitution in chosen]),
                np.repeat([s.row for s in chosen], [len(s.rows) for s in chosen]),
            ),
        ),
        shape=(m, m),
    )
    L = sp.csr_array(sp.csr_array(sp.eye_array(m, format="csr") + directions)[np.flatnonzero(stays)])
    return dataclasses.replace(
        form,
        P=form.P.keep_rows(columns).keep_columns(columns),
        q=form.q.keep_rows(columns),
        A=form.A.keep_columns(columns).left_multiply(L),
        b=form.b.left_multiply(L),
        cones=_remaining(form.cones, stays),
        outputs=tuple(_rewritten(output, L, columns) for output in form.outputs),
        provenance=form.provenance.map(lambda output: _rewritten(output, L, columns)),
    )


def _remaining(cones: Sequence[Cone], stays: np.ndarray) -> tuple[Cone, ...]:
    """The cones after nonnegative rows have been removed."""
    kept: list[Cone] = []
    start = 0
    for cone in cones:
        rows = int(stays[start : start + cone.dim].sum())
        start += cone.dim
        if rows == cone.dim:
            kept.append(cone)
        elif rows:
            kept.append(Nonnegative(rows))
    return tuple(kept)


def _rewritten(output: Output, L: sp.csr_array, columns: np.ndarray) -> Output:
    """The same output in terms of the new x' (x without the removed entries) or y' (y = L' y')."""
    if output.source == "primal":
        matrix = sp.csr_array(sp.csc_array(output.matrix)[:, np.flatnonzero(columns)])
    else:
        matrix = sp.csr_array(output.matrix @ L.T)
    matrix.sort_indices()
    return dataclasses.replace(output, matrix=matrix)

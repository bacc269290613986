"""Null directions of (b) that are the lifting's and leave the user's problem regular.

CVXPY lifts |x_1| + |x_2| <= d to t_1 + t_2 <= d, t_i >= |x_i|; while that constraint is inactive nothing determines t.
Let the columns of N span the null space of [P; U_+(D_min)'A]. The user's problem is regular although N is not empty if

1. N touches auxiliary variables only, and no parameter moves q'N, PN, nor AN outside of the blocks of 2;
2. A N touches only blocks with D_max = 0, whose slacks are interior and whose duals vanish nearby, and *edges*: blocks
   with D_min = 0 whose D_max has rank one, D_max = aa' (a weakly active linear row; a curved block with no multiplier
   at a smooth point of its boundary), which behave as the one row a'A;
3. the left null space of the edges' rows E of AN is spanned by positive vectors with disjoint supports.

Then PN = 0, q'N = 0 and N'A'y = 0 hold for all parameters near the given ones. By Farkas' lemma the directions N can
keep all edges feasible if and only if lam'E(b - Ax) >= 0 for each vector lam of 3. So x without N solves a problem with
one constraint lam in place of each group of edges, which is regular; and since no edge is in two groups, each choice of
active edges amounts to a choice of active groups. `docs/theory/regularity.md` has the proof.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components

from conelayers.cones import ProductCone
from conelayers.regularity.extremes import Extremes
from conelayers.regularity.interface import Interface
from conelayers.regularity.switched_off import switched_off_without_effect

__all__ = ["RowKinds", "Verdict", "is_artefact", "row_kinds"]

# A null vector of norm one touches a variable, or moves a row of norm one, whose entry exceeds this.
_TOUCHES = 1e-6
# Largest connected set of edges whose left null space is computed.
_LARGEST_GROUP = 1500

Verdict = bool | None
"""True: full rank. False: not. None: undecided."""


@dataclasses.dataclass(frozen=True, eq=False)
class RowKinds:
    """Which rows may move without effect, for one item.

    Attributes:
        silent: Rows of blocks with D_max = 0, bool, (m,).
        edge: Rows of blocks with D_min = 0 and D_max = aa', bool, (m,).
        directions: The vectors a in K*, as columns, (m, number of edges).
        curved: Whether an edge belongs to a block of more than one row, bool, (number of edges,).
        strong: Rows of half-lines and equations with D_min = 1, bool, (m,).
        lines: Rows of half-lines that are not strong, bool, (m,).
    """

    silent: np.ndarray
    edge: np.ndarray
    directions: sp.csc_array
    curved: np.ndarray
    strong: np.ndarray
    lines: np.ndarray


def row_kinds(family: Extremes, position: int, cone: ProductCone) -> RowKinds:
    """Read the kinds off the extreme elements of item `position`; `cone` is K."""
    m = cone.dim
    silent, edge, strong, lines = (np.zeros(m, dtype=bool) for _ in range(4))
    rows, entries, curved = [], [], []
    for largest, smallest in zip(family.largest, family.smallest, strict=True):
        members, high, low = largest.rows.numpy(), largest.values[position].numpy(), smallest.values[position].numpy()
        quiet, settled = (high == 0).all(-1), (low == 0).all(-1)
        edges = settled & ((high == 1).sum(-1) == 1)
        silent[members[quiet]] = True
        edge[members[edges]] = True
        if members.shape[1] == 1:
            strong[members[low[:, 0] == 1]] = True
            lines[members[low[:, 0] == 0]] = True
        vectors = largest.vectors[position].numpy()
        for block in np.flatnonzero(edges):
            rows.append(members[block])
            entries.append(vectors[block][:, int(np.argmax(high[block]))])
            curved.append(members.shape[1] > 1)
    columns = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    data = (np.concatenate([np.zeros(0), *entries]), (np.concatenate([np.zeros(0, int), *rows]), columns))
    directions = _oriented(sp.csc_array(data, shape=(m, len(rows))), cone)
    return RowKinds(silent, edge, directions, np.array(curved, dtype=bool), strong, lines)


def _oriented(directions: sp.csc_array, cone: ProductCone) -> sp.csc_array:
    """The columns, which lie in different blocks, with the sign that puts them into K*; eigenvectors have any sign."""
    total = torch.from_numpy(directions.sum(axis=1))
    outside, opposite = ((cone.project_dual(a) - a).numpy() ** 2 for a in (total, -total))
    squares = directions.power(2)  # columns of norm one
    signs = np.where(squares.T @ outside <= squares.T @ opposite, 1.0, -1.0)
    return sp.csc_array(directions * signs[None, :])


def is_artefact(
    basis: np.ndarray,
    scale: np.ndarray,
    A: sp.csr_array,
    y: np.ndarray,
    v: np.ndarray,
    kinds: RowKinds,
    interface: Interface,
    *,
    ball: bool,
) -> Verdict:
    """Whether a null space of (b) leaves the user's problem regular.

    Args:
        basis: The null space in scaled variables, columns of norm one, (n, k).
        scale: x = scale * (scaled x), (n,).
        A: (m, n), not scaled.
        y: The multipliers, (m,).
        v: y - s, (m,).
        kinds: What the rows of A are.
        interface: What belongs to the user.
        ball: Whether regularity is asked for in a neighbourhood: edges of curved blocks then prove nothing.

    Returns:
        False where the user's variables are undetermined, or a parameter moves them along the null space; None where
        nothing is proved.
    """
    if not basis.shape[1]:
        return True
    if np.any(np.abs(basis[interface.variables]) > _TOUCHES):
        return False
    directions = scale[:, None] * basis
    directions = directions / np.abs(directions).max(axis=0)
    if interface.moves_curvature(directions):
        return False
    costs = interface.moved_costs(directions)
    if len(costs) and not switched_off_without_effect(costs, directions, A, v, kinds, interface):
        return False
    rows, pushed = interface.moved_coefficients(directions, np.where(kinds.edge, 0.0, y))
    if pushed:
        return False
    A = sp.csr_array(A @ sp.diags_array(scale))
    moves = rows | _moved(A, basis).any(axis=1)
    if np.any(moves & ~kinds.silent & ~kinds.edge) or (ball and np.any(rows & kinds.edge)):
        return None
    return _edges_form_groups(sp.csr_array(kinds.directions.T @ A), basis, kinds.curved & ball)


def _edges_form_groups(edges: sp.csr_array, basis: np.ndarray, doubtful: np.ndarray) -> Verdict:
    """Condition 3 for the rows of edges that the null space moves; None if it fails, or a moved edge is doubtful."""
    rows = _moved(edges, basis)
    moved = np.flatnonzero(rows.any(axis=1))
    if doubtful[moved].any():
        return None
    pattern = sp.csr_array(rows[moved] != 0)
    _, label = connected_components(sp.block_array([[None, pattern], [pattern.T, None]])) if len(moved) else (0, [])
    for part in np.unique(label[: len(moved)]):
        members = moved[np.flatnonzero(label[: len(moved)] == part)]
        if len(members) > _LARGEST_GROUP or not _positive_and_disjoint(rows[members]):
            return None
    return True


def _moved(A: sp.csr_array, basis: np.ndarray) -> np.ndarray:
    """The products of A's rows, of norm one, with the basis; small ones are zeros."""
    norms = np.sqrt(A.power(2).sum(axis=1))
    rows = (A @ basis) / np.where(norms > 0, norms, 1.0)[:, None]
    return np.where(np.abs(rows) > _TOUCHES, rows, 0.0)


def _positive_and_disjoint(rows: np.ndarray) -> bool:
    """Whether the left null space of `rows` is spanned by positive vectors with disjoint supports.

    Then, and by Perron and Frobenius only then, the projection on it has no negative entry.
    """
    rows = rows[:, np.flatnonzero(rows.any(axis=0))]
    left, values, _ = np.linalg.svd(rows, full_matrices=True)
    null = left[:, int((values > 1e-8 * values[0]).sum()) :]
    return not np.any(null @ null.T < -_TOUCHES)

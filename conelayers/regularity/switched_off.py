"""Terms of the objective that are switched off: k g(x) at k = 0, lifted to k t with t >= g(x).

At k = 0 nothing determines t, and k pushes it: as soon as k > 0 it drops to g(x). The solution moves with k to the
right only, by the gradient of g, which the Jacobian at k = 0 does not see. Where that gradient is held by equations and
strongly active rows the solution does not move, and k = 0 is as regular as the problem without the term.

For a parameter that pushes the null directions N with the costs c the rows that t meets, and their multipliers y >= 0,
are those of

    minimise  c'Nn   subject to  A_0 N n <= s_0,   A_0 the rows with positive slacks s_0,

and the gradient of g is c + A_0'y. Without a minimum the problem has no solution for k on that side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.optimize import linprog

from conelayers.regularity.interface import Interface

if TYPE_CHECKING:
    from conelayers.regularity.artefacts import RowKinds

__all__ = ["switched_off_without_effect"]

_ZERO = 1e-6
# Beyond this many parameters the answer is no.
_MOST = 16
_UNBOUNDED = 3


def switched_off_without_effect(
    costs: np.ndarray, directions: np.ndarray, A: sp.csr_array, v: np.ndarray, kinds: RowKinds, interface: Interface
) -> bool:
    """Whether parameters that push the null space by their costs leave the user's solution where it is.

    Args:
        costs: Positions of these parameters.
        directions: The null space, columns, (n, k).
        A: (m, n).
        v: y - s, (m,).
        kinds: What the rows of A are.
        interface: What belongs to the user.
    """
    moved = np.abs(A @ directions).max(axis=1) > _ZERO
    # Curved blocks and borders that the directions run into are not followed.
    if len(costs) > _MOST or np.any(moved & ~kinds.lines):
        return False
    rows, strong = A[np.flatnonzero(moved)], A[np.flatnonzero(kinds.strong)]
    slack = np.maximum(-v[moved], 0.0)
    for cost in interface.q[:, costs].T.toarray():
        sides = [_side(sign * cost, directions, rows, slack, strong) for sign in (1.0, -1.0)]
        if False in sides or sides == [None, None]:
            return False
    return True


def _side(cost: np.ndarray, directions: np.ndarray, rows: sp.csr_array, slack: np.ndarray, strong: sp.csr_array):
    """Whether the solution stays when the costs come; None if there is no solution then."""
    found = linprog(cost @ directions, A_ub=(rows @ directions), b_ub=slack, bounds=(None, None), method="highs")
    if found.status == _UNBOUNDED:
        return None
    if found.status != 0:
        return False
    gradient = cost - rows.T @ found.ineqlin.marginals
    columns = strong.T.toarray()
    left = gradient - columns @ np.linalg.lstsq(columns, gradient, rcond=None)[0] if columns.size else gradient
    return bool(np.linalg.norm(left) <= _ZERO * max(np.linalg.norm(cost), np.linalg.norm(gradient)))

"""Programmes without rows or without columns, which some solvers refuse."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from conelayers.backends.items import Item, Point
from conelayers.backends.rows import RowMap
from conelayers.cones import ProductCone
from conelayers.program import Status

__all__ = ["solve_trivial"]

_ACCURACY = 1e-9  # relative to the data, of an equation or a membership that holds or does not


def solve_trivial(item: Item, rows: RowMap, P_pattern: tuple[np.ndarray, np.ndarray], cone: ProductCone) -> Point:
    """Without rows, the minimiser of 1/2 x'Px + q'x; without columns, whether b lies in the cone.

    Args:
        item: A programme with no rows or no columns.
        rows: The order in which the item's rows come.
        P_pattern: Row indices and column pointers of the upper triangle of P.
        cone: The cone of the rows.
    """
    n, m = len(item.q), cone.dim
    if m:
        _, b = rows.from_solver(item.b, item.b)
        s = cone.project(torch.from_numpy(b)).numpy()
        inside = np.abs(s - b).max() <= _ACCURACY * max(1.0, np.abs(b).max())
        if inside:
            return Point(Status.SOLVED, 0, np.zeros(0), np.zeros(m), s)
        return Point(Status.PRIMAL_INFEASIBLE, 0, np.zeros(0), s - b, s)  # the projection of -b on K*
    upper = sp.csc_array((item.P, *P_pattern), shape=(n, n)).toarray() if len(item.P) else np.zeros((n, n))
    P = upper + np.triu(upper, 1).T
    x = np.linalg.lstsq(P, -item.q, rcond=None)[0] if n else np.zeros(0)
    slope = P @ x + item.q  # where it does not vanish, P is zero along it
    nothing = np.zeros(0)
    if np.abs(slope).max(initial=0.0) <= _ACCURACY * np.abs(item.q).max(initial=1.0):
        return Point(Status.SOLVED, 0, x, nothing, nothing)
    return Point(Status.DUAL_INFEASIBLE, 0, -slope, nothing, nothing)

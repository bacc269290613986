"""Which semidefinite blocks are Hermitian matrices in disguise.

CVXPY lifts a Hermitian X + iY of order n to the real symmetric [[X, -Y], [Y, X]] of order 2n. Only matrices of this
form occur as slacks; the dual of the lifted block has more freedom than the user's, so it is never unique. Its
orthogonal projection onto the lifted matrices is a dual solution again (it is the mean of Z and J'ZJ, with J the
lifted i), and it has no more freedom than the user's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

from conelayers.canonicalize.affine_map import AffineMap
from conelayers.canonicalize.outputs import Output
from conelayers.cones import PositiveSemidefinite
from conelayers.program import ConeStructure

__all__ = ["hermitian_blocks", "without_freedom"]


def hermitian_blocks(structure: ConeStructure, A: AffineMap, b: AffineMap) -> np.ndarray:
    """Blocks whose rows of A and b have the lifted form for all parameter values, bool, (number of cones,)."""
    cone = structure.cone
    found = np.zeros(len(cone.cones), dtype=bool)
    for position, block in enumerate(cone.cones):
        if isinstance(block, PositiveSemidefinite) and block.order and block.order % 2 == 0:
            start, stop = cone.offsets[position], cone.offsets[position + 1]
            conditions = _conditions(block.order // 2)
            found[position] = all(_vanishes(conditions @ part) for part in _coefficients(structure, A, b, start, stop))
    return found


def without_freedom(outputs: Sequence[Output], structure: ConeStructure, lifted: np.ndarray) -> tuple[Output, ...]:
    """Outputs that read the duals of `lifted` blocks through the projection onto lifted matrices."""
    projections: list[Any] = []
    for block, disguised in zip(structure.cone.cones, lifted, strict=True):
        projections.append(sp.eye_array(block.dim))
        if disguised and isinstance(block, PositiveSemidefinite):
            conditions = _conditions(block.order // 2)  # with orthogonal rows
            scaled = sp.diags_array(1 / conditions.power(2).sum(axis=1)) @ conditions
            projections[-1] = projections[-1] - conditions.T @ scaled
    projection: Any = sp.block_diag(projections, format="csr")
    return tuple(
        dataclasses.replace(o, matrix=sp.csr_array(o.matrix @ projection)) if o.source == "dual" else o for o in outputs
    )


def _coefficients(structure: ConeStructure, A: AffineMap, b: AffineMap, start: int, stop: int) -> list[sp.csr_array]:
    """Rows of A and of b in all their dependence on the parameters, (rows, anything)."""
    entries: Any = sp.coo_array(A.matrix)
    width = entries.shape[1]
    rows, columns = structure.A_indices[entries.row], structure.A_columns[entries.row]
    inside = (rows >= start) & (rows < stop)
    where = (rows[inside] - start, columns[inside] * width + entries.col[inside])
    lifted = sp.csr_array((entries.data[inside], where), shape=(stop - start, structure.n * width))
    return [lifted, sp.csr_array(b.matrix)[start:stop]]


def _conditions(n: int) -> sp.csr_array:
    """One row per linear condition on svec of a symmetric matrix of order 2n that makes it a lifted one."""

    def place(row: int, column: int) -> int:
        row, column = max(row, column), min(row, column)
        return column * 2 * n - column * (column - 1) // 2 + row - column

    entries = []
    for i in range(n):
        for j in range(i + 1):
            entries.append((place(i, j), place(n + i, n + j), -1.0))
            entries.append((place(n + i, j), place(n + j, i), 1.0))
    count, size = len(entries), n * (2 * n + 1)
    first, second, sign = zip(*entries, strict=True)
    data = np.concatenate([np.ones(count), sign])
    return sp.csr_array((data, (np.tile(np.arange(count), 2), np.concatenate([first, second]))), shape=(count, size))


def _vanishes(matrix: Any) -> bool:
    return matrix.nnz == 0 or bool(np.abs(matrix.data).max() <= 1e-12)

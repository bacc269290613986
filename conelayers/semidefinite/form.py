"""Which programmes have semidefinite blocks that need not be formed densely, read off the pattern.

A large block is a *matrix variable*, if each of its rows holds one entry, in a column of its own (S = X up to scaling),
or else a *linear matrix inequality* in the other columns. What is factored for either has the size of the other rows
and columns, see `reduced`.

A *soft row* is an equality  c z + a'x = b  whose variable z stands in no other row and has a cost p z^2 / 2 of its own;
so CVXPY writes sum_squares. It is a cost  p (a'x - b)^2 / (2 c^2)  of x, and neither row nor variable is left.
"""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np

from conelayers.cones import PositiveSemidefinite, ProductCone, Zero
from conelayers.program import ConeStructure

__all__ = ["LARGE_ORDER", "Form", "LargeBlock", "semidefinite_form"]

LARGE_ORDER = 24
"""Semidefinite blocks beyond this order are large; the dense kernels are as fast up to here."""

# Rows and columns beside the large blocks, and entries of the stack of transformed matrices: what is factored is dense.
_MOST_UNKNOWNS, _MOST_ENTRIES = 3_000, 40_000_000


@dataclasses.dataclass(frozen=True)
class LargeBlock:
    """One large semidefinite block.

    Attributes:
        order: Order of its matrices.
        rows: Its rows of A.
        columns: For a matrix variable the column of each row; None for a matrix inequality.
        entries: For a matrix variable the position of each row's entry among the values of A.
    """

    order: int
    rows: slice
    columns: np.ndarray | None = None
    entries: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """A programme's rows and columns, sorted.

    Attributes:
        variables: Large blocks that are matrix variables.
        inequalities: Large blocks that are matrix inequalities.
        rows: Rows of all other cones, soft ones among them, (m_o,).
        cone: The product of the other cones.
        columns: Columns that are no matrix variable's, soft ones among them, (n_z,).
        soft_rows: Soft rows, as positions in A, (k,).
        soft_columns: The variable of each, as columns of A, (k,).
    """

    variables: tuple[LargeBlock, ...]
    inequalities: tuple[LargeBlock, ...]
    rows: np.ndarray
    cone: ProductCone
    columns: np.ndarray
    soft_rows: np.ndarray
    soft_columns: np.ndarray


def semidefinite_form(structure: ConeStructure) -> Form | None:
    """The form of a structure with large semidefinite blocks; None if it has none or they do not fit.

    It is found once per structure.
    """
    if structure not in _forms:
        _forms[structure] = _find(structure)
    return _forms[structure]


_forms: weakref.WeakKeyDictionary[ConeStructure, Form | None] = weakref.WeakKeyDictionary()


def _find(structure: ConeStructure) -> Form | None:
    ends = np.cumsum([cone.dim for cone in structure.cone.cones], dtype=np.int64)
    large, other, cones = [], [], []
    for cone, end in zip(structure.cone.cones, ends.tolist(), strict=True):
        if isinstance(cone, PositiveSemidefinite) and cone.order > LARGE_ORDER:
            large.append(LargeBlock(cone.order, slice(end - cone.dim, end)))
        else:
            other.append(np.arange(end - cone.dim, end))
            cones.append(cone)
    if not large:
        return None
    block_of_row = np.full(structure.m, -1)
    for k, block in enumerate(large):
        block_of_row[block.rows] = k
    variables = tuple(v for k, block in enumerate(large) if (v := _matrix_variable(structure, block, k, block_of_row)))
    own = np.zeros(structure.n, dtype=bool)
    for block in variables:
        own[block.columns] = True
    taken = {block.rows.start for block in variables}
    inequalities = tuple(block for block in large if block.rows.start not in taken)
    columns = np.flatnonzero(~own)
    rows = np.concatenate([np.zeros(0, np.int64), *other])
    soft_rows, soft_columns = _soft_rows(structure, own)
    form = Form(variables, inequalities, rows, ProductCone(cones), columns, soft_rows, soft_columns)
    return form if _fits(form) else None


def _matrix_variable(
    structure: ConeStructure, block: LargeBlock, number: int, block_of_row: np.ndarray
) -> LargeBlock | None:
    """The block as a matrix variable, if its rows have one entry each, in columns that no large block shares."""
    inside = np.flatnonzero(block_of_row[structure.A_indices] == number)
    size = block.rows.stop - block.rows.start
    order = inside[np.argsort(structure.A_indices[inside], kind="stable")]
    if len(order) != size or not np.array_equal(structure.A_indices[order] - block.rows.start, np.arange(size)):
        return None
    columns = structure.A_columns[order]
    if len(np.unique(columns)) != size:
        return None
    own = np.zeros(structure.n, dtype=bool)
    own[columns] = True
    touching = block_of_row[structure.A_indices[own[structure.A_columns]]]
    if np.any((touching != number) & (touching >= 0)):
        return None
    beside = own[structure.P_indices] | own[structure.P_columns]
    if np.any(structure.P_indices[beside] != structure.P_columns[beside]):
        return None
    return LargeBlock(block.order, block.rows, columns, order)


def _soft_rows(structure: ConeStructure, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equality rows with a variable of their own that has a cost of its own; one variable each."""
    single = (np.bincount(structure.A_columns, minlength=structure.n) == 1) & ~own
    diagonal = structure.P_indices == structure.P_columns
    squared = np.zeros(structure.n, dtype=bool)
    squared[structure.P_columns[diagonal]] = True
    squared[structure.P_indices[~diagonal]] = squared[structure.P_columns[~diagonal]] = False
    entries = np.flatnonzero((single & squared)[structure.A_columns])
    found_rows, first = np.unique(structure.A_indices[entries], return_index=True)
    found_columns = structure.A_columns[entries[first]]
    cones = structure.cone.cones
    equality = np.repeat([isinstance(cone, Zero) for cone in cones], [cone.dim for cone in cones])
    keep = equality[found_rows]
    return found_rows[keep], found_columns[keep]


def _fits(form: Form) -> bool:
    """Whether what is formed and factored is of moderate size."""
    rows, columns = len(form.rows) - len(form.soft_rows), len(form.columns) - len(form.soft_columns)
    stacks = sum(rows * block.order**2 for block in form.variables)
    stacks += sum(columns * block.order**2 for block in form.inequalities)
    return rows + columns <= _MOST_UNKNOWNS and stacks <= _MOST_ENTRIES

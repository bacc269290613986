"""Which of the user's constraints and variables each row and column of a cone programme comes from."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from conelayers.canonicalize.outputs import Output
from conelayers.program import ConeStructure

__all__ = ["Owners", "Provenance"]


@dataclasses.dataclass(frozen=True, eq=False)
class Owners:
    """Owners of rows and columns.

    Attributes:
        constraints: Labels of the user's constraints, then of what else rows come from.
        variables: Names of the user's variables.
        rows: Index into `constraints` for each row, (m,).
        columns: Index into `variables` for each column, -1 for auxiliary variables, (n,).
    """

    constraints: tuple[str, ...]
    variables: tuple[str, ...]
    rows: np.ndarray
    columns: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Provenance:
    """All variables of the problem and the duals of all its constraints, as images of x and y.

    Attributes:
        variables: One output per variable of the problem.
        duals: One output per constraint, named by the constraint's label.
    """

    variables: tuple[Output, ...] = ()
    duals: tuple[Output, ...] = ()

    def map(self, function: Callable[[Output], Output]) -> Provenance:
        """The same for a programme with other rows and columns."""
        return Provenance(tuple(map(function, self.variables)), tuple(map(function, self.duals)))

    def owners(self, structure: ConeStructure) -> Owners:
        """Owners of all rows and columns.

        A row belongs to the constraint whose dual reads it, and a curved block is one. Rows that came with auxiliary
        variables belong to the constraint in whose rows these variables stand, or to the objective; rows that hold a
        user's variables alone are attributes of the variables (`nonneg=True` and the like).

        Args:
            structure: The programme's patterns.
        """
        columns = np.full(structure.n, -1)
        for index, variable in enumerate(self.variables):
            columns[variable.reads] = index
        rows = np.full(structure.m, -1)
        # A constraint whose row was substituted reads rows of others: those with fewest rows choose first.
        for index in sorted(range(len(self.duals)), key=lambda i: len(self.duals[i].reads)):
            own = self.duals[index].reads
            rows[own[rows[own] < 0]] = index
        pattern = sp.csr_array(
            (np.ones(structure.A_nnz), (structure.A_indices, structure.A_columns)), shape=(structure.m, structure.n)
        )
        auxiliary = pattern[:, np.flatnonzero(columns < 0)]
        rows = _spread(rows, sp.csr_array(sp.hstack([auxiliary, _curved_blocks(structure)], format="csr")))
        labels = [dual.name for dual in self.duals]
        for row in np.flatnonzero(rows < 0):
            entries = pattern.indices[pattern.indptr[row] : pattern.indptr[row + 1]]
            labels, rows[row] = _name(entries, columns, labels, [v.name for v in self.variables])
        return Owners(tuple(labels), tuple(v.name for v in self.variables), rows, columns)


def _spread(rows: np.ndarray, links: sp.csr_array) -> np.ndarray:
    """Hand owners from row to row through shared auxiliary variables (or blocks), the columns of `links`."""
    by_column = sp.csc_array(links)
    frontier = deque(np.flatnonzero(rows >= 0).tolist())
    seen: set[int] = set()
    while frontier:
        row = frontier.popleft()
        for column in set(links.indices[links.indptr[row] : links.indptr[row + 1]].tolist()) - seen:
            seen.add(column)
            for other in by_column.indices[by_column.indptr[column] : by_column.indptr[column + 1]]:
                if rows[other] < 0:
                    rows[other] = rows[row]
                    frontier.append(other)
    return rows


def _curved_blocks(structure: ConeStructure) -> sp.csr_array:
    """One column per block of a curved cone, with ones in its rows."""
    cone = structure.cone
    curved = [i for i, block in enumerate(cone.cones) if not block.polyhedral]
    rows = [np.arange(cone.offsets[i], cone.offsets[i + 1]) for i in curved]
    columns = [np.full(len(part), position) for position, part in enumerate(rows)]
    where = (np.concatenate([np.zeros(0, int), *rows]), np.concatenate([np.zeros(0, int), *columns]))
    return sp.csr_array((np.ones(len(where[0])), where), shape=(structure.m, len(curved)))


def _name(entries: np.ndarray, columns: np.ndarray, labels: list[str], names: list[str]) -> tuple[list[str], int]:
    """The label of a row without a constraint, appended to the labels if it is new."""
    users = columns[entries]
    if len(entries) and np.all(users >= 0):
        label = f"attributes of {', '.join(names[i] for i in np.unique(users))}"
    else:
        label = "the objective"
    if label not in labels:
        labels = [*labels, label]
    return labels, labels.index(label)

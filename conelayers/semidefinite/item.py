"""One programme with large semidefinite blocks: its data, sorted as its form says, soft rows folded into the cost."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from conelayers.program import ConeStructure
from conelayers.semidefinite.form import Form, LargeBlock
from conelayers.semidefinite.spectral import MatrixStack

__all__ = ["Item", "MatrixInequality", "MatrixVariable", "Unsuited"]

# Relative difference up to which numbers that must agree do.
_EQUAL = 1e-12


class Unsuited(Exception):
    """The values of a programme do not have the form that their pattern allows; dense methods take it."""


@dataclasses.dataclass(frozen=True, eq=False)
class MatrixVariable:
    """The data of one matrix variable X' = C X.

    Attributes:
        block: Where it is.
        scale: The diagonal of C: minus the entries of A, (d,).
        rho: The quadratic cost is rho |X'|^2 / 2.
        E: Entries of the hard rows in X', (rows, d), sparse.
        used: Rows with an entry.
        stack: These rows as matrices.
    """

    block: LargeBlock
    scale: np.ndarray
    rho: float
    E: sp.csr_array
    used: np.ndarray
    stack: MatrixStack


@dataclasses.dataclass(frozen=True, eq=False)
class MatrixInequality:
    """The data of one matrix inequality  S = B - sum of z_j A_j.

    Attributes:
        block: Where it is.
        entries: Entries in the columns that stay, (d, n_z), sparse.
        stack: The columns as matrices.
    """

    block: LargeBlock
    entries: Any
    stack: MatrixStack


class Item:
    """One programme's data.

    Args:
        structure: Patterns and cone.
        form: Its form.
        P: Values of P, (P_nnz,).
        A: Values of A, (A_nnz,).

    Raises:
        Unsuited: If the quadratic cost of a matrix variable is no multiple of |X|^2, or a soft row has no cost.
    """

    def __init__(self, structure: ConeStructure, form: Form, P: np.ndarray, A: np.ndarray) -> None:
        self.structure, self.form = structure, form
        upper: Any = structure.P_matrix(P)
        self.P: Any = sp.csr_array(upper + sp.triu(upper, 1).T)
        self.A: Any = sp.csr_array(structure.A_matrix(A))
        self._sort()
        self.variables = tuple(self._variable(block, A) for block in form.variables)
        self.inequalities = tuple(self._inequality(block) for block in form.inequalities)
        beside = self.weighted[:, self.columns] if form.variables else None
        if beside is not None and any(abs(beside[v.block.columns]).sum() > 0 for v in self.variables):
            raise Unsuited("a quadratic cost couples a matrix variable with others")

    def _sort(self) -> None:
        """Hard rows and columns; the soft ones' coefficients; the cost with the soft rows folded in."""
        form, structure = self.form, self.structure
        soft_z = np.zeros(structure.n, dtype=bool)
        soft_z[form.soft_columns] = True
        hard_rows = np.ones(structure.m, dtype=bool)
        hard_rows[form.soft_rows] = False
        self.hard = np.flatnonzero(hard_rows[form.rows])  # among the other cones' rows
        self.rows = form.rows[self.hard]
        self.columns = form.columns[~soft_z[form.columns]]
        self.soft_cost = self.P.diagonal()[form.soft_columns]
        self.soft_slope = self.A[form.soft_rows][:, form.soft_columns].diagonal()
        if len(form.soft_rows) and not (self.soft_cost > 0).all() & (self.soft_slope != 0).all():
            raise Unsuited("a soft row has no cost")
        rest = sp.csr_array(self.A[form.soft_rows])
        keep: Any = sp.diags_array((~soft_z).astype(float))
        self.soft_rest: Any = sp.csr_array(rest @ keep)  # a' of each soft row
        weights: Any = sp.diags_array(self.soft_cost / self.soft_slope**2)
        kept = keep @ self.P @ keep
        self.weighted: Any = sp.csr_array(kept + self.soft_rest.T @ weights @ self.soft_rest)

    def _variable(self, block: LargeBlock, A: np.ndarray) -> MatrixVariable:
        scale, columns = -A[block.entries], block.columns
        if (scale == 0).any():
            raise Unsuited("a matrix variable has a zero entry")
        cost: Any = self.weighted[columns][:, columns].tocoo()
        if np.any(cost.row != cost.col):
            if np.abs(cost.data[cost.row != cost.col]).max() > 0:
                raise Unsuited("the quadratic cost of a matrix variable couples its entries")
        diagonal = self.weighted.diagonal()[columns] / scale**2
        rho = float(diagonal.mean())
        if np.abs(diagonal - rho).max() > _EQUAL * rho:
            raise Unsuited("the quadratic cost of a matrix variable weights its entries")
        E = self.A_kept[:, columns] @ sp.diags_array(1 / scale)
        E = sp.csr_array(E)
        used = np.flatnonzero(np.diff(E.indptr))
        return MatrixVariable(block, scale, rho, E, used, MatrixStack(E[used], block.order))

    def _inequality(self, block: LargeBlock) -> MatrixInequality:
        entries = sp.csr_array(self.A[block.rows][:, self.columns])
        return MatrixInequality(block, entries, MatrixStack(entries.T, block.order))

    @cached_property
    def A_kept(self) -> Any:
        """The rows that stay, all columns, sparse, (m_o, n)."""
        return self.A[self.rows]

    @cached_property
    def P_hard(self) -> np.ndarray:
        """Cost of the columns that stay, dense, (n_z, n_z)."""
        return self.weighted[self.columns][:, self.columns].toarray()

    @cached_property
    def A_hard(self) -> np.ndarray:
        """Rows and columns that stay, dense, (m_o, n_z)."""
        return self.A_kept[:, self.columns].toarray()

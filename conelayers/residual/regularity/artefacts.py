"""Null directions of the lifting: undetermined auxiliary variables that leave the user's problem regular.

CVXPY lifts |x_1| + |x_2| <= d to t_1 + t_2 <= d, t_i >= |x_i|; while that constraint is inactive nothing determines t.
Let the columns of N span the null space of [P; U_+(D_min)'A]. The user's problem is regular although N is not empty if

1. N touches auxiliary variables only;
2. A N touches only blocks with D_max = 0, whose slacks are interior and whose duals vanish nearby;
3. no parameter enters the objective in a variable that N touches, nor the rows of such a variable in other blocks.

Then PN = 0, q'N = 0 and N'A'y = 0 hold for all parameters near the given ones and all y with the same vanishing blocks;
so the solution of the problem with its variables restricted to x + (a complement of N), whose Jacobians are all
invertible, solves the problem itself.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from conelayers.program import ConeStructure
from conelayers.residual.regularity.ranks import RANK_TOLERANCE, RankMatrices, primal_singular_values

__all__ = ["Interface", "NullDirections", "Verdict", "null_directions"]

# A null vector of norm one touches a variable whose entry exceeds this.
_TOUCHES = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Interface:
    """What of a programme belongs to its user.

    Attributes:
        variables: Columns of the user's own variables, bool, (n,).
        q, P, A: Entries that a parameter enters, bool, of the sizes of the programme's tensors.
    """

    variables: np.ndarray
    q: np.ndarray
    P: np.ndarray
    A: np.ndarray

    @classmethod
    def everything(cls, structure: ConeStructure) -> Interface:
        """All variables are the user's, and all entries are parameters."""
        sizes = (structure.n, structure.n, structure.P_nnz, structure.A_nnz)
        return cls(*(np.ones(size, dtype=bool) for size in sizes))


Verdict = bool | None
"""True: full rank. False: not. None: undecided."""


@dataclasses.dataclass(frozen=True, eq=False)
class NullDirections:
    """Outcome of (b) for one item.

    Attributes:
        verdict: Whether the rank is full modulo artefacts of the lifting.
        sigma: Smallest singular value modulo them.
        columns: Variables that null directions touch, bool, (n,).
        basis: The null directions, unscaled, (n, k).
    """

    verdict: Verdict
    sigma: float
    columns: Tensor
    basis: Tensor


def null_directions(
    matrices: RankMatrices, silent: Tensor, A: Tensor, structure: ConeStructure, interface: Interface
) -> NullDirections:
    """Judge the null space of (b).

    Args:
        matrices: of one item.
        silent: rows of blocks with D_max = 0, bool, (m,).
        A: dense, (m, n).
        structure: Patterns.
        interface: What belongs to the user.
    """
    values, vectors = primal_singular_values(matrices)
    null = vectors[values <= RANK_TOLERANCE]
    rest = values[values > RANK_TOLERANCE]
    sigma = float(rest.min()) if len(rest) else torch.inf
    touched = null.abs().amax(0) > _TOUCHES if len(null) else torch.zeros(structure.n, dtype=torch.bool)
    basis = matrices.column_scale[0][:, None] * null.T
    turned = sigma <= float(matrices.needed_primal[0])
    verdict = _benign(touched, basis, silent, A, structure, interface)
    if verdict is False:
        return NullDirections(False, float(values.min()), touched, basis)
    return NullDirections(None if turned else verdict, sigma, touched, basis)


def _benign(
    touched: Tensor, basis: Tensor, silent: Tensor, A: Tensor, structure: ConeStructure, interface: Interface
) -> Verdict:
    """The three conditions of the module; None where only the second fails."""
    if not basis.shape[1]:
        return True
    columns = touched.numpy()
    if np.any(columns & interface.variables) or np.any(columns & interface.q):
        return False
    if np.any(interface.P & (columns[structure.P_indices] | columns[structure.P_columns])):
        return False
    loud = ~silent.numpy()
    if np.any(interface.A & columns[structure.A_columns] & loud[structure.A_indices]):
        return False
    moved = A @ (basis / basis.norm(dim=0))
    scale = A.abs().amax(-1, keepdim=True)
    moves = (moved.abs() > _TOUCHES * scale).any(-1)
    return None if bool((moves & ~silent).any()) else True

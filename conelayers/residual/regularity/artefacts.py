"""Null directions of the lifting that leave the user's problem regular: auxiliary variables, Hermitian duals.

CVXPY lifts |x_1| + |x_2| <= d to t_1 + t_2 <= d, t_i >= |x_i|; while that constraint is inactive nothing determines t.
Let the columns of N span the null space of [P; U_+(D_min)'A]. The user's problem is regular although N is not empty if

1. N touches auxiliary variables only;
2. A N touches only blocks with D_max = 0, whose slacks are interior and whose duals vanish nearby;
3. no parameter enters the objective in a variable that N touches, nor the rows of such a variable in other blocks.

Then PN = 0, q'N = 0 and N'A'y = 0 hold for all parameters near the given ones and all y with the same vanishing blocks;
so the solution of the problem with its variables restricted to x + (a complement of N), whose Jacobians are all
invertible, solves the problem itself.

A Hermitian matrix of order n, lifted to a symmetric one of order 2n, X = JXJ' with J = [[0, -I], [I, 0]], has a dual
that is unique up to matrices with Y = -JYJ', which are orthogonal to all slacks. The projection and its derivative
commute with the symmetry; so if v has it, the null vectors of (a) that lack any symmetric part are no fault of the
user's problem: its own Jacobian is J(D) on symmetric vectors.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.cones.svec import smat, svec
from conelayers.program import ConeStructure
from conelayers.residual.regularity.ranks import RANK_TOLERANCE, RankMatrices, primal_singular_values

__all__ = ["Interface", "NullDirections", "Verdict", "lifted_duals", "null_directions"]

# A null vector of norm one touches a variable whose entry exceeds this.
_TOUCHES = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class Interface:
    """What of a programme belongs to its user.

    Attributes:
        variables: Columns of the user's own variables, bool, (n,).
        q, P, A: Entries that a parameter enters, bool, of the sizes of the programme's tensors.
        hermitian: Semidefinite blocks that are lifted Hermitian matrices, bool, (number of cones,); None for none.
    """

    variables: np.ndarray
    q: np.ndarray
    P: np.ndarray
    A: np.ndarray
    hermitian: np.ndarray | None = None

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


def lifted_duals(vectors: Tensor, v: Tensor, cone: ProductCone, interface: Interface) -> Verdict:
    """Whether null vectors of (a), (k, m), are all due to lifted Hermitian blocks; None where v lacks the symmetry."""
    if interface.hermitian is None or not interface.hermitian.any():
        return False
    symmetric, point = vectors.clone(), torch.zeros_like(v)
    for position in np.flatnonzero(interface.hermitian):
        rows = slice(cone.offsets[position], cone.offsets[position + 1])
        symmetric[:, rows] = _symmetric_part(vectors[:, rows])
        point[rows] = v[rows] - _symmetric_part(v[rows])
    if bool((symmetric.norm(dim=-1) > _TOUCHES * vectors.norm(dim=-1)).any()):
        return False
    return True if point.norm() <= _TOUCHES * v.norm() else None


def _symmetric_part(u: Tensor) -> Tensor:
    """Svec of (X + JXJ') / 2."""
    X = smat(u)
    n = X.shape[-1] // 2
    (a, b), (c, d) = ((X[..., i, :n], X[..., i, n:]) for i in (slice(None, n), slice(n, None)))
    turned = torch.cat([torch.cat([d, -c], -1), torch.cat([-b, a], -1)], -2)
    return svec((X + turned) / 2)

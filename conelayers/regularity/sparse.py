"""The two rank tests for one large sparse problem: factorize, then subspace iteration for smallest singular values.

For a tall matrix X the factor of the quasidefinite [[I, X], [X', -eps I]] applies (X'X + eps I)^-1 without forming X'X.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import qdldl
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.regularity.artefacts import RowKinds, Verdict, is_artefact
from conelayers.regularity.dual_artefacts import is_dual_artefact
from conelayers.regularity.extremes import Extremes
from conelayers.regularity.interface import Interface
from conelayers.regularity.ranks import RANK_TOLERANCE

__all__ = ["Problem", "SmallestSingular", "SparseVerdict", "judge", "smallest_singular"]

_SHIFT = 1e-12
_SUBSPACE = 8
# Entries of a null space that is looked at.
_LARGEST_BASIS = 20_000_000
_STEPS = 12
_EIGENVALUE = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """One item.

    Attributes:
        P: Upper triangle, (n, n).
        A: (m, n).
        y: Multipliers, (m,).
        kinds: What the rows of A are.
        v: y - s, (m,).
        interface: What belongs to the user.
        ball: Whether a radius is asked for that exceeds the accuracy.
    """

    P: sp.csc_array
    A: sp.csr_array
    y: np.ndarray
    kinds: RowKinds
    v: Tensor
    interface: Interface
    ball: bool


@dataclasses.dataclass(frozen=True, eq=False)
class SparseVerdict:
    """Both tests of one item; see `Certificate` for the other fields.

    Attributes:
        free: Whether there are null vectors at all, artefacts or not.
    """

    verdict: Verdict
    sigma_dual: float
    sigma_primal: float
    dependent: np.ndarray
    undetermined: np.ndarray
    free: bool


def judge(problem: Problem, family: Extremes, position: int) -> SparseVerdict:
    """Test item `position` of the family."""
    m = len(problem.y)
    high = _rotation(family.largest, position, lambda values: values >= 1 - _EIGENVALUE, m)
    low = _rotation(family.smallest, position, lambda values: values > _EIGENVALUE, m)
    factors: Any = sp.diags_array(_block_factors(problem.A, family))
    scaled = sp.csr_array(factors @ problem.A)
    turns = (family.turn_one[position].numpy(), family.turn_zero[position].numpy())
    dual, sigma_dual, dependent, free_dual = _dual(
        problem, sp.csr_array(high.T @ scaled), factors @ high, scaled, turns[0]
    )
    P = sp.csr_array(problem.P + sp.triu(problem.P, 1).T)
    primal, sigma_primal, undetermined, free_primal = _primal(
        problem, P, sp.csr_array(low.T @ scaled), scaled, turns[1]
    )
    if False in (dual, primal):
        verdict: Verdict = False
    else:
        verdict = None if dual is None or primal is None else True
    return SparseVerdict(verdict, sigma_dual, sigma_primal, dependent, undetermined, free_dual or free_primal)


# Smallest singular values of large matrices are found by iterations, at points that are not sharpened: a smaller one is
# no proof of full rank.
_SURELY = 1e-7


def _dual(
    problem: Problem, active: sp.csr_array, high: sp.csr_array, scaled: sp.csr_array, turn: np.ndarray
) -> tuple[Verdict, float, np.ndarray, bool]:
    """(a), with null vectors judged as `dual_artefacts` does; `high` has the eigenvectors in the rows of A."""
    found = smallest_singular(sp.csc_array(active.T))
    needed = (_SURELY + _lost(scaled, turn)) / np.sqrt(max(1 - turn.max(initial=0.0) ** 2, 1e-300))
    if found.sigma > RANK_TOLERANCE:
        return True if found.sigma > needed else None, found.sigma, np.zeros(len(problem.y), dtype=bool), False
    u = high @ found.null
    u = torch.from_numpy((u / np.linalg.norm(u, axis=0)).T.copy())
    verdict = is_dual_artefact(u, torch.ones(()), problem.v, problem.kinds, problem.interface)
    if verdict is True and not found.above > needed:
        verdict = None  # there may be more null vectors, or a turn makes one
    dependent = (u.abs() > 1e-6).any(0).numpy() & (verdict is not True)
    return verdict, found.above if verdict is True else found.sigma, dependent, True


def _primal(
    problem: Problem, P: sp.csr_array, kept: sp.csr_array, scaled: sp.csr_array, turn: np.ndarray
) -> tuple[Verdict, float, np.ndarray, bool]:
    """(b), with null vectors judged as `artefacts` does; columns of zeros are null vectors in plain sight."""
    n = problem.interface.structure.n
    stacked: Any = sp.csc_array(sp.vstack([_normalized(P), kept]))
    norms = sp.linalg.norm(stacked, axis=0) if n else np.zeros(0)
    free, rest = np.flatnonzero(norms == 0), np.flatnonzero(norms)
    found = smallest_singular(sp.csc_array(stacked[:, rest] @ sp.diags_array(1 / norms[rest])))
    scale = np.where(norms > 0, 1 / np.where(norms > 0, norms, 1.0), 1.0)
    needed = _SURELY + _lost(scaled @ sp.diags_array(scale), turn)
    undetermined = np.zeros(n, dtype=bool)
    null = found.null if found.sigma <= RANK_TOLERANCE else found.null[:, :0]
    if not len(free) and not null.shape[1]:
        return True if found.sigma > needed else None, found.sigma, undetermined, False
    undetermined[free] = True
    undetermined[rest] = np.abs(null).max(axis=1, initial=0.0) > 1e-6
    sigma = found.above if null.shape[1] else found.sigma
    if np.any(undetermined & problem.interface.variables):
        return False, 0.0, undetermined, True
    if n * (len(free) + null.shape[1]) > _LARGEST_BASIS:
        return None, sigma, undetermined, True
    basis = np.zeros((n, len(free) + null.shape[1]))
    basis[free, np.arange(len(free))] = 1.0
    basis[rest, len(free) :] = null
    verdict = is_artefact(
        basis, scale, problem.A, problem.y, problem.v.numpy(), problem.kinds, problem.interface, ball=problem.ball
    )
    if verdict is True and not sigma > needed:
        verdict = None  # there may be more null vectors, or a turn makes one
    if verdict is not False:
        return verdict, sigma, undetermined & (verdict is None), True
    return False, 0.0, undetermined, True


def _block_factors(A: Any, family: Extremes) -> np.ndarray:
    """1 / largest row norm of each block, for every row, (m,); 1 for blocks of zeros."""
    m = A.shape[0]
    norms, factors = np.asarray(sp.linalg.norm(A, axis=1)) if m else np.zeros(0), np.ones(m)
    for block in family.smallest:
        rows = block.rows.numpy()
        largest = norms[rows].max(axis=1, keepdims=True)
        factors[rows] = np.where(largest > 0, 1 / np.where(largest > 0, largest, 1.0), 1.0)
    return factors


def _lost(scaled: Any, turn: np.ndarray) -> float:
    """What turning eigenspaces may take from the smallest singular value, see `ranks`."""
    rows = np.flatnonzero(turn)
    return float(np.linalg.norm(turn[rows] * sp.linalg.norm(scaled[rows], axis=1))) if len(rows) else 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class SmallestSingular:
    """The low end of a spectrum.

    Attributes:
        sigma: Smallest singular value; infinity for a matrix without columns.
        null: Orthonormal vectors that span the null space, or part of it, as columns (the vector of sigma if there is
            no null space).
        above: The smallest singular value beyond the null space; 0 where that was not reached.
    """

    sigma: float
    null: np.ndarray
    above: float


def smallest_singular(X: Any) -> SmallestSingular:
    """The low end of the spectrum of a sparse matrix by subspace iteration."""
    rows, columns = X.shape
    if columns == 0:
        return SmallestSingular(float("inf"), np.zeros((0, 0)), float("inf"))
    K = sp.block_array([[sp.eye_array(rows), X], [None, -_SHIFT * sp.eye_array(columns)]], format="csc")
    factor = qdldl.Solver(sp.csc_matrix(K), upper=True)
    basis = np.random.default_rng(0).standard_normal((columns, min(_SUBSPACE, columns)))
    for _ in range(_STEPS):
        solved = [factor.solve(np.concatenate([np.zeros(rows), -column]))[rows:] for column in basis.T]
        basis, _ = np.linalg.qr(np.stack(solved, axis=1))
    image = X @ basis
    padding = np.zeros((max(0, basis.shape[1] - rows), basis.shape[1]))  # where there are fewer rows than vectors
    _, sigma, right = np.linalg.svd(np.concatenate([image, padding]), full_matrices=False)
    null = sigma <= max(RANK_TOLERANCE, sigma[-1])
    above = float(sigma[~null].min()) if not null.all() else (float("inf") if len(sigma) == columns else 0.0)
    return SmallestSingular(float(sigma[-1]), basis @ right[null].T, above)


def _rotation(spectrum, position: int, keep, m: int) -> sp.csr_array:
    """Kept eigenvectors as sparse columns in the rows of v, (m, kept)."""
    rows, columns, entries, count = [], [], [], 0
    for block in spectrum:
        values = block.values[position].numpy()
        vectors = block.vectors[position].numpy()
        blocks, which = np.nonzero(keep(values))
        size = block.rows.shape[1]
        rows.append(block.rows.numpy()[blocks].ravel())
        columns.append(np.repeat(count + np.arange(len(blocks)), size))
        entries.append(vectors[blocks, :, which].ravel())
        count += len(blocks)
    if not rows:
        return sp.csr_array((m, 0))
    data = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(data, shape=(m, count))


def _normalized(matrix: Any) -> sp.csr_array:
    """Rows of norm one; rows of zeros or negligible ones as they are."""
    norms = sp.linalg.norm(matrix, axis=1) if matrix.shape[0] else np.zeros(0)
    norms = np.where(norms > 1e-12 * norms.max(initial=0.0), norms, 1.0)
    return sp.csr_array(sp.diags_array(1 / norms) @ matrix)

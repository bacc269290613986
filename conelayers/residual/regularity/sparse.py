"""The two rank tests for one large sparse problem: factorize, then subspace iteration for smallest singular values.

For a tall matrix X the factor of the quasidefinite [[I, X], [X', -eps I]] applies (X'X + eps I)^-1 without forming X'X.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import qdldl
import scipy.sparse as sp

from conelayers.program import ConeStructure
from conelayers.residual.regularity.artefacts import Interface, Verdict
from conelayers.residual.regularity.extremes import Extremes

__all__ = ["SparseVerdict", "judge", "smallest_singular"]

#: Singular values of the scaled matrices up to this are zeros.
RANK_TOLERANCE = 1e-7
_SHIFT = 1e-12
_SUBSPACE = 4
_STEPS = 12
_EIGENVALUE = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class SparseVerdict:
    """Both tests of one item; see `Certificate` for the fields."""

    verdict: Verdict
    sigma_dual: float
    sigma_primal: float
    dependent: np.ndarray
    undetermined: np.ndarray


def judge(
    P: sp.csc_array,
    A: sp.csc_array,
    family: Extremes,
    position: int,
    silent: np.ndarray,
    structure: ConeStructure,
    interface: Interface,
) -> SparseVerdict:
    """Test item `position` of the family; P is the upper triangle."""
    high = _rotation(family.largest, position, lambda values: values >= 1 - _EIGENVALUE, structure.m)
    low = _rotation(family.smallest, position, lambda values: values > _EIGENVALUE, structure.m)
    full_P = sp.csr_array(P + sp.triu(P, 1).T)
    turned = bool((family.turn_one[position] > 0).any() or (family.turn_zero[position] > 0).any())
    active = _normalized(sp.csr_array(high.T @ A))
    sigma_dual, vectors = smallest_singular(sp.csc_array(active.T))
    dual: Verdict = sigma_dual > RANK_TOLERANCE
    dependent = np.zeros(structure.m, dtype=bool)
    if not dual:
        weights = np.abs(high @ vectors).max(axis=1, initial=0.0)
        dependent = weights > 1e-6 * weights.max(initial=1e-300)
        if interface.hermitian is not None and interface.hermitian.any():
            dual = None  # the lifting may be the reason
    primal, sigma_primal, undetermined = _primal(
        sp.csr_array(sp.vstack([_normalized(full_P), _normalized(sp.csr_array(low.T @ A))])),
        A,
        silent,
        structure,
        interface,
    )
    if False in (dual, primal):
        verdict: Verdict = False
    else:
        verdict = None if dual is None or primal is None or turned else True
    return SparseVerdict(verdict, sigma_dual, sigma_primal, dependent, undetermined)


def _primal(stacked, A, silent, structure, interface) -> tuple[Verdict, float, np.ndarray]:
    """(b) after removing the columns of zeros, which are judged as `artefacts` does."""
    norms = sp.linalg.norm(stacked, axis=0) if stacked.shape[1] else np.zeros(0)
    free = norms == 0
    undetermined = np.zeros(structure.n, dtype=bool)
    verdict: Verdict = True
    if free.any():
        loud = free[structure.A_columns] & ~silent[structure.A_indices]
        touched = A.data != 0
        pushed = interface.variables | interface.q
        if np.any(free & pushed) or np.any(interface.A & loud):
            verdict = False
        elif np.any(interface.P & (free[structure.P_indices] | free[structure.P_columns])):
            verdict = False
        elif np.any(loud & touched):
            verdict = None
        undetermined = free if verdict is not True else undetermined
    rest = sp.csc_array(stacked)[:, np.flatnonzero(~free)]
    rest = sp.csc_array(rest * (1 / norms[~free])[None, :]) if rest.shape[1] else rest
    sigma, vectors = smallest_singular(rest)
    if sigma <= RANK_TOLERANCE:
        touched = np.zeros(structure.n, dtype=bool)
        weights = np.abs(vectors).max(axis=1)
        touched[np.flatnonzero(~free)[weights > 1e-6 * weights.max()]] = True
        undetermined = undetermined | touched
        benign = not np.any(touched & (interface.variables | interface.q))
        verdict = None if benign and verdict is not False else False
    return verdict, sigma, undetermined


def smallest_singular(X: Any) -> tuple[float, np.ndarray]:
    """Smallest singular value of a tall matrix and vectors (columns) that span its null space, or part of it.

    More columns than rows give zero and a null vector; no column gives infinity.
    """
    rows, columns = X.shape
    if columns == 0:
        return float("inf"), np.zeros((0, 0))
    K = sp.block_array([[sp.eye_array(rows), X], [None, -_SHIFT * sp.eye_array(columns)]], format="csc")
    factor = qdldl.Solver(sp.csc_matrix(K), upper=True)
    basis = np.random.default_rng(0).standard_normal((columns, min(_SUBSPACE, columns)))
    for _ in range(_STEPS):
        solved = [factor.solve(np.concatenate([np.zeros(rows), -column]))[rows:] for column in basis.T]
        basis, _ = np.linalg.qr(np.stack(solved, axis=1))
    _, sigma, right = np.linalg.svd(X @ basis, full_matrices=False)
    if len(sigma) < basis.shape[1]:  # fewer rows than vectors
        return 0.0, basis
    null = sigma <= max(RANK_TOLERANCE, sigma[-1])
    return (0.0 if columns > rows else float(sigma[-1])), basis @ right[null].T


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
    """Rows of norm one; rows of zeros, or negligible ones, as they are."""
    norms = sp.linalg.norm(matrix, axis=1) if matrix.shape[0] else np.zeros(0)
    floor = 1e-12 * norms.max(initial=0.0)
    return sp.csr_array(sp.diags_array(1 / np.where(norms > floor, norms, 1.0)) @ matrix)

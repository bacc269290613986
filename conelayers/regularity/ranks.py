"""Smallest singular values of the two matrices of the regularity test, for a batch of dense problems.

    (a)  A'U_1,       U_1 the eigenvalue-1 space of the largest element,
    (b)  [P; U_+'A],  U_+ the range of the smallest element.

Ranks do not depend on units, singular values do; so both matrices are scaled first: rows of A (whole blocks of curved
cones) and rows of P to norm one, then columns, then rows of A again. The singular values are those of the scaled
matrices, between 0 and about the square root of the size.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.cones import SpectralBlocks
from conelayers.regularity.extremes import Extremes

__all__ = [
    "RANK_TOLERANCE",
    "RankMatrices",
    "Ranks",
    "dual_null_vectors",
    "primal_singular_values",
    "rank_matrices",
    "smallest_singular_values",
]

#: Singular values of the scaled matrices up to this are zeros: rounding errors of rows and columns of norm one are near
#: 1e-16 times the square root of their number, and this leaves room for five digits lost in what the rows are made of.
#: Errors of the point itself are another matter, see `needed_dual`.
RANK_TOLERANCE = 1e-10

# Eigenvalues this near to 0 or 1 count as such: projections onto polyhedral and symmetric cones give them exactly.
_EIGENVALUE = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class RankMatrices:
    """Scaled matrices of the two tests; rows of A in the eigenvectors of D, in the order of the spectrum's groups.

    Attributes:
        P: shape (B, n, n).
        A: shape (B, m, n).
        one: rows in the eigenvalue-1 space of the largest element, bool, (B, m).
        kept: rows in the range of the smallest element, bool, (B, m).
        column_scale: x = column_scale * (scaled x), (B, n).
        row_scale: y = row_scale * (scaled y), (B, m), rows of v.
        needed_dual, needed_primal: what the smallest singular values must exceed for full rank over the neighbourhood,
            (B,): `RANK_TOLERANCE`, and what the turning of eigenspaces may take away.
        spectrum: the smallest element, for its eigenvectors.
    """

    P: Tensor
    A: Tensor
    one: Tensor
    kept: Tensor
    column_scale: Tensor
    row_scale: Tensor
    needed_dual: Tensor
    needed_primal: Tensor
    spectrum: list[SpectralBlocks]

    def item(self, index: int) -> RankMatrices:
        """One item, as a batch of one."""
        keep = slice(index, index + 1)
        tensors = {
            field.name: getattr(self, field.name)[keep]
            for field in dataclasses.fields(self)
            if field.name != "spectrum"
        }
        spectrum = [SpectralBlocks(b.rows, b.vectors[keep], b.values[keep]) for b in self.spectrum]
        return RankMatrices(**tensors, spectrum=spectrum)

    def unrotate(self, vectors: Tensor) -> Tensor:
        """Vectors (B, m) in eigenvector coordinates as scaled-back vectors in the rows of v, (B, m)."""
        out = torch.zeros_like(vectors)
        start = 0
        for block in self.spectrum:
            count, size = block.rows.shape
            part = vectors[:, start : start + count * size].reshape(-1, count, size)
            start += count * size
            out[:, block.rows] = torch.einsum("bcij,bcj->bci", block.vectors, part)
        return out * self.row_scale


@dataclasses.dataclass(frozen=True, eq=False)
class Ranks:
    """Smallest singular values of the two matrices, (B,); infinite for (a) without active rows."""

    dual: Tensor
    primal: Tensor


def rank_matrices(P: Tensor, A: Tensor, found: Extremes) -> RankMatrices:
    """Rotate and scale.

    Args:
        P: dense, symmetric, shape (B, n, n).
        A: dense, shape (B, m, n).
        found: extreme elements at the points, B items.
    """
    batch = max(A.shape[0], found.turn_one.shape[0])
    A = A.expand(batch, *A.shape[1:])
    empty = torch.zeros(batch, 0, dtype=A.dtype)
    high = torch.cat([empty, *(b.values.flatten(1) for b in found.largest)], 1)
    low = torch.cat([empty, *(b.values.flatten(1) for b in found.smallest)], 1)
    one, relevant, kept = high >= 1 - _EIGENVALUE, high > _EIGENVALUE, low > _EIGENVALUE
    first = _block_scale(A, found.smallest)
    A = A * first[..., None]
    norms = P.norm(dim=-1)
    norms = torch.where(norms > 1e-12 * norms.amax(-1, keepdim=True), norms, 1.0)
    P = (P / norms[..., None]).expand(batch, *P.shape[1:])
    rotated = _rotate(A, found.smallest)
    columns = torch.hypot(P.norm(dim=-2), (rotated * relevant[..., None]).norm(dim=-2))
    scale = torch.where(columns > 0, 1 / torch.where(columns > 0, columns, 1), 1.0)
    A, P, rotated = A * scale[:, None, :], P * scale[:, None, :], rotated * scale[:, None, :]
    second = _block_scale(A, found.smallest)
    rotated = rotated * torch.cat([empty, *(second[:, b.rows].flatten(1) for b in found.smallest)], 1)[..., None]
    lengths = (A * second[..., None]).norm(dim=-1)
    needed_dual, needed_primal = _needed(found.turn_one, found.turn_zero, lengths)
    return RankMatrices(P, rotated, one, kept, scale, first * second, needed_dual, needed_primal, found.smallest)


def _needed(turn_one: Tensor, turn_zero: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Thresholds of the two tests; `lengths` are the row norms of the scaled A, (B, m).

    (a) A unit vector u of a turned space has a part of length at least sqrt(1 - eta^2) in the space at v and one of
    length at most eta beside it, so |A'u| >= sqrt(1 - eta^2) a - eta |A_turning|.
    (b) If P dx = 0 and A dx lies in a turned eigenvalue-0 space, |U_+'A dx| <= eta |A_turning| |dx|.
    """
    if lengths.shape[-1] == 0:
        tolerance = lengths.new_full(lengths.shape[:1], RANK_TOLERANCE)
        return tolerance, tolerance
    lost_one, lost_zero = (turn_one * lengths).norm(dim=-1), (turn_zero * lengths).norm(dim=-1)
    left = (1 - turn_one.amax(-1).square()).clamp(min=0).sqrt()
    return (RANK_TOLERANCE + lost_one) / left, RANK_TOLERANCE + lost_zero


def smallest_singular_values(matrices: RankMatrices) -> Ranks:
    """Both tests, batched. Memory is about (n + active rows) * max(n, active rows) per item."""
    return Ranks(_dual(matrices), _primal(matrices))


def _dual(matrices: RankMatrices) -> Tensor:
    active, mask = _gather(matrices.A, matrices.one)
    batch, count, n = active.shape
    if count == 0:
        return active.new_full((batch,), torch.inf)
    if count > n:
        # More columns than rows in A'U_1 for some items; those are singular, others have padding.
        singular = mask.sum(-1) > n
    else:
        singular = mask.new_zeros(batch)
    # Rows that only pad get a singular value of their own, too large to be the smallest.
    large = 1 + active.flatten(1).norm(dim=-1)
    padding = torch.diag_embed(torch.where(mask, 0.0, large[:, None]))
    values = torch.linalg.svdvals(torch.cat([active, padding], -1)).amin(-1)
    values = torch.where(mask.any(-1), values, torch.inf)
    return torch.where(singular, 0.0, values)


def _primal(matrices: RankMatrices) -> Tensor:
    if matrices.P.shape[-1] == 0:
        return matrices.P.new_full((matrices.A.shape[0],), torch.inf)
    return torch.linalg.svdvals(_primal_matrix(matrices)).amin(-1)


def _primal_matrix(matrices: RankMatrices) -> Tensor:
    """[P; U_+'A] with zero rows for padding, shape (B, n + count, n)."""
    kept, _ = _gather(matrices.A, matrices.kept)
    return torch.cat([matrices.P, kept], -2)


def primal_singular_values(matrices: RankMatrices) -> tuple[Tensor, Tensor]:
    """Singular values (n,) of (b), descending, and right singular vectors as rows (n, n), for a batch of one item."""
    _, values, vectors = torch.linalg.svd(_primal_matrix(matrices)[0], full_matrices=False)
    return values, vectors


def dual_null_vectors(matrices: RankMatrices) -> tuple[Tensor, float]:
    """Null vectors u of (a), A'u = 0, for a batch of one item, (k, m), and the smallest singular value above zero.

    In the rows of v, scaled as the rows of A are: orthonormal.
    """
    rows = matrices.A[0, matrices.one[0]]
    left, values, _ = torch.linalg.svd(rows, full_matrices=True)
    rank = int((values > RANK_TOLERANCE).sum())
    vectors = torch.zeros(rows.shape[0] - rank, matrices.A.shape[1], dtype=rows.dtype)
    vectors[:, matrices.one[0]] = left[:, rank:].T
    return matrices.unrotate(vectors) / matrices.row_scale, float(values[rank - 1]) if rank else torch.inf


def _gather(rows: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The masked rows of each item, zero-padded to the largest count: (B, count, n) and mask (B, count)."""
    count = int(mask.sum(-1).max()) if mask.numel() else 0
    order = torch.argsort(mask.to(torch.int8), dim=-1, descending=True, stable=True)[:, :count]
    taken = mask.gather(-1, order)
    picked = rows.gather(-2, order[..., None].expand(-1, -1, rows.shape[-1]))
    return torch.where(taken[..., None], picked, 0.0), taken


def _block_scale(A: Tensor, spectrum: list[SpectralBlocks]) -> Tensor:
    """1 / largest row norm of each block, for every row, (B, m); 1 for blocks of zeros."""
    norms = A.norm(dim=-1)
    scale = torch.ones_like(norms)
    for block in spectrum:
        largest = norms[:, block.rows].amax(-1, keepdim=True).expand(-1, *block.rows.shape)
        scale[:, block.rows] = torch.where(largest > 0, 1 / torch.where(largest > 0, largest, 1), 1.0)
    return scale


def _rotate(A: Tensor, spectrum: list[SpectralBlocks]) -> Tensor:
    """U'A with the rows in the order of the spectrum's groups, (B, m, n)."""
    parts = []
    for block in spectrum:
        count, size = block.rows.shape
        part = A[:, block.rows]  # shape: (B, count, size, n)
        if size > 1:
            part = torch.einsum("bcij,bcin->bcjn", block.vectors, part)
        parts.append(part.reshape(A.shape[0], count * size, A.shape[-1]))
    return torch.cat(parts, 1) if parts else A

"""The dense approximate inverse of the KKT matrix, in the eigenvectors of D.

With D = U diag(lambda) U' and w = U omega, K becomes [[P, A'U], [U'A, -(1/lambda - 1)]]: the weights of W stand alone
on the diagonal. Formed as a block, W = U diag(1/lambda - 1) U' would bury its small eigenvalues under the roundoff of
its large ones, which belong to the inactive directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from conelayers.cones import ConeDerivative, SpectralBlocks
from conelayers.linalg import DenseLU, DenseOperator
from conelayers.program import ConeStructure

__all__ = ["Correction", "column_shift", "dense_correction"]

Correction = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
"""An approximate solve of K [dx; w] = rho, and the product with the shift that it adds to K."""


def column_shift(scale: Tensor, smallest: float, spread: float) -> Tensor:
    """The shifts of the columns of x after equilibration, (B, n): the same for all in x's own units within bounds.

    Then the shortest of the solutions of a singular consistent system comes out, in the Euclidean norm of dx.

    Args:
        scale: The diagonal of S in S K S, for the columns of x.
        smallest: The least of the shifts.
        spread: The largest over the least at most.
    """
    if scale.shape[-1] == 0:
        return scale
    return smallest * (scale / scale.amin(-1, keepdim=True)).square().clamp(max=spread)


def dense_correction(
    structure: ConeStructure, P: Tensor, A: Tensor, D: ConeDerivative, smallest: float, shift: float, spread: float
) -> Correction:
    """An approximate solve of K [dx; w] = [r1; r2] for vectors (*rhs, B, n + m), by batched LU; and the shift.

    Args:
        structure: Patterns and cone.
        P: Values, shape (1 or B, P_nnz).
        A: Values, shape (1 or B, A_nnz).
        D: Element of the Clarke Jacobian.
        smallest: Eigenvalues of D are raised to this.
        shift: Added to the diagonal of the equilibrated matrix, with the signs of a quasidefinite one.
        spread: See `column_shift`.
    """
    n, m, blocks = structure.n, structure.m, D.spectrum()
    P_dense, A_dense = _dense_values(structure, P, A)
    batch = max([P.shape[0], A.shape[0], *(block.values.shape[0] for block in blocks)])
    rotated = _rotate(blocks, A_dense.expand(batch, m, n), adjoint=True)
    weights = A.new_zeros(batch, m)
    for block in blocks:
        inverse = 1 / block.values.clamp(min=smallest) - 1
        weights[:, block.rows.reshape(-1)] = inverse.clamp(min=0).flatten(-2)
    upper = torch.cat([P_dense.expand(batch, n, n), rotated.mT], -1)
    matrix = torch.cat([upper, torch.cat([rotated, torch.diag_embed(-weights)], -1)], -2)
    matrix, scale = _equilibrate(matrix)
    added = torch.cat([column_shift(scale[:, :n], shift, spread), -shift * torch.ones_like(scale[:, n:])], -1)
    matrix = matrix + torch.diag_embed(added)
    solver = DenseLU()
    state = solver.init(DenseOperator(matrix))

    def turned(z: Tensor, adjoint: bool) -> Tensor:
        second = _rotate(blocks, z[..., n:].unsqueeze(-1), adjoint=adjoint).squeeze(-1)
        return torch.cat([z[..., :n], second], -1)

    def correct(rho: Tensor) -> Tensor:
        solution, _ = solver.solve(state, turned(rho, True) * scale)
        return turned(solution * scale, False)

    def shifted(z: Tensor) -> Tensor:
        return turned(added / scale**2 * turned(z, True), False)

    return correct, shifted


def _rotate(blocks: Sequence[SpectralBlocks], columns: Tensor, adjoint: bool) -> Tensor:
    """U'M or U M for M of shape (*rhs, B, m, k)."""
    out = columns.clone()
    for block in blocks:
        if block.rows.shape[1] == 1:
            continue  # the eigenvector of a number is 1
        vectors = block.vectors.mT if adjoint else block.vectors
        out[..., block.rows, :] = vectors @ columns[..., block.rows, :]
    return out


def _dense_values(structure: ConeStructure, P: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """P in full and A as dense matrices, shapes (1 or B, n, n) and (1 or B, m, n)."""
    n, m, device = structure.n, structure.m, A.device

    def index(values) -> Tensor:
        return torch.as_tensor(values, device=device)

    P_dense, A_dense = A.new_zeros(P.shape[0], n, n), A.new_zeros(A.shape[0], m, n)
    rows, columns = index(structure.P_indices), index(structure.P_columns)
    P_dense[:, rows, columns] = P
    P_dense[:, columns, rows] = P
    A_dense[:, index(structure.A_indices), index(structure.A_columns)] = A
    return P_dense, A_dense


def _equilibrate(matrix: Tensor, sweeps: int = 4) -> tuple[Tensor, Tensor]:
    """S K S with rows of unit largest entry (Ruiz 2001), and the diagonal of S, shape (B, n + m)."""
    scale = matrix.new_ones(matrix.shape[:-1])
    if matrix.shape[-1] == 0:
        return matrix, scale
    for _ in range(sweeps):
        largest = matrix.abs().amax(-1)
        step = 1 / torch.where(largest > 0, largest, 1.0).sqrt()
        matrix = matrix * step.unsqueeze(-1) * step.unsqueeze(-2)
        scale = scale * step
    return matrix, scale

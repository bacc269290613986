"""Linear systems with the Jacobian of the reduced residual, J(D) = [[P, A'D], [A, D - I]].

With w = D dv the system J [dx; dv] = [r1; r2] reads P dx + A'w = r1, A dx - W w = r2, where W = D^-1 - I and
dv = A dx + w - r2. Its matrix K = [[P, A'], [A, -W]] is symmetric, and quasidefinite once a small multiple of the
identity is added to P and to W: LDL' exists in every order. K serves as an approximate inverse only; every solution is
refined on the exact J, by the correction K [dx; w] = rho of the residual rho. For singular consistent systems (an
epigraph variable whose bound is inactive) this is the proximal-point iteration: it converges to the shortest solution.
Where refinement is slow, GMRES takes over, with the same approximate inverse; where the system is inconsistent, the
shortest solution for what is consistent in it is returned, as by the compiled kernels (least_norm.hpp has the method).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from conelayers.cones import ConeDerivative
from conelayers.linalg import (
    GMRES,
    LSMR,
    DenseOperator,
    FunctionOperator,
    MinimumNorm,
    SparseLDLT,
    SymmetricOperator,
)
from conelayers.program import ConeStructure
from conelayers.program.products import A_times, A_transpose_times, P_times
from conelayers.residual.assembly import KKTPattern, assemble, block_entries, kkt_pattern
from conelayers.residual.dense_kkt import Correction, column_shift, dense_correction

__all__ = ["KKTFactor", "KKTSystem"]

_REGULARISATION = 1e-8
"""Added to the diagonal of K, relative to its equilibrated rows."""
_WIDE, _SPREAD = 1e-7, 1e4
"""The same for inconsistent systems, and how much it may vary to be uniform in the units of x."""
_SMALLEST_EIGENVALUE = 1e-12
"""Eigenvalues of D are raised to this before inversion; refinement removes the difference."""
_REFINED = 1e-13
_ACCEPTED = 1e-10
_INCONSISTENT = 1e-5
"""Relative residuals at which refinement stops, GMRES is called, and a system counts as inconsistent."""
_UNMOVED = 1e-6
"""Relative change by a correction up to which a residual counts as lying outside of the range."""
_LARGEST_BLOCKS = 20_000_000
_LARGEST_DENSE = 2_000
_SMALL_DENSE = 250


@dataclasses.dataclass(frozen=True, eq=False)
class KKTFactor:
    """One J(D) per batch item, ready for right-hand sides.

    Attributes:
        operator: J with its transpose, on vectors (k, B, n + m).
        correct: An approximate solve with the same shapes; None where no factorization fits.
        widen: Makes one with a larger shift, and the map from z to (R z)(dx, D dv) with R that shift.
    """

    operator: FunctionOperator
    correct: Callable[[Tensor], Tensor] | None
    widen: Callable[[], Correction] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class KKTSystem:
    """Factorizes and solves J(D) [dx; dv] = [r1; r2] for a batch.

    Attributes:
        structure: Patterns and cone. Symbolic work is done once per structure.
        method: "dense" (any device), "sparse" (on the CPU), "iterative", or None to choose by size.
    """

    structure: ConeStructure
    method: str | None = None

    def factor(self, P: Tensor, A: Tensor, D: ConeDerivative) -> KKTFactor:
        """Factorize.

        Args:
            P: Values, shape (1 or B, P_nnz).
            A: Values, shape (1 or B, A_nnz).
            D: Element of the Clarke Jacobian, or a smoothed one, at v of shape (B, m).
        """
        operator = self._operator(P, A, D)
        method = self.method or self._choose(A.device)
        if method == "iterative":
            return KKTFactor(operator, None)
        n = self.structure.n

        def make(shift: float) -> Correction:
            if method == "dense":
                correct, shifted = dense_correction(self.structure, P, A, D, _SMALLEST_EIGENVALUE, shift, _SPREAD)
            else:
                correct, shifted = self._sparse(P, A, D, shift)

            def correction(rho: Tensor) -> Tensor:
                solution = correct(rho)
                dx, w = solution[..., :n], solution[..., n:]
                dv = A_times(self.structure, A, dx) + w - rho[..., n:]
                return torch.cat([dx, dv], -1)

            return correction, lambda z: shifted(torch.cat([z[..., :n], D.apply(z[..., n:])], -1))

        return KKTFactor(operator, make(_REGULARISATION)[0], lambda: make(_WIDE))

    def solve(self, factor: KKTFactor, r1: Tensor, r2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Solve for right-hand sides (*rhs, B, n) and (*rhs, B, m).

        Returns:
            dx and dv of those shapes, always finite, and ||J [dx; dv] - [r1; r2]|| / ||[r1; r2]||, shape (*rhs, B).
        """
        lead = torch.broadcast_shapes(r1.shape[:-1], r2.shape[:-1])
        rhs = torch.cat([r1.expand(*lead, r1.shape[-1]), r2.expand(*lead, r2.shape[-1])], -1)
        norm = torch.linalg.vector_norm(rhs, dim=-1, keepdim=True)
        # Unit right-hand sides: residuals are relative, and tiny or huge ones stay in range.
        unit = rhs / torch.where(norm > 0, norm, torch.ones_like(norm))
        if factor.correct is None:
            solver = LSMR(tolerance=1e-12)
            z, _ = solver.solve(solver.init(factor.operator), unit)
            residual = _residual(factor, z, unit)
        else:
            z, residual = _refine(factor, factor.correct, unit)
            left = ~(residual <= _ACCEPTED)
            if bool((left & ~_lies_outside(factor, factor.correct, unit, z, left)).any()):
                z, residual = _rescue(factor, factor.correct, unit, z, residual)
            if bool((~(residual <= _ACCEPTED)).any()):
                z, residual, left = _shortest(factor, unit, z, residual)
                if bool((left & ~(residual <= _INCONSISTENT)).any()):
                    z, residual = _least_squares(factor, unit, z, residual, left)
        finite = z.isfinite().all(-1, keepdim=True)
        z = torch.where(finite, z, 0.0) * norm
        residual = torch.where(finite.squeeze(-1), residual, torch.inf)
        return z[..., : self.structure.n], z[..., self.structure.n :], residual

    def _choose(self, device: torch.device) -> str:
        size = self.structure.n + self.structure.m
        if block_entries(self.structure) > _LARGEST_BLOCKS:
            return "iterative"
        if device.type != "cpu" or size <= _SMALL_DENSE:
            return "dense"
        filled = kkt_pattern(self.structure).pattern.nnz / (size * (size + 1) / 2)
        return "dense" if size <= _LARGEST_DENSE and filled > 0.2 else "sparse"

    def _operator(self, P: Tensor, A: Tensor, D: ConeDerivative) -> FunctionOperator:
        s, n = self.structure, self.structure.n

        def forward(z: Tensor) -> Tensor:
            dx, dv = z[..., :n], z[..., n:]
            w = D.apply(dv)
            first = P_times(s, P, dx) + A_transpose_times(s, A, w)
            return torch.cat([first, A_times(s, A, dx) + w - dv], -1)

        def adjoint(z: Tensor) -> Tensor:
            a, c = z[..., :n], z[..., n:]
            first = P_times(s, P, a) + A_transpose_times(s, A, c)
            return torch.cat([first, D.apply(A_times(s, A, a) + c) - c], -1)

        size = n + s.m
        batch = torch.Size([max(P.shape[0], A.shape[0], D.apply(A.new_zeros(1, s.m)).shape[0])])
        return FunctionOperator(forward, adjoint, (size, size), batch, A.dtype, A.device)

    def _sparse(self, P: Tensor, A: Tensor, D: ConeDerivative, shift: float) -> Correction:
        """LDL' of each item, with the blocks of W formed."""
        symbolic = kkt_pattern(self.structure)
        values, added = _regularise(symbolic, assemble(self.structure, P, A, D), shift)
        solver = SparseLDLT()
        state = solver.init(SymmetricOperator(symbolic.pattern, values))
        return lambda rho: solver.solve(state, rho)[0], lambda z: added * z


def _regularise(symbolic: KKTPattern, values: Tensor, shift: float, sweeps: int = 4) -> tuple[Tensor, Tensor]:
    """K + R and the diagonal of R = eps diag(S^-2, -S^-2), where S equilibrates [[P, A'], [A, 0]] (Ruiz 2001).

    W has no say in the scale: its inactive directions are huge and would raise eps for the active ones.
    """
    device = values.device
    rows, columns = symbolic.rows.to(device), symbolic.columns.to(device)
    size = symbolic.pattern.shape[0]
    scale, without_W = values.new_ones(values.shape[0], size), values.clone()
    without_W[:, symbolic.W.to(device)] = 0.0
    for _ in range(sweeps):
        scaled = (without_W * scale[:, rows] * scale[:, columns]).abs()
        largest = scale.new_zeros(scale.shape)
        for index in (rows, columns):
            largest = largest.scatter_reduce(1, index.expand_as(scaled), scaled, "amax")
        scale = scale / torch.where(largest > 0, largest, 1.0).sqrt()
    n = symbolic.n  # rows of x come first
    added = (
        torch.cat([column_shift(scale[:, :n], shift, _SPREAD), -shift * torch.ones_like(scale[:, n:])], -1) / scale**2
    )
    values[:, symbolic.diagonal.to(device)] += added
    return values, added


def _residual(factor: KKTFactor, z: Tensor, rhs: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rhs - factor.operator.matvec(z), dim=-1)


def _refine(
    factor: KKTFactor, correct: Callable[[Tensor], Tensor], rhs: Tensor, steps: int = 10
) -> tuple[Tensor, Tensor]:
    """Iterative refinement; a correction is kept only where it lowers the residual."""
    z, rho = torch.zeros_like(rhs), rhs
    residual = torch.linalg.vector_norm(rhs, dim=-1)
    for _ in range(steps):
        candidate = z + correct(rho)
        candidate_rho = rhs - factor.operator.matvec(candidate)
        candidate_residual = torch.linalg.vector_norm(candidate_rho, dim=-1)
        better = candidate_residual < residual
        progress = (candidate_residual < 0.5 * residual) & (candidate_residual > _REFINED)
        z = torch.where(better.unsqueeze(-1), candidate, z)
        rho = torch.where(better.unsqueeze(-1), candidate_rho, rho)
        residual = torch.where(better, candidate_residual, residual)
        if not bool(progress.any()):
            break
    return z, residual


def _rescue(
    factor: KKTFactor, correct: Callable[[Tensor], Tensor], rhs: Tensor, z: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """GMRES on the exact J, preconditioned by the approximate inverse, from the refined point."""
    operator = factor.operator
    inverse = dataclasses.replace(operator, forward=correct, adjoint=None)
    solver = GMRES(tolerance=_REFINED, restart=40, max_iterations=120)
    candidate, info = solver.solve(solver.init(operator, inverse), rhs, initial=z)
    better = info.residual < residual
    return torch.where(better.unsqueeze(-1), candidate, z), torch.where(better, info.residual, residual)


def _lies_outside(
    factor: KKTFactor, correct: Callable[[Tensor], Tensor], rhs: Tensor, z: Tensor, where: Tensor
) -> Tensor:
    """For which of some items the correction leaves the residual as it is: it lies outside of the range of J."""
    if not bool(where.any()):
        return where
    rho = rhs - factor.operator.matvec(z)
    left = torch.linalg.vector_norm(rho - factor.operator.matvec(correct(rho)), dim=-1)
    norm = torch.linalg.vector_norm(rho, dim=-1)
    return where & ((left - norm).abs() < _UNMOVED * norm)


def _shortest(
    factor: KKTFactor, rhs: Tensor, z: Tensor, residual: Tensor, sweeps: int = 10
) -> tuple[Tensor, Tensor, Tensor]:
    """The shortest solution for the part of rhs in the range of J, for items not solved; and which still are not.

    With M the approximate inverse of K + R, E = I - J M leaves what is outside of the range and shrinks the rest, and
    M R leaves what a solution has in the null space.
    """
    assert factor.widen is not None
    correct, shifted = factor.widen()
    lost, operator = ~(residual <= _ACCEPTED), factor.operator
    outside, taken = rhs, 0
    while taken < sweeps:
        reduced = outside - operator.matvec(correct(outside))
        change = torch.linalg.vector_norm(reduced - outside, dim=-1)
        outside, taken = reduced, taken + 1
        if not bool((lost & (change > 1e-11)).any()):
            break
    inside = rhs - outside
    found, left = _refine(dataclasses.replace(factor, correct=correct), correct, inside)
    null = found
    for _ in range(taken):
        null = correct(shifted(null))
    solved = lost & (left <= 10 * _ACCEPTED)
    found = torch.where(solved.unsqueeze(-1), found - null, z)
    return found, torch.where(solved, _residual(factor, found, rhs), residual), lost & ~solved


def _least_squares(factor: KKTFactor, rhs: Tensor, z: Tensor, residual: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """For inconsistent systems the shortest least-squares solution, where regularised ones grow without bound."""
    operator = factor.operator
    if operator.shape[0] <= _SMALL_DENSE:
        dense = operator.as_matrix()
        usable = dense.isfinite().all(-1).all(-1)
        direct = MinimumNorm(rank_tolerance=1e-10)
        dense = torch.where(usable[..., None, None], dense, torch.eye(dense.shape[-1], dtype=dense.dtype).to(dense))
        candidate, _ = direct.solve(direct.init(DenseOperator(dense)), rhs)
        candidate = torch.where(usable.unsqueeze(-1), candidate, torch.nan)
    else:
        iterative = LSMR(tolerance=1e-8, max_iterations=300)
        candidate, _ = iterative.solve(iterative.init(operator), rhs)
    replace = where & ~(residual <= _INCONSISTENT)
    measured = _residual(factor, candidate, rhs)
    return torch.where(replace.unsqueeze(-1), candidate, z), torch.where(replace, measured, residual)

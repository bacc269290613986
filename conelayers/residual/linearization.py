"""The Jacobian J(D) of the reduced residual at a batch of solutions, as derivative modes see it."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from conelayers.linalg import DenseOperator, MinimumNorm
from conelayers.program import ConeStructure
from conelayers.residual.compiled import ACCEPTED, CompiledKernels, compiled_kernels
from conelayers.residual.kkt import KKTSystem

__all__ = ["ConicLinearization", "linearize", "probe"]

Tangent = tuple[Tensor, Tensor]


class ConicLinearization(abc.ABC):
    """J(D) = [[P, A'D], [A, D - I]] for a batch of B items, with k right-hand sides each.

    Args:
        structure: Patterns and cone.
        P: Values, shape (1 or B, P_nnz).
        A: Values, shape (1 or B, A_nnz).
        v: y - s, shape (B, m).
        mu: Barrier parameter of a smoothed D, or None for the Clarke element.
    """

    def __init__(self, structure: ConeStructure, P: Tensor, A: Tensor, v: Tensor, mu: float | None = None) -> None:
        self.structure, self.P, self.A, self.v, self.mu = structure, P, A, v, mu

    @abc.abstractmethod
    def solve(self, rhs: Tangent) -> Tangent:
        """Solve J [dx; dv] = rhs; shapes (B, k, n) and (B, k, m)."""

    @abc.abstractmethod
    def attempt(self, rhs: Tangent) -> tuple[Tensor, Tensor, Tensor]:
        """As `solve`, without more effort for items that need it; and the relative residuals, shape (B, k)."""

    @abc.abstractmethod
    def project(self, dv: Tensor) -> Tensor:
        """D dv, shape (B, k, m)."""

    def smooth(self, mu: float) -> ConicLinearization:
        """The same with the smoothed element D_mu."""
        return type(self)(self.structure, self.P, self.A, self.v, mu)

    def solve_least_squares(self, rhs: Tangent, rtol: float, transposed: bool = False) -> Tangent:
        """The minimum-norm least-squares solution by a dense decomposition of J; with J' if `transposed`."""
        solver = MinimumNorm(rank_tolerance=rtol)
        state = solver.init(DenseOperator(self.matrix()))
        state = solver.transpose(state) if transposed else state
        solution, _ = solver.solve(state, torch.cat(rhs, -1).movedim(1, 0))
        solution = solution.movedim(0, 1)
        return solution[..., : self.structure.n], solution[..., self.structure.n :]

    def matrix(self) -> Tensor:
        """J as a dense matrix, shape (B, n + m, n + m)."""
        s, batch = self.structure, self.v.shape[0]
        D = s.cone.dual_derivative(self.v, mu=self.mu).matrix()
        P, A = D.new_zeros(batch, s.n, s.n), D.new_zeros(batch, s.m, s.n)
        P_rows, P_columns = torch.as_tensor(s.P_indices), torch.as_tensor(s.P_columns)
        P[:, P_rows, P_columns] = self.P.expand(batch, -1)
        P[:, P_columns, P_rows] = self.P.expand(batch, -1)
        A[:, torch.as_tensor(s.A_indices), torch.as_tensor(s.A_columns)] = self.A.expand(batch, -1)
        identity = torch.eye(s.m, dtype=D.dtype, device=D.device)
        return torch.cat([torch.cat([P, A.mT @ D], -1), torch.cat([A, D - identity], -1)], -2)


class _Compiled(ConicLinearization):
    """Solved by the compiled engine, one item per SIMD lane or GPU thread."""

    @property
    def _kernels(self) -> CompiledKernels:
        kernels = compiled_kernels(self.structure, self.v.device)
        assert kernels is not None
        return kernels

    def solve(self, rhs: Tangent) -> Tangent:
        dx, dv, residual = self.attempt(rhs)
        solution = dx, dv
        missed = (~(residual <= ACCEPTED).all(-1)).nonzero().squeeze(-1)
        if len(missed):
            self._solve_again(missed, rhs, solution)
        return solution

    def attempt(self, rhs: Tangent) -> tuple[Tensor, Tensor, Tensor]:
        dx, dv, residual = self._kernels.derivative(self.P, self.A, self.v, *rhs, mu=self.mu or 0.0)
        return dx, dv, residual

    def _solve_again(self, items: Tensor, rhs: Tangent, solution: Tangent) -> None:
        """Items whose residual the fixed number of refinements left too large, by the method that adapts to them."""
        P, A = (value if value.shape[0] == 1 else value[items] for value in (self.P, self.A))
        again = _Assembled(self.structure, P, A, self.v[items], self.mu)
        for target, value in zip(solution, again.solve((rhs[0][items], rhs[1][items])), strict=True):
            target[items] = value

    def project(self, dv: Tensor) -> Tensor:
        return self._kernels.apply_D(self.v, dv, mu=self.mu or 0.0)


class _Assembled(ConicLinearization):
    """Solved in torch: dense for small problems on any device, sparse or matrix-free for large ones."""

    def __init__(self, structure: ConeStructure, P: Tensor, A: Tensor, v: Tensor, mu: float | None = None) -> None:
        super().__init__(structure, P, A, v, mu)
        self.element = structure.cone.dual_derivative(v, mu=mu)

    def solve(self, rhs: Tangent) -> Tangent:
        dx, dv, _ = self.attempt(rhs)
        return dx, dv

    def attempt(self, rhs: Tangent) -> tuple[Tensor, Tensor, Tensor]:
        system = KKTSystem(self.structure)
        factor = system.factor(self.P, self.A, self.element)
        dx, dv, residual = system.solve(factor, *(r.movedim(1, 0) for r in rhs))
        return dx.movedim(0, 1), dv.movedim(0, 1), residual.mT

    def project(self, dv: Tensor) -> Tensor:
        return self.element.apply(dv.movedim(1, 0)).movedim(0, 1)


def linearize(structure: ConeStructure, P: Tensor, A: Tensor, v: Tensor) -> ConicLinearization:
    """The linearization with the method that suits the problem and the device."""
    return (_Assembled if _kernels_for(structure, v) is None else _Compiled)(structure, P, A, v)


def probe(
    structure: ConeStructure, P: Tensor, A: Tensor, y: Tensor, s: Tensor, rhs: Tensor, accuracy: float
) -> tuple[Tensor, Tensor]:
    """How large z with J(D(y - s)) z = rhs is, for one right-hand side (n + m,) and B items.

    Returns:
        |z| and the relative residual reached, (B,) each; `accuracy` is the residual that will do.
    """
    kernels = _kernels_for(structure, y)
    if kernels is not None:
        length, residual = kernels.probe(P, A, y, s, rhs, accuracy)
        return length, residual
    first, second = (part.expand(y.shape[0], 1, -1) for part in rhs.split([structure.n, structure.m]))
    dx, dv, residual = _Assembled(structure, P, A, y - s).attempt((first, second))
    return torch.hypot(dx.norm(dim=-1), dv.norm(dim=-1))[:, 0], residual[:, 0]


def _kernels_for(structure: ConeStructure, v: Tensor) -> CompiledKernels | None:
    return compiled_kernels(structure, v.device) if v.dtype == torch.float64 else None

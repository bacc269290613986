"""What the Krylov methods share: per-item scalars, masks, passes and the measured residual.

Every method runs on a whole batch at once. An item that has converged, or broken down, stops moving (its step length is
set to zero), so no item's result depends on its neighbours. The host asks once in `check_every` iterations whether any
item is still moving; nothing else leaves the device.
"""

from __future__ import annotations

import abc
import dataclasses

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.linalg.base import LinearInfo, LinearSolver, largest
from conelayers.linalg.operators import LinearOperator

__all__ = ["KrylovSolver", "KrylovState", "divide", "inner", "norm"]


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> per item, kept as an axis of size 1."""
    return (a * b).sum(-1, keepdim=True)


def norm(a: Tensor) -> Tensor:
    """Euclidean norm per item, kept as an axis of size 1."""
    return torch.linalg.vector_norm(a, dim=-1, keepdim=True)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """A / b, and zero where b is zero: a broken-down item stands still instead of turning into NaN."""
    zero = b == 0
    return torch.where(zero, torch.zeros_like(a), a / torch.where(zero, torch.ones_like(b), b))


@dataclasses.dataclass(frozen=True, eq=False)
class KrylovState:
    """An operator and an approximation of its inverse, or None."""

    operator: LinearOperator
    preconditioner: LinearOperator | None = None

    def precondition(self, r: Tensor) -> Tensor:
        """M r, where M approximates A^-1."""
        return r if self.preconditioner is None else self.preconditioner.matvec(r)


@dataclasses.dataclass(frozen=True)
class KrylovSolver(LinearSolver[KrylovState]):
    """Base of the matrix-free methods for square systems.

    Subclasses supply one pass (`run_pass`) that starts from zero; passes are repeated on the measured residual
    b - A x until it meets the tolerance, and a pass is kept only for the items that it brings nearer to the solution
    (`improved`). This undoes the drift between recurred and true residuals.

    Attributes:
        tolerance: Wanted ||b - A x|| / ||b||; None means 1e-10 in double and 1e-5 in single precision. A tensor of
            shape (*rhs, *batch, 1) gives each item its own.
        max_iterations: Limit on all passes together; None means 10 n + 100.
        check_every: Iterations between two questions of the host to the device.
    """

    tolerance: float | Tensor | None = None
    max_iterations: int | None = None
    check_every: int = 5

    def __post_init__(self) -> None:
        if self.check_every < 1:
            raise InvalidArgument(f"check_every is {self.check_every}; it must be at least 1.")

    def init(self, operator: LinearOperator, preconditioner: LinearOperator | None = None) -> KrylovState:
        """Nothing to compute: keep the operator, and an approximation of its inverse if there is one."""
        self.check(operator)
        return KrylovState(operator, preconditioner)

    def transpose(self, state: KrylovState) -> KrylovState:
        """The transposed operator and preconditioner; for symmetric methods the same state."""
        if self.symmetric:
            return state
        preconditioner = None if state.preconditioner is None else state.preconditioner.transpose()
        return KrylovState(state.operator.transpose(), preconditioner)

    def solve(self, state: KrylovState, rhs: Tensor, initial: Tensor | None = None) -> tuple[Tensor, LinearInfo]:
        """Solve for right-hand sides of shape (*rhs, *batch, n), from `initial` (zero by default)."""
        batch = torch.broadcast_shapes(rhs.shape[:-1], state.operator.batch_shape)
        rhs = rhs.expand(*batch, rhs.shape[-1])
        # Work on b scaled to unit largest entry: inner products of tiny or huge vectors stay in range.
        scale = largest(rhs)
        scale = torch.where((scale > 0) & scale.isfinite(), scale, torch.ones_like(scale))
        b = rhs / scale
        x = None if initial is None else initial.expand(*batch, rhs.shape[-1]) / scale
        x, iterations, length = self._passes(state, b, x)
        size = norm(b)
        residual = length / torch.where(size > 0, size, torch.ones_like(size))
        return x * scale, LinearInfo(iterations.squeeze(-1), residual.squeeze(-1))

    @abc.abstractmethod
    def run_pass(self, state: KrylovState, residual: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """One pass for A d = residual from d = 0.

        Args:
            state: Operator and preconditioner.
            residual: Shape (*rhs, *batch, n).
            target: Residual norm at which an item stops, shape (*rhs, *batch, 1).
            limit: Iterations allowed.

        Returns:
            The correction d and the iterations per item, int64, shape (*rhs, *batch, 1).
        """

    def _passes(self, state: KrylovState, b: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Passes until every item has converged, the limit is reached, or no item gains any more.

        Returns:
            x, the iterations and the residual norms, of shape (*rhs, *batch, 1).
        """
        limit = self.max_iterations if self.max_iterations is not None else 10 * b.shape[-1] + 100
        target = self.wanted(b.dtype) * norm(b)
        residual = b if x is None else b - state.operator.matvec(x)
        x = torch.zeros_like(b) if x is None else x
        current = norm(residual)
        iterations = torch.zeros(current.shape, dtype=torch.int64, device=b.device)
        used, going = 0, bool((current > target).any())
        while going and used < limit:
            step, spent = self.run_pass(state, residual, target, limit - used)
            candidate = x + step
            candidate_residual = b - state.operator.matvec(candidate)
            candidate_norm = norm(candidate_residual)
            better = self.improved(step, residual, candidate_residual)
            gained = candidate_norm < 0.9 * current
            iterations = iterations + spent
            x = torch.where(better, candidate, x)
            residual = torch.where(better, candidate_residual, residual)
            current = torch.where(better, candidate_norm, current)
            most, going = torch.stack([spent.max(), (gained & (current > target)).any()]).tolist()  # one question
            used += max(most, 1)
        return x, iterations, current

    def finished(self, iteration: int, active: Tensor) -> bool:
        """Whether a pass may stop; asks the device once in `check_every` iterations.

        A pass is entered with an item active, so there is nothing to ask at its start.
        """
        return iteration > 0 and iteration % self.check_every == 0 and not bool(active.any())

    def improved(self, step: Tensor, residual: Tensor, candidate_residual: Tensor) -> Tensor:
        """Which items the step brought nearer to the solution, shape (*rhs, *batch, 1): those of smaller residual."""
        return norm(candidate_residual) < norm(residual)

    def wanted(self, dtype: torch.dtype) -> float | Tensor:
        """The relative residual at which an item is done."""
        if self.tolerance is not None:
            return self.tolerance
        return 1e-10 if dtype == torch.float64 else 1e-5

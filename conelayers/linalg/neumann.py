"""The Neumann series as a linear solver, alone and with GMRES behind it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.linalg.base import LinearInfo, LinearSolver
from conelayers.linalg.gmres import GMRES
from conelayers.linalg.krylov import KrylovSolver, KrylovState, norm
from conelayers.linalg.operators import IdentityMinus, LinearOperator

__all__ = ["Neumann", "NeumannGMRES"]


@dataclasses.dataclass(frozen=True)
class Neumann(KrylovSolver):
    """x <- x + step r with r <- (I - step A) r, from r = b: the partial sums of step sum_j (I - step A)^j b.

    They converge if the spectral radius of I - step A is below 1: for A = I - J and step 1 that of J, for symmetric
    positive definite A with step below 2 / ||A||. The adjoint counterpart of Picard iteration: one product per step,
    no memory beyond two vectors. r is the residual of x.

    Attributes:
        step: Scale of A, positive.
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step > 0:
            raise InvalidArgument(f"step must be positive, got {self.step}.")

    def run_pass(self, state: KrylovState, residual: Tensor, target: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        """Sum terms until the next one, which is the residual, meets the target; diverging items stop."""
        x, r = torch.zeros_like(residual), residual
        start = norm(residual)
        active = start > target
        iterations = torch.zeros(active.shape, dtype=torch.int64, device=r.device)
        for iteration in range(limit):
            if self.finished(iteration, active):
                break
            x = torch.where(active, x + self.step * r, x)
            r = torch.where(active, self._next(state.operator, r), r)
            iterations = iterations + active
            size = norm(r)
            active = active & (size > target) & (size < 1e8 * start)
        return x, iterations

    def _next(self, operator: LinearOperator, r: Tensor) -> Tensor:
        """(I - step A) r."""
        return complement(operator, r) if self.step == 1 else r - self.step * operator.matvec(r)


@dataclasses.dataclass(frozen=True)
class NeumannGMRES(LinearSolver[LinearOperator]):
    """Neumann steps as long as they shrink every residual fast, then GMRES from where they stopped.

    A Neumann step costs one product and no inner products to speak of: where J contracts fast nothing beats it, and
    where it does not, little has been lost when GMRES takes over. No assumption on J is made.

    Attributes:
        tolerance: Wanted ||b - A x|| / ||b||; None means 1e-10 in double and 1e-5 in single precision.
        max_iterations: Limit on GMRES's iterations; None means 10 n + 100.
        shrinks: Neumann steps go on while every unfinished residual shrinks by this factor per step.
        check_every: Steps between two questions to the device; None means 1 on the CPU and 5 elsewhere.
    """

    singular = True

    tolerance: float | None = None
    max_iterations: int | None = None
    shrinks: float = 0.35
    check_every: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.shrinks < 1:
            raise InvalidArgument(f"shrinks must lie in (0, 1), got {self.shrinks}.")

    def init(self, operator: LinearOperator) -> LinearOperator:
        """Nothing to compute."""
        self.check(operator)
        return operator

    def transpose(self, state: LinearOperator) -> LinearOperator:
        """The transposed operator."""
        return state.transpose()

    def solve(self, state: LinearOperator, rhs: Tensor, initial: Tensor | None = None) -> tuple[Tensor, LinearInfo]:
        """Solve for right-hand sides of shape (*rhs, *batch, n), from `initial` (b by default)."""
        every = self.check_every or (1 if rhs.device.type == "cpu" else 5)
        tolerance = self.tolerance or (1e-10 if rhs.dtype == torch.float64 else 1e-5)
        size = torch.linalg.vector_norm(rhs, dim=-1)
        target = tolerance * size
        r = complement(state, rhs) if initial is None else rhs - state.matvec(initial)
        x = (rhs if initial is None else initial).expand_as(r).clone()
        step, before = 0, size  # b is the residual of x = 0
        while True:
            length = torch.linalg.vector_norm(r, dim=-1)
            if step % every == 0:
                growth = _growth(length, before, target)
                if growth == 0:
                    break
                if not growth <= self.shrinks ** (every if step else 1):
                    return self._finish(state, rhs, x, step, size)
                before = length
            x.add_(r)
            r = complement(state, r)
            step += 1
        iterations = torch.full(length.shape, step + 1, dtype=torch.int64, device=rhs.device)
        return x, LinearInfo(iterations, length / torch.where(size > 0, size, torch.ones_like(size)))

    def _finish(self, state, rhs, x, steps, size) -> tuple[Tensor, LinearInfo]:
        usable = torch.isfinite(x).all(-1, keepdim=True)
        solver = GMRES(self.tolerance, self.max_iterations, self.check_every or (1 if rhs.device.type == "cpu" else 5))
        x, info = solver.solve(solver.init(state), rhs, torch.where(usable, x, torch.zeros_like(x)))
        return x, LinearInfo(info.iterations + steps + 1, info.residual)


def complement(operator: LinearOperator, v: Tensor) -> Tensor:
    """J v with J = I - A."""
    return operator.complement(v) if isinstance(operator, IdentityMinus) else v - operator.matvec(v)


def _growth(length: Tensor, before: Tensor, target: Tensor) -> float:
    """The largest length / before among unfinished items, 0 if there are none; one question to the device."""
    growth = torch.where(length > target, length / before, 0.0)
    return float(growth.max()) if growth.numel() else 0.0

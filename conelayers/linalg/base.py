"""The interface of linear solvers: work on the operator (`init`) kept apart from work on the vectors (`solve`).

The transpose law, which every solver keeps and the contract tests check, is

    solve(transpose(init(A)), b) = solve(init(A'), b).
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.linalg.operators import LinearOperator

__all__ = ["LinearInfo", "LinearSolver"]

State = TypeVar("State")


@dataclasses.dataclass(frozen=True, eq=False)
class LinearInfo:
    """How each right-hand side was solved.

    Attributes:
        iterations: Iterations taken, int64, shape (*rhs, *batch); zero for direct methods.
        residual: ||b - A x|| / ||b|| in the Euclidean norm (zero for b = 0), same shape.
    """

    iterations: Tensor
    residual: Tensor


class LinearSolver(abc.ABC, Generic[State]):
    """A method for A x = b, as a value: its fields are its settings.

    The capabilities are data, so that callers (and the contract tests) can ask before they call.

    Attributes:
        symmetric: The method needs A = A'.
        definite: The method needs A to be positive definite (semidefinite, where `singular` holds).
        square: The method needs as many rows as columns; others minimise ||b - A x||.
        singular: Consistent singular systems are solved too, by one of their solutions.
        minimum_norm: Of several (least-squares) solutions the one of smallest Euclidean norm is returned.
    """

    symmetric: ClassVar[bool] = False
    definite: ClassVar[bool] = False
    square: ClassVar[bool] = True
    singular: ClassVar[bool] = False
    minimum_norm: ClassVar[bool] = False

    @abc.abstractmethod
    def init(self, operator: LinearOperator) -> State:
        """Do everything that depends on the matrices alone (factorize, order, precondition)."""

    @abc.abstractmethod
    def solve(self, state: State, rhs: Tensor) -> tuple[Tensor, LinearInfo]:
        """Solve for right-hand sides of shape (*rhs, *batch, rows); the solution has (*rhs, *batch, columns)."""

    @abc.abstractmethod
    def transpose(self, state: State) -> State:
        """The state of the transposed matrices, without factorizing again."""

    def check(self, operator: LinearOperator) -> None:
        """Refuse an operator whose shape this method cannot take.

        Raises:
            InvalidArgument: If the method needs a square operator and this one is not.
        """
        rows, columns = operator.shape
        if self.square and rows != columns:
            raise InvalidArgument(
                f"{type(self).__name__} needs a square operator; this one is {rows} x {columns}. "
                "LSMR and MinimumNorm take rectangular ones."
            )


def direct_info(operator: LinearOperator, solution: Tensor, rhs: Tensor) -> LinearInfo:
    """The record of a direct solve: no iterations, and the measured residual."""
    residual = relative_residual(operator, solution, rhs)
    return LinearInfo(torch.zeros(residual.shape, dtype=torch.int64, device=rhs.device), residual)


def relative_residual(operator: LinearOperator, solution: Tensor, rhs: Tensor) -> Tensor:
    """||b - A x|| / ||b||, zero where b = 0 and x = 0; shape (*rhs, *batch)."""
    error = rhs - operator.matvec(solution)
    # The largest entry of b scales both norms, so that squares neither overflow nor vanish.
    scale = largest(rhs)
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    norm = torch.linalg.vector_norm(rhs / safe, dim=-1)
    return torch.linalg.vector_norm(error / safe, dim=-1) / norm.clamp(min=1.0)


def largest(vector: Tensor) -> Tensor:
    """Largest magnitude along the last axis, kept as an axis of size 1; zero for an empty axis."""
    if vector.shape[-1] == 0:
        return vector.new_zeros(*vector.shape[:-1], 1)
    return vector.abs().amax(-1, keepdim=True)


def to_columns(rhs: Tensor, depth: int) -> tuple[Tensor, torch.Size]:
    """Right-hand sides (*rhs, *batch, n) as matrices (*batch, n, k), and the shape of the *rhs axes."""
    extra = rhs.shape[: max(rhs.dim() - 1 - depth, 0)]
    flat = rhs.reshape(extra.numel(), *rhs.shape[len(extra) :])
    return flat.movedim(0, -1), extra


def from_columns(columns: Tensor, extra: torch.Size) -> Tensor:
    """Inverse of `to_columns`."""
    flat = columns.movedim(-1, 0)
    return flat.reshape(*extra, *flat.shape[1:])

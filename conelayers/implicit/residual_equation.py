"""Any equation F(z, theta) = 0 given as torch code, differentiated by its dense Jacobian."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from conelayers.errors import UnsupportedError
from conelayers.implicit.equation import Equation, zeros_for_none
from conelayers.implicit.exact import Exact
from conelayers.implicit.mode import Derivative
from conelayers.linalg import DenseOperator, MinimumNorm

__all__ = ["DenseLinearization", "ResidualEquation"]


@dataclasses.dataclass(frozen=True, eq=False)
class DenseLinearization:
    """dF/dz, or its transpose, as dense matrices (*batch, n, n)."""

    matrix: Tensor

    def solve(self, rhs: Tensor) -> Tensor:
        """By LU; NaN or an error of torch where the matrix is singular."""
        return torch.linalg.solve(self.matrix, rhs)

    def solve_least_squares(self, rhs: Tensor, rtol: float) -> Tensor:
        """The minimum-norm least-squares solution; zero for a matrix of zeros."""
        solver = MinimumNorm(rtol)
        return solver.solve(solver.init(DenseOperator(self.matrix)), rhs)[0]

    def smooth(self, mu: float) -> DenseLinearization:
        """Not available: a general F has no smoothing.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError("Smoothed() needs a cone programme; smooth F itself.")


@dataclasses.dataclass(frozen=True, eq=False)
class ResidualEquation(Equation):
    """z with F(z, *theta) = 0, for inputs theta of shapes (*batch, k_i) and z of shape (*batch, n).

    Attributes:
        residual: F of one problem, vectors (n,), (k_1,), ... to (n,), in torch operations; differentiable in all of
            them.
        solver: theta, with batch axes, to z. Its accuracy is that of the derivative.
        inputs: How many vectors theta consists of.
        mode: How the linearised equation is solved.
    """

    residual: Callable[..., Tensor]
    solver: Callable[..., Tensor]
    inputs: int = 1
    mode: Derivative = dataclasses.field(default_factory=Exact)

    @property
    def event_dims(self) -> Sequence[int]:
        """Vectors."""
        return (1,) * self.inputs

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """By the given solver, without autograd."""
        return (self.solver(*(value.detach() for value in inputs)).detach().clone(),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """With (dF/dz)'u = g, the cotangents -(dF/dtheta)'u."""
        z, *theta = self._flat(outputs[0], *inputs)
        (g,) = self._flat(*zeros_for_none(cotangents, outputs), like=outputs[0])
        jacobian = torch.func.vmap(torch.func.jacrev(self.residual))(z, *theta)
        u = self.mode.solve(DenseLinearization(jacobian.mT), g)

        def pull(z: Tensor, u: Tensor, *theta: Tensor) -> tuple[Tensor, ...]:
            return torch.func.vjp(lambda *t: self.residual(z, *t), *theta)[1](-u)

        pulled = torch.func.vmap(pull)(z, u, *theta)
        batch = outputs[0].shape[:-1]
        return tuple(p.reshape(*batch, p.shape[-1]) if use else None for p, use in zip(pulled, needed, strict=True))

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """(dF/dz) dz = -(dF/dtheta) dtheta."""
        z, *theta = self._flat(outputs[0], *inputs)
        moved = [torch.zeros_like(i) if t is None else t for i, t in zip(inputs, tangents, strict=True)]
        moved = self._flat(*moved, like=outputs[0])

        def push(z: Tensor, theta: list[Tensor], moved: list[Tensor]) -> Tensor:
            return -torch.func.jvp(lambda *t: self.residual(z, *t), tuple(theta), tuple(moved))[1]

        jacobian = torch.func.vmap(torch.func.jacrev(self.residual))(z, *theta)
        rhs = torch.func.vmap(push)(z, list(theta), list(moved))
        return (self.mode.solve(DenseLinearization(jacobian), rhs).reshape(outputs[0].shape),)

    def _flat(self, *values: Tensor, like: Tensor | None = None) -> tuple[Tensor, ...]:
        """All with the batch axes of the first (or of `like`), as one axis."""
        batch = (values[0] if like is None else like).shape[:-1]
        return tuple(v.expand(*batch, v.shape[-1]).reshape(-1, v.shape[-1]) for v in values)

"""The optimal value as a function of the parameters, differentiated by the envelope theorem."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from conelayers.canonicalize import ParametricProgram
from conelayers.implicit import Equation, implicit
from conelayers.layers.parametric import ParametricSolution
from conelayers.program import ConeSolution, ConeStructure, Status
from conelayers.program.products import A_times, P_times, outer, symmetric_outer

__all__ = ["optimal_value"]


@dataclasses.dataclass(frozen=True, eq=False)
class Envelope(Equation):
    """v(P, q, A, b) = min over x of max over y of the Lagrangian  1/2 x'Px + q'x + y'(Ax - b).

    Its derivative is that of the Lagrangian at the saddle point with x and y held (the envelope theorem; Danskin 1967,
    Bonnans & Shapiro 2000, section 4.3), so no linear system is solved for it. Second derivatives see how x and y move.

    Inputs: P values, q, A values, b, x and y. Output: v.

    Attributes:
        structure: Patterns and cone.
    """

    structure: ConeStructure

    @property
    def event_dims(self) -> Sequence[int]:
        """Six vectors."""
        return (1,) * 6

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Lagrangian: exact to second order in the errors of x and y."""
        P, q, A, b, x, y = inputs
        half = P_times(self.structure, P, x) / 2 + q
        return ((half * x).sum(-1) + ((A_times(self.structure, A, x) - b) * y).sum(-1),)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """Gradients of the Lagrangian in P, q, A and b; none in x and y, where it is stationary."""
        x, y = inputs[4:]
        given: Tensor = cotangents[0][..., None]  # type: ignore[index]
        return (
            given * symmetric_outer(self.structure, x, x) / 2 if needed[0] else None,
            given * x if needed[1] else None,
            given * outer(self.structure, y, x) if needed[2] else None,
            -given * y if needed[3] else None,
            None,
            None,
        )

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """The same derivative, forwards."""
        x, y = inputs[4:]
        dP, dq, dA, db = tangents[:4]
        moved = torch.zeros_like(outputs[0])
        if dP is not None:
            moved = moved + (P_times(self.structure, dP, x) * x).sum(-1) / 2
        if dq is not None:
            moved = moved + (dq * x).sum(-1)
        if dA is not None:
            moved = moved + (A_times(self.structure, dA, x) * y).sum(-1)
        if db is not None:
            moved = moved - (db * y).sum(-1)
        return (moved,)


def optimal_value(
    parametric: ParametricSolution,
    params: Sequence[Tensor],
    data: Sequence[Tensor],
    cone: ConeSolution,
    batch_shape: torch.Size,
    dtype: torch.dtype,
) -> Tensor:
    """The value of the user's problem, shape (*batch,), connected to its parameters.

    Infeasible and unbounded items have the infinite values of convex analysis, other failures NaN; their gradients are
    zero.

    Args:
        parametric: The programme and its objective.
        params: The parameters.
        data: P, q, A and b at these.
        cone: The solution there.
        batch_shape: Batch axes of the parameters.
        dtype: The type of the result.
    """
    program: ParametricProgram = parametric.program
    solved, code = cone.has_solution, cone.status_code
    x, y = (torch.where(solved[..., None], value, 0.0) for value in (cone.x, cone.y))
    (optimum,) = implicit(Envelope(program.structure), *data, x, y)
    constant = parametric.constant(params)
    found = program.objective.of(optimum, constant)
    unbounded = code == int(Status.DUAL_INFEASIBLE)
    none = (code == int(Status.PRIMAL_INFEASIBLE)) | unbounded
    missing = torch.where(none, program.objective.unattained(unbounded), torch.nan).to(found.dtype)
    found = torch.where(solved, found, missing)
    depth = len(batch_shape) - found.dim()
    found = found.reshape((1,) * depth + tuple(found.shape)) if depth > 0 else found
    return found.expand(batch_shape).to(dtype)

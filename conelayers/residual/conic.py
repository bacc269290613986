"""Cone programmes as an equation: their optimality conditions, solved by a backend and differentiated implicitly."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from conelayers.errors import InaccurateWarning, SolveError
from conelayers.implicit import Derivative, Equation, Exact, implicit, zeros_for_none
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status
from conelayers.program.products import A_times, A_transpose_times, P_times, outer, symmetric_outer
from conelayers.residual.direction import Direction, Watch
from conelayers.residual.fused import FusedAdjoint, fuses
from conelayers.residual.linearized import LinearizedConditions, solve_adjoint
from conelayers.residual.proximal import perturbed_gradients
from conelayers.residual.solve import Backend, solve_and_polish
from conelayers.warned import warn_user

__all__ = ["ConicConditions", "OnFailure", "adjoint_gradients"]

OnFailure = Literal["raise", "nan", "keep"]

_INACCURATE = int(Status.INACCURATE)


@dataclasses.dataclass(frozen=True, eq=False)
class ConicConditions(Equation):
    """The solution (x, y, s) of  minimise 1/2 x'Px + q'x  subject to  Ax + s = b, s in K.

    Inputs: P values, q, A values, b. Outputs: x, y, s, and without derivative the status code, iterations, and relative
    primal residual, dual residual and gap.

    The derivative is that of the reduced residual of `conelayers.residual.linearized` at v = y - s: with cotangents
    (gx, gy, gs), solve J [lam; u] = [gx - A'gs; gy] and put nu = D u + gs; then dq = -lam, db = nu,
    dA = -(y lam' + nu x') and dP = -(lam x' + x lam')/2, on the patterns.

    Attributes:
        structure: Patterns and cone.
        backend: What solves the programmes.
        mode: How the linearised conditions are solved.
        on_failure: "raise" an error that names the items without a solution, return "nan" for them, or "keep" the last
            iterates of those that were stopped (and NaN for the others), without derivatives.
        warm_start: A previous solution to start from, or None.
        inspect: Called with each batch of programmes and its solution, outside of autograd and of transforms.
        direction: How the data may move, which decides between derivatives at irregular solutions; None: nothing known.
        watch: Told by a backward pass whether it meets such solutions.
    """

    structure: ConeStructure
    backend: Backend
    mode: Derivative
    on_failure: OnFailure = "raise"
    warm_start: ConeSolution | None = None
    inspect: Callable[[ConeProgram, ConeSolution], None] | None = None
    direction: Direction | None = None
    watch: Watch | None = None

    nondifferentiable = frozenset({3, 4, 5, 6, 7})

    @property
    def event_dims(self) -> Sequence[int]:
        """Four vectors."""
        return (1, 1, 1, 1)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Solve by the backend, polish, and deal with items that have no solution."""
        program = ConeProgram.unchecked(self.structure, *inputs)
        return self.conclude(program, solve_and_polish(program, self.backend, self.warm_start)).tensors

    def conclude(self, program: ConeProgram, solution: ConeSolution) -> ConeSolution:
        """What becomes of items without a solution; whoever inspects sees the outcome."""
        if not solution.all_solved:
            solution = self._with_failures(solution)
        if self.inspect is not None:
            self.inspect(program, solution)
        return solution

    def _with_failures(self, solution: ConeSolution) -> ConeSolution:
        """A warning for items of reduced accuracy; an error, or NaN, for those without a solution."""
        _warn_if_inaccurate(solution)
        bad = ~solution.has_solution
        if not bad.any():
            return solution
        if self.on_failure == "raise":
            places = torch.nonzero(bad).tolist()
            indices = tuple(tuple(place) if len(place) > 1 else place[0] for place in places if place)
            message = _failure_message(solution)
            raise SolveError(message, status=solution.status, indices=indices, solution=solution)
        if self.on_failure == "keep":
            bad = bad & (solution.status_code != int(Status.ITERATION_LIMIT))
        points = {name: torch.where(bad[..., None], torch.nan, getattr(solution, name)) for name in ("x", "y", "s")}
        return dataclasses.replace(solution, **points)

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The adjoint formula of the class docstring, or what the mode does instead."""
        return self.mode.pull(_ReverseMode(self, inputs, outputs, cotangents, (needed[0], needed[2])))

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """J [dx; dv] = -[dP x + dq + dA'y; dA x - db]; dy = D dv, ds = dy - dv."""
        P, _, A, _ = inputs
        x, y, s, active = _solved(outputs)
        dP, dq, dA, db = tangents
        first, second = torch.zeros_like(x), torch.zeros_like(y)
        if dP is not None:
            first = first - P_times(self.structure, dP, x)
        if dq is not None:
            first = first - dq
        if dA is not None:
            first = first - A_transpose_times(self.structure, dA, y)
            second = second - A_times(self.structure, dA, x)
        if db is not None:
            second = second + db
        dx, dv, dy = implicit(LinearizedConditions(self.structure, self.mode), P, A, y - s, first, second, active)
        return dx, dy, dy - dv, None, None, None, None, None


class _ReverseMode:
    """The ways from the cotangents of x, y and s to those of P, q, A and b, for a derivative mode to choose from."""

    def __init__(self, conditions: ConicConditions, inputs, outputs, cotangents, matrices: tuple[bool, bool]) -> None:
        self.conditions, self.inputs, self.matrices = conditions, inputs, matrices
        self.point, self.status_code = outputs[:3], outputs[3]
        self.cotangents = zeros_for_none(cotangents[:3], self.point)

    def linearized(self) -> tuple[Tensor, ...]:
        """The adjoint formula of `ConicConditions`; in one compiled pass where there is one."""
        P, _, A, _ = self.inputs
        structure, mode = self.conditions.structure, self.conditions.mode
        arguments = (P, A, *self.point, *self.cotangents, self.status_code)
        stated = functools.partial(adjoint_gradients, structure, mode)
        watch, size = self.conditions.watch, self.point[1].shape[:-1].numel() * structure.A_nnz
        if mode == Exact() and fuses(structure, P.device, self.matrices, size if watch else None):
            return implicit(FusedAdjoint(structure, stated, watch), *arguments)
        return stated(*arguments, matrices=self.matrices)

    def perturbed(self, tau: float, rho: float) -> tuple[Tensor, ...]:
        """By one more solve; nothing comes from items without a solution."""
        alone = dataclasses.replace(self.conditions, inspect=None, warm_start=None)

        def solve(structure: ConeStructure) -> Callable[..., tuple[Tensor, ...]]:
            return functools.partial(implicit, dataclasses.replace(alone, structure=structure))

        has_solution = _has_solution(self.status_code)[..., None]
        x, y, _, gx, gy, gs = (torch.where(has_solution, value, 0.0) for value in (*self.point, *self.cotangents))
        found = perturbed_gradients(alone.structure, solve, self.inputs, (x, y), (gx, gy, gs), tau, rho)
        return tuple(torch.where(has_solution, value, 0.0) for value in found)


def adjoint_gradients(
    structure: ConeStructure,
    mode: Derivative,
    P: Tensor,
    A: Tensor,
    x: Tensor,
    y: Tensor,
    s: Tensor,
    gx: Tensor,
    gy: Tensor,
    gs: Tensor,
    status_code: Tensor,
    matrices: tuple[bool, bool] = (True, True),
) -> tuple[Tensor, ...]:
    """The gradients of P, q, A and b by the formula of `ConicConditions`, in differentiable torch code.

    Args:
        structure: Patterns and cone.
        mode: How the adjoint system is solved.
        P: Values of P.
        A: Values of A.
        x: Primal solution.
        y: Dual solution.
        s: Slacks.
        gx: Cotangent of x.
        gy: Cotangent of y.
        gs: Cotangent of s.
        status_code: `Status` per item; nothing comes from those without a solution.
        matrices: Whether the gradients of P and of A are wanted; zeros of one entry stand for what is not.
    """
    has_solution = _has_solution(status_code)
    x, y, s, gx, gy, gs = (torch.where(has_solution[..., None], value, 0.0) for value in (x, y, s, gx, gy, gs))
    active = has_solution.to(x.dtype)
    lam, nu, _ = solve_adjoint(structure, mode, P, A, y - s, gx, -gs, gy + gs, active)
    return (
        -symmetric_outer(structure, lam, x) if matrices[0] else lam.new_zeros(1),
        -lam,
        -(outer(structure, y, lam) + outer(structure, nu, x)) if matrices[1] else lam.new_zeros(1),
        nu,
    )


def _solved(outputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y, s with zeros in place of what has no solution, and 1 or 0 per item accordingly."""
    x, y, s, status_code = outputs[:4]
    has_solution = _has_solution(status_code)
    x, y, s = (torch.where(has_solution[..., None], value, 0.0) for value in (x, y, s))
    return x, y, s, has_solution.to(x.dtype)


def _has_solution(status_code: Tensor) -> Tensor:
    return status_code <= _INACCURATE


def _failure_message(solution: ConeSolution) -> str:
    codes = solution.status_code.cpu().numpy()
    bad = np.argwhere(codes > int(Status.INACCURATE))
    if codes.ndim == 0:
        return f"Solver failed: {Status(int(codes)).name}. {_REMEDY}"
    shown = ", ".join(
        f"{tuple(int(i) for i in index) if len(index) > 1 else int(index[0])}: {Status(int(codes[tuple(index)])).name}"
        for index in bad[:8]
    )
    more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
    return f"Solver failed for {len(bad)} of {codes.size} batch items ({shown}{more}). {_REMEDY}"


_REMEDY = (
    "Use on_failure='nan' to keep the other items of a batch, layer.solve(...) to look at residuals, "
    "or raise max_iters / loosen tol in solver_args."
)


def _warn_if_inaccurate(solution: ConeSolution) -> None:
    inaccurate = solution.status_code == int(Status.INACCURATE)
    if inaccurate.any():
        where = torch.nonzero(inaccurate).tolist()[:8] if inaccurate.dim() else "the programme"
        warn_user(
            f"Solutions of reduced accuracy at {where}; see layer.solve(...) for their residuals.", InaccurateWarning
        )

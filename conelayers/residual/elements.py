"""All derivatives at a kink: the extreme elements of the conservative Jacobian, and one-sided derivatives.

At a weakly active row of a polyhedral cone the projection has two derivatives, 0 and 1. Each choice for all weakly
active rows gives an extreme element D of the Clarke Jacobian, and -J(D)^-1 (dF/dtheta) is an extreme element of the
conservative Jacobian of the solution. The one-sided derivative in a direction solves the piecewise linear equation

    P dx + A'w = r1,   A dx + w - dv = r2,   w_i = max(dv_i, 0) on weakly active rows,  w = D dv elsewhere.

Where every J(D) is invertible their determinants have one sign, the piecewise linear map is a homeomorphism, and
Katzenelson's method (1965) follows its preimage of a segment through the pieces to the solution, in finitely many
steps.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from conelayers.cones import Free, ProductCone, Zero
from conelayers.errors import UnsupportedError
from conelayers.implicit import Equation, Exact, implicit, zeros_for_none
from conelayers.program import ConeProgram, ConeSolution
from conelayers.program.products import A_times, A_transpose_times, P_times
from conelayers.residual.conic import ConicConditions, adjoint_gradients
from conelayers.residual.linearization import linearize
from conelayers.residual.linearized import LinearizedConditions

__all__ = ["FixedElement", "extreme_points", "is_invertible", "one_sided", "weak_rows"]

_INVERTIBLE = 1e-10
_STEPS = 10_000


class FixedElement(Equation):
    """A solved programme with a chosen element of the Clarke Jacobian: `ConicConditions` with D taken at another v.

    Attributes:
        conditions: The equation.
        solution: Its solution, one item without batch axes.
        v: Where D is taken, (m,).
    """

    nondifferentiable = ConicConditions.nondifferentiable

    def __init__(self, conditions: ConicConditions, solution: ConeSolution, v: Tensor) -> None:
        self.conditions, self.solution, self.v = conditions, solution.detach(), v

    @property
    def event_dims(self) -> Sequence[int]:
        """Four vectors."""
        return (1, 1, 1, 1)

    def solve(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The known solution."""
        return tuple(getattr(self.solution, f.name).clone() for f in dataclasses.fields(self.solution))

    def pullback(self, inputs, outputs, cotangents, needed) -> tuple[Tensor | None, ...]:
        """The adjoint formula at the chosen element."""
        P, _, A, _ = inputs
        x, y = outputs[:2]
        gx, gy, gs = zeros_for_none(cotangents[:3], outputs[:3])
        structure, s, code = self.conditions.structure, y - self.v, outputs[3]
        gradients = adjoint_gradients(structure, Exact(), P, A, x, y, s, gx, gy, gs, code, (needed[0], needed[2]))
        return tuple(g if use else None for g, use in zip(gradients, needed, strict=True))

    def pushforward(self, inputs, outputs, tangents) -> tuple[Tensor | None, ...]:
        """Not provided: take `one_sided` for directions."""
        raise UnsupportedError("Extreme elements are given in reverse mode; use jacrev.")


def weak_rows(cone: ProductCone, v: Tensor, radius: float) -> tuple[Tensor, bool]:
    """Polyhedral rows within `radius` of their kink, int64, and whether a curved block lies on one too; v (m,)."""
    rows: list[int] = []
    margins = cone.margin(v)
    curved = False
    for position, block in enumerate(cone.cones):
        start, stop = cone.offsets[position], cone.offsets[position + 1]
        if not block.polyhedral:
            curved = curved or bool(margins[position] <= radius)
        elif not isinstance(block, Zero | Free):
            rows.extend((start + torch.nonzero(v[start:stop].abs() <= radius)[:, 0]).tolist())
    return torch.tensor(rows, dtype=torch.int64), curved


def extreme_points(v: Tensor, rows: Tensor, limit: int) -> Iterator[Tensor]:
    """Points with the extreme elements of the weakly active `rows`: v with these entries -1 or 1.

    At most `limit` of them; the smallest element comes first, then those in which few rows are active.
    """
    count = len(rows)
    subsets = itertools.chain.from_iterable(itertools.combinations(range(count), size) for size in range(count + 1))
    for active in itertools.islice(subsets, limit):
        signs = v.new_full((count,), -1.0)
        signs[list(active)] = 1.0
        yield v.index_copy(0, rows, signs)


def is_invertible(program: ConeProgram, v: Tensor) -> bool:
    """Whether J(D(v)) of a single programme is invertible, by its singular values relative to the largest."""
    flat = program.detach().flatten()
    singular = torch.linalg.svdvals(linearize(program.structure, flat.P, flat.A, v[None]).matrix()[0])
    return len(singular) == 0 or bool(singular[-1] > _INVERTIBLE * singular[0])


def one_sided(
    program: ConeProgram, solution: ConeSolution, tangent: ConeProgram, radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives (dx, dy, ds) of the solution of a single programme for t -> 0+ along program + t tangent.

    Raises:
        UnsupportedError: If a curved block lies on a kink, or the problem is not regular.
    """
    structure, v = program.structure, solution.y - solution.s
    rows, curved = weak_rows(structure.cone, v, radius)
    if curved:
        raise UnsupportedError("One-sided derivatives are provided where the weakly active constraints are linear.")
    first = -P_times(structure, tangent.P, solution.x) - tangent.q
    first = first - A_transpose_times(structure, tangent.A, solution.y)
    target = torch.cat([first, tangent.b - A_times(structure, tangent.A, solution.x)])
    system = _PiecewiseLinear(program, v, rows)
    z, w = system.solve(target)
    dv = z[structure.n :]
    return z[: structure.n], w, w - dv


class _PiecewiseLinear:
    """The map z = (dx, dv) -> J(D(signs of dv on the weak rows)) z of one programme."""

    def __init__(self, program: ConeProgram, v: Tensor, rows: Tensor) -> None:
        self.program, self.v, self.rows = program, v, rows
        self.equation = LinearizedConditions(program.structure, Exact())

    def solve(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Katzenelson's path from a point inside the piece where all weak rows are inactive; returns z and w."""
        n, count = self.program.structure.n, len(self.rows)
        signs = -torch.ones(count, dtype=self.v.dtype)
        z = torch.zeros_like(target)
        # No two rows change sign at the same time from a start in general position.
        z[n + self.rows] = -(1 + 0.618034 * torch.arange(count, dtype=z.dtype) % 1) * target.norm().clamp(min=1e-30)
        image = self._apply(signs, z)
        done = 0.0
        for _ in range(_STEPS):
            step, _ = self._invert(signs, target - image)
            ahead, rate = z[n + self.rows], step[n + self.rows]
            leaving = rate * signs < 0
            times = torch.where(leaving, -ahead / torch.where(leaving, rate, 1), torch.inf).clamp(min=0)
            left = 1.0 - done
            if not count or float(times.min()) >= left:
                z, signs_final = z + left * step, signs
                return self._finish(z, signs_final, target)
            which = int(times.argmin())
            z, done = z + times[which] * step, done + float(times[which])
            z[n + self.rows[which]] = 0.0
            signs[which] = -signs[which]
        raise UnsupportedError("The one-sided derivative was not found: the problem is not regular here.")

    def _finish(self, z: Tensor, signs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """One solve in the last piece, free of the errors of the path."""
        z, w = self._invert(signs, target)
        residual = (self._apply(signs, z) - target).norm()
        if not residual <= 1e-6 * target.norm():
            raise UnsupportedError("The one-sided derivative does not exist: the problem is not regular here.")
        return z, w

    def _at(self, signs: Tensor) -> Tensor:
        return self.v.index_copy(0, self.rows, signs)

    def _invert(self, signs: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
        n, program = self.program.structure.n, self.program
        dx, dv, w = implicit(self.equation, program.P, program.A, self._at(signs), rhs[:n], rhs[n:], rhs.new_ones(()))
        return torch.cat([dx, dv]), w

    def _apply(self, signs: Tensor, z: Tensor) -> Tensor:
        program, s = self.program, self.program.structure
        dx, dv = z[: s.n], z[s.n :]
        w = s.cone.dual_derivative(self._at(signs)).apply(dv)
        first = P_times(s, program.P, dx) + A_transpose_times(s, program.A, w)
        return torch.cat([first, A_times(s, program.A, dx) + w - dv])

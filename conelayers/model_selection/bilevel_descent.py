"""An accelerated outer loop for bilevel problems, with warm starts of the inner point and of the adjoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from conelayers.bilevel import BilevelProblem, Hypergradient, implicit_hypergradient, inner_descent
from conelayers.bilevel.functions import leaves
from conelayers.linalg import CG, LinearSolver
from conelayers.settings import require_counts, require_kinds, require_numbers

__all__ = ["BilevelDescent", "BilevelResult"]

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class BilevelResult:
    """The last outer point and its record.

    Attributes:
        theta: Outer variables.
        w: Inner variables.
        values: Outer values by iteration.
    """

    theta: Tensors
    w: Tensors
    values: list[float]


@dataclass(frozen=True)
class BilevelDescent:
    """Outer gradient steps with Nesterov's momentum (Yang, Ji & Liang 2021), inner gradient steps from the last point.

    Args:
        outer_steps: Number of outer steps.
        outer_step: Their length.
        inner_steps: Gradient steps on the inner function per outer step.
        inner_step: Their length.
        momentum: 0 for plain descent.
        solver: How the adjoint is found; it starts from the previous one.
        project: Applied to theta after each step, such as a clamp.
    """

    outer_steps: int = 100
    outer_step: float = 0.1
    inner_steps: int = 10
    inner_step: float = 0.1
    momentum: float = 0.9
    solver: LinearSolver = field(default_factory=lambda: CG(tolerance=1e-6, max_iterations=10))
    project: Callable[[Tensors], Tensors] | None = None

    def __post_init__(self) -> None:
        require_counts(self, outer_steps=0, inner_steps=0)
        require_numbers(self, outer_step="(0, inf)", inner_step="(0, inf)", momentum="[0, 1)")
        require_kinds(self, solver=LinearSolver)

    def run(
        self,
        problem: BilevelProblem,
        w: Tensors,
        theta: Tensors,
        callback: Callable[[int, Hypergradient], None] | None = None,
    ) -> BilevelResult:
        """Descend from (w, theta).

        Raises:
            InvalidArgument: w or theta is no tuple of floating-point tensors, or a function returns no scalar.
        """
        theta = tuple(t.detach() for t in leaves("theta", theta))
        previous, ahead, adjoint, values = theta, theta, None, []
        for iteration in range(self.outer_steps):
            w = inner_descent(problem, w, ahead, self.inner_steps, self.inner_step)
            result = implicit_hypergradient(problem, w, ahead, self.solver, adjoint)
            adjoint = result.adjoint
            values.append(float(result.value))
            if callback is not None:
                callback(iteration, result)
            current = tuple((t - self.outer_step * g).detach() for t, g in zip(ahead, result.gradient, strict=True))
            if self.project is not None:
                current = self.project(current)
            ahead = tuple(c + self.momentum * (c - p) for c, p in zip(current, previous, strict=True))
            if self.project is not None:
                ahead = self.project(ahead)
            previous = current
        w = inner_descent(problem, w, previous, self.inner_steps, self.inner_step)
        return BilevelResult(previous, w, values)

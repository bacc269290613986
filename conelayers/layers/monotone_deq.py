"""Monotone operator equilibrium networks (Winston & Kolter 2020).

z = phi(W z + U x + b) with W = (1 - m) I - A'A + B - B'. Then I - W has the symmetric part m I + A'A >= m I: it is
strongly monotone, so for every input there is exactly one equilibrium, found by operator splitting, and the
implicit function theorem applies at every point whatever the activation's Clarke element (see
`MonotoneDEQ.certificate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.certificates import ActivationCertificate, certify_activation
from conelayers.fixed_points.iterations import (
    FixedPointSolver,
    ForwardBackward,
    MonotoneSplitting,
    PeacemanRachford,
    search_step,
)
from conelayers.fixed_points.modes.implicit_adjoint import ImplicitAdjoint
from conelayers.implicit.mode import Derivative
from conelayers.layers._inputs import check_callable, check_derivative, check_input, check_same, check_solver
from conelayers.layers.fixed_point import fixed_point
from conelayers.settings import check_count, check_number

__all__ = ["MonotoneDEQ", "MonotoneModule"]

Activation = Callable[[Tensor], Tensor]


class MonotoneModule(nn.Module):
    """What monotone models share: the solve, and the search for a step length.

    Under autocast the input enters in half precision; the equilibrium, whose uniqueness rests on W and its inverse, is
    found in the precision of the weights.
    """

    event_dims: int  # axes of one item's state; all axes before them count items
    m: float
    solver: FixedPointSolver
    adjoint: Derivative

    def setup(self, m: float, solver: FixedPointSolver, adjoint: Derivative) -> None:
        """Check m and keep the settings."""
        check_number("m", m, "(0, 1]")
        check_solver(solver)
        check_derivative(adjoint)
        self.m, self.solver, self.adjoint = m, solver, adjoint

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """The inclusion and its weight tensors."""
        raise NotImplementedError

    def inject(self, x: Any) -> Any:
        """U x + b, of the structure of z."""
        raise NotImplementedError

    def forward(self, x: Any, z0: Any = None, *, return_info: bool = False) -> Any:
        """The equilibrium for the input `x`, and with `return_info` the solve's result."""
        return self._solve(self.inject(x), z0, self.solver, return_info)

    def tune_step(self, x: Any, steps: int = 40, candidates: Sequence[float] | None = None) -> float:
        """Search the solver's step length alpha on a batch of inputs, and keep the best.

        For `PeacemanRachford` and `ForwardBackward`.

        Returns:
            The step length kept.
        """
        if not isinstance(self.solver, PeacemanRachford | ForwardBackward):
            raise InvalidArgument(f"{type(self.solver).__name__} has no step length to search.")
        with torch.no_grad():
            probe = _StepSearch(self.solver, steps, candidates)
            self._solve(self.inject(x), None, probe, False)  # pyright: ignore[reportArgumentType]
        self.solver = probe.chosen
        return probe.chosen.alpha

    def _solve(self, injection: Any, z0: Any, solver: FixedPointSolver, return_info: bool) -> Any:
        device = tree_leaves(injection)[0].device.type
        if torch.is_autocast_enabled(device):
            dtype = next(self.parameters()).dtype
            with torch.autocast(device, enabled=False):
                injection, z0 = tree_map(lambda t: t.to(dtype) if isinstance(t, Tensor) else t, (injection, z0))
                return self._solve(injection, z0, solver, return_info)
        splitting, weights = self.splitting()
        if z0 is None:
            z0 = tree_map(torch.zeros_like, injection)
        else:
            check_same("z0", z0, injection, "the state")
        return fixed_point(
            splitting, z0, injection, *weights,
            solver=solver, adjoint=self.adjoint, return_info=return_info,
            batch_dims=tree_leaves(injection)[0].dim() - self.event_dims,
        )  # fmt: skip


class _StepSearch:
    """A stand-in solver that searches a step length on the problem it is given."""

    def __init__(self, solver: Any, steps: int, candidates: Sequence[float] | None) -> None:
        self.solver, self.steps, self.candidates, self.chosen = solver, steps, candidates, solver

    def run(self, f: Any, z0: Tensor, fz0: Tensor | None = None, trace: bool = False) -> Any:
        self.chosen = search_step(self.solver, f, z0, self.steps, self.candidates)
        return self.chosen.run(f, z0, fz0, trace)


class MonotoneDEQ(MonotoneModule):
    """Fully connected: z = phi(W z + U x + b).

    Args:
        in_features: Size of x.
        features: Size n of z.
        m: Strong monotonicity of I - W, in (0, 1].
        activation: A proximal map that acts entrywise, such as relu or tanh (for other than relu, alpha counts:
            solve with `Anderson()`).
        solver: How to iterate.
        adjoint: How to differentiate.
    """

    event_dims = 1

    def __init__(
        self,
        in_features: int,
        features: int,
        m: float = 0.1,
        activation: Activation = torch.relu,
        solver: FixedPointSolver = PeacemanRachford(atol=1e-6, rtol=1e-6),  # noqa: B008 (an immutable value)
        adjoint: Derivative = ImplicitAdjoint(),  # noqa: B008 (an immutable value)
    ) -> None:
        super().__init__()
        self.setup(m, solver, adjoint)
        check_count("in_features", in_features, 0)
        check_count("features", features, 0)
        check_callable("activation", activation)
        if not _is_relu(activation) and isinstance(solver, PeacemanRachford | ForwardBackward):
            raise InvalidArgument(
                "splitting solvers need relu, whose prox does not depend on the step; use Anderson()."
            )
        self.activation = activation
        self.A = nn.Parameter(torch.randn(features, features) / (2 * math.sqrt(features)))
        self.B = nn.Parameter(torch.randn(features, features) / (2 * math.sqrt(features)))
        self.input = nn.Linear(in_features, features)

    @property
    def W(self) -> Tensor:
        """(1 - m) I - A'A + B - B', shape (n, n)."""
        eye = torch.eye(self.A.shape[0], dtype=self.A.dtype, device=self.A.device)
        return (1 - self.m) * eye - self.A.T @ self.A + self.B - self.B.T

    def inject(self, x: Tensor) -> Tensor:
        """U x + b, shape (*batch, n) for x of shape (*batch, in_features)."""
        check_input("x", x, self.input.weight, [(self.input.in_features,)])
        return self.input(x)

    def splitting(self) -> tuple[MonotoneSplitting, tuple[Any, ...]]:
        """F(z) = z - W z - injection."""
        return _Dense(self.activation), (self.W,)

    def certificate(self) -> ActivationCertificate:
        """Lower bound of sigma_min(I - D W) over all Clarke elements D of the activation."""
        return certify_activation(self.W.detach())


def _is_relu(activation: Activation) -> bool:
    return activation in (torch.relu, F.relu, Tensor.relu) or isinstance(activation, nn.ReLU)


class _Dense(MonotoneSplitting):
    def __init__(self, activation: Activation) -> None:
        self.activation = activation

    def operator(self, z: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return z - F.linear(z, W) - injection

    def prox(self, v: Tensor, alpha: float) -> Tensor:
        return self.activation(v)

    def factor(self, alpha: float, injection: Tensor, W: Tensor) -> Tensor:
        eye = torch.eye(W.shape[0], dtype=W.dtype, device=W.device)
        # torch has no inverses in half precision
        return torch.linalg.inv(((1 + alpha) * eye - alpha * W).to(torch.promote_types(W.dtype, torch.float32))).to(W)

    def resolve(self, v: Tensor, alpha: float, factor: Tensor, injection: Tensor, W: Tensor) -> Tensor:
        return F.linear(v + alpha * injection, factor)

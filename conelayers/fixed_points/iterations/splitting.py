"""Operator splitting for monotone fixed points z = prox(z - F(z)), F affine and monotone."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from conelayers.errors import UnsupportedError
from conelayers.fixed_points.iterations.base import FixedPointSolver, Iterate
from conelayers.fixed_points.iterations.map import BoundSplitting, Map
from conelayers.settings import check_count, require_numbers

__all__ = ["ForwardBackward", "MonotoneSplitting", "PeacemanRachford", "search_step"]


class MonotoneSplitting(abc.ABC):
    """The inclusion 0 in F(z) + dphi(z) with F(z) = (I - W) z - b monotone and affine, as a fixed-point map.

    z = prox_phi(z - F(z)) = prox_phi(W z + b). Written as an object, solvers can use the two parts apart. All
    methods take the parameters of the map (weights, inputs) as trailing tensors, so that they are differentiated.
    """

    def __call__(self, z: Tensor, *params: Any) -> Tensor:
        """prox(z - F(z)), the map whose fixed point is sought."""
        return self.prox(z - self.operator(z, *params), 1.0)

    @abc.abstractmethod
    def operator(self, z: Tensor, *params: Any) -> Tensor:
        """F(z)."""

    @abc.abstractmethod
    def prox(self, v: Tensor, alpha: float) -> Tensor:
        """The proximal map of alpha phi (for relu: relu, whatever alpha)."""

    def factor(self, alpha: float, *params: Any) -> Any:
        """What `resolve` needs beyond its arguments, computed once per solve."""
        raise UnsupportedError(f"{type(self).__name__} has no resolvent: solve with ForwardBackward().")

    def resolve(self, v: Tensor, alpha: float, factor: Any, *params: Any) -> Tensor:
        """The resolvent: x with x + alpha F(x) = v."""
        raise UnsupportedError(f"{type(self).__name__} has no resolvent: solve with ForwardBackward().")


def _splitting_of(f: Any, solver: str) -> BoundSplitting:
    found = getattr(f, "splitting", None)
    if found is None:
        raise UnsupportedError(
            f"{solver} needs a MonotoneSplitting, and one that receives every tensor it uses as a parameter; "
            "use Anderson() for other functions."
        )
    return found


@dataclass
class _Forward:
    splitting: BoundSplitting
    value: Tensor  # F(z), shape: (batch, n)


@dataclass(frozen=True)
class ForwardBackward(FixedPointSolver):
    """z <- prox_alpha(z - alpha F(z)).

    With F m-strongly monotone and L-Lipschitz it contracts for alpha < 2 m / L^2, by sqrt(1 - m^2 / L^2) at the best
    alpha = m / L^2 (Winston & Kolter 2020).

    Attributes:
        alpha: Step length; see `search_step`.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Reject a step that is not positive."""
        super().__post_init__()
        require_numbers(self, alpha="(0, inf)")

    def init(self, f: Map, z: Tensor) -> _Forward:
        """F at the start."""
        splitting = _splitting_of(f, "ForwardBackward")
        return _Forward(splitting, splitting.operator(z))

    def propose(self, f: Map, memory: _Forward, point: Iterate, active: Tensor) -> tuple[Tensor, _Forward]:
        """Forward step on F, backward step on phi."""
        return memory.splitting.prox(point.z - self.alpha * memory.value, self.alpha), memory

    def evaluate(self, f: Map, memory: _Forward, z: Tensor) -> Tensor:
        """f(z) from F(z), which the next step uses too."""
        memory.value = memory.splitting.operator(z)
        return memory.splitting.prox(z - memory.value, 1.0)


@dataclass
class _Reflected:
    splitting: BoundSplitting
    resolvent: Callable[[Tensor], Tensor]
    u: Tensor  # the reflected variable, shape: (batch, n)


@dataclass(frozen=True)
class PeacemanRachford(FixedPointSolver):
    """u <- R_phi R_F u with the reflected resolvents R = 2 (I + alpha .)^-1 - I; z = prox_alpha(u).

    Converges for every alpha > 0 when F is strongly monotone, usually in far fewer steps than forward-backward;
    each needs a solve with I + alpha (I - W), factored once per call.

    Attributes:
        alpha: Step length; see `search_step`.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Reject a step that is not positive."""
        super().__post_init__()
        require_numbers(self, alpha="(0, inf)")

    def init(self, f: Map, z: Tensor) -> _Reflected:
        """Factor the resolvent."""
        splitting = _splitting_of(f, "PeacemanRachford")
        # The reflected variable of a fixed point z is z - alpha F(z), whose prox is z: a warm start stays warm.
        return _Reflected(splitting, splitting.resolvent(self.alpha), z - self.alpha * splitting.operator(z))

    def propose(self, f: Map, memory: _Reflected, point: Iterate, active: Tensor) -> tuple[Tensor, _Reflected]:
        """Reflect twice."""
        half = 2 * point.z - memory.u
        memory.u = 2 * memory.resolvent(half) - half
        return memory.splitting.prox(memory.u, self.alpha), memory


Solver = TypeVar("Solver", ForwardBackward, PeacemanRachford)


def search_step(
    solver: Solver, f: Map, z0: Tensor, steps: int = 40, candidates: Sequence[float] | None = None
) -> Solver:
    """The solver with the step length whose residuals fall fastest.

    Args:
        solver: Settings; its `alpha` is replaced.
        f: A bound splitting map on matrices (batch, n).
        z0: Start, shape (batch, n).
        steps: Steps tried for each candidate.
        candidates: Step lengths to try; None means 2, 1, 1/2, ..., 2^-8.

    Returns:
        `solver` with the best `alpha`: the measure is the largest residual of the batch over the second half of the
        steps, its decrease per step, because early decrease says little about the rate.
    """
    check_count("steps", steps)
    if len(z0) == 0:
        return solver  # nothing to judge by
    best, chosen = torch.inf, solver.alpha
    for alpha in candidates or [2.0**-k for k in range(-1, 9)]:
        trial = replace(solver, alpha=alpha, max_steps=steps)
        trace = trial.run(f, z0, trace=True).trace
        assert trace is not None
        worst = torch.nan_to_num(trace, nan=torch.inf).amax(1)
        taken = len(worst) - 1
        half = taken // 2
        rate = float((worst[-1] / worst[half]) ** (1 / max(taken - half, 1))) if taken else 0.0
        if rate < best:  # NaN, from a residual that overflowed, compares false
            best, chosen = rate, alpha
    return replace(solver, alpha=chosen)

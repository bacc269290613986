"""The loop all fixed-point iterations share: per-item convergence, freezing, trace, status.

A solver is a frozen dataclass of settings that knows one thing: how to propose the next iterate from the history it
keeps (`init`, `propose`). Everything else happens once, here: the residual r = ||f(z) - z|| of every batch item is
measured on every iterate, items that meet ``r <= atol + rtol ||f(z)||`` are frozen while the others go on,
non-finite items are stopped at their best iterate, and the host asks the device one question every `check_every`
steps (on the CPU, where asking is free, every step).
"""

import abc
import enum
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.iterations.map import Map, Raised
from conelayers.implicit.products import rounding
from conelayers.settings import require_counts, require_numbers

__all__ = ["FixedPointResult", "FixedPointSolver", "FixedPointStatus", "Iterate"]


class FixedPointStatus(enum.IntEnum):
    """How one batch item ended."""

    CONVERGED = 0
    MAX_STEPS = 1
    DIVERGED = 2


@dataclass(frozen=True)
class FixedPointResult:
    """Outcome of a fixed-point solve; it certifies itself through `residual`, which is measured on `value`.

    Attributes:
        value: The iterate returned, shape (*batch, n) (or the caller's nest of tensors, from `fixed_point`).
        iterations: Steps taken by each item, shape (*batch,), int32.
        residual: ||f(value) - value|| of each item (2-norm), shape (*batch,).
        status: `FixedPointStatus` codes, shape (*batch,), int8.
        trace: Residual of each item after every step, shape (steps + 1, *batch), or None unless asked for.
            A frozen item repeats its last residual.
        adjoint: What the backward solve measured, filled in when it runs; None for modes without one.
    """

    value: Any
    iterations: Tensor
    residual: Tensor
    status: Tensor
    trace: Tensor | None = None
    adjoint: Any = None

    @property
    def converged(self) -> Tensor:
        """Items that met their tolerance, shape (*batch,), bool."""
        return self.status == FixedPointStatus.CONVERGED


class Iterate(NamedTuple):
    """One point of an iteration with what has been measured there."""

    z: Tensor  # shape: (batch, n)
    fz: Tensor  # shape: (batch, n)
    g: Tensor  # f(z) - z, shape: (batch, n)
    residual: Tensor  # ||g||, shape: (batch,)
    target: Tensor  # the residual at which the item is done, shape: (batch,)
    growth: float | None = None  # the largest residual of an active item over that before; None where nobody looks


@dataclass(frozen=True)
class FixedPointSolver(abc.ABC):
    """Settings common to every solver; a subclass adds its own and the two methods `init` and `propose`.

    Attributes:
        atol: Absolute tolerance on the 2-norm of f(z) - z of one item.
        rtol: Tolerance relative to ||f(z)||. Below a small multiple of the dtype's rounding it has no effect.
        max_steps: Largest number of steps (evaluations of f, but for solvers that say otherwise).
        check_every: Steps between two questions to the device whether all items are done; None means 1 on the CPU
            and 8 elsewhere.
    """

    atol: float = 1e-10
    rtol: float = 1e-10
    max_steps: int = 1000
    check_every: int | None = None

    def __post_init__(self) -> None:
        """Reject settings no solve could honour."""
        require_numbers(self, atol="[0, inf]", rtol="[0, inf]")
        require_counts(self, max_steps=1)
        if self.check_every is not None:
            require_counts(self, check_every=1)

    @abc.abstractmethod
    def init(self, f: Map, z: Tensor) -> Any:
        """The solver's memory before the first step; `z` has shape (batch, n)."""

    @abc.abstractmethod
    def propose(self, f: Map, memory: Any, point: Iterate, active: Tensor) -> tuple[Tensor, Any]:
        """The next iterate, shape (batch, n), and the new memory.

        Proposals for items outside `active` (bool, shape (batch,)) are discarded.
        """

    def evaluate(self, f: Map, memory: Any, z: Tensor) -> Tensor:
        """f(z) at a proposed point; a solver that has already computed it returns its own."""
        return f(z)

    def stride(self, device: torch.device) -> int:
        """Steps between two questions of the host to the device; at 1 the host may look at any time."""
        return self.check_every or (1 if device.type == "cpu" else 8)

    def run(
        self, f: Map | Callable[[Tensor], Tensor], z0: Tensor, fz0: Tensor | None = None, trace: bool = False
    ) -> FixedPointResult:
        """Iterate to a fixed point of `f` from `z0`, shape (batch, n), recording no derivatives.

        In half precision and under autocast only f computes in that precision; the iteration itself takes float32.

        Args:
            f: Map (batch, n) -> (batch, n); rows are independent items.
            z0: Start.
            fz0: f(z0), where the caller knows it.
            trace: Keep the residuals of all steps.

        Returns:
            The result, with batch shape (batch,).
        """
        if z0.ndim != 2:
            raise InvalidArgument(f"z0 must have shape (batch, n), got {tuple(z0.shape)}")
        eps, dtype = rounding(z0), z0.dtype
        with torch.no_grad():
            if eps <= torch.finfo(torch.float32).eps:
                return self._loop(cast(Map, f), z0, f(z0) if fz0 is None else fz0, eps, trace)
            raised = Raised(f, z0)
            z0 = z0.to(raised.working)
            with torch.autocast(z0.device.type, enabled=False):
                fz0 = raised(z0) if fz0 is None else fz0.to(raised.working)
                result = self._loop(raised, z0, fz0, eps, trace)
            return replace(result, value=result.value.to(dtype))

    def _loop(self, f: Map, z0: Tensor, fz0: Tensor, eps: float, trace: bool) -> FixedPointResult:
        batch, every = z0.shape[0], self.stride(z0.device)
        atol = z0.new_tensor(float(self.atol))
        point = best = self._measure(z0, fz0, atol, eps)
        # Comparisons with NaN are false, so non-finite items count as finished.
        active = point.residual > point.target
        iterations = torch.zeros(batch, dtype=torch.int32, device=z0.device)
        history = [point.residual]
        memory = self.init(f, z0)
        together = 0  # steps that every item took
        everyone = False  # the host knows that every item is active: the masks may be skipped
        for k in range(self.max_steps):
            if k % every == 0:
                count = int(active.sum())
                if count == 0:
                    break
                everyone = every == 1 and count == batch
            proposal, memory = self.propose(f, memory, point, active)
            if not everyone:
                proposal = torch.where(active[:, None], proposal, point.z)
            before, point = point, self._measure(proposal, self.evaluate(f, memory, proposal), atol, eps)
            if everyone:
                together += 1
            else:
                disturbed = _disturbed(point, before)
                active = active | disturbed
                best = best._replace(residual=best.residual.masked_fill(disturbed, torch.inf))
                point = _kept(active, point, before)
                iterations += active
            if every == 1:
                point = point._replace(growth=_growth(point.residual, before.residual, None if everyone else active))
            # Where no residual grows, no question is needed to know that the best iterate is the last.
            monotone = best is before and point.growth is not None and point.growth <= 1
            best = point if monotone else _better(best, point, every == 1)
            unfinished = point.residual > point.target
            active = unfinished if everyone else active & unfinished
            if trace:
                history.append(point.residual)
        return _result(best, iterations + together, torch.stack(history) if trace else None)

    def _measure(self, z: Tensor, fz: Tensor, atol: Tensor, eps: float) -> Iterate:
        g = fz - z
        size = torch.linalg.vector_norm(fz, dim=-1)
        # Residuals below a few roundings of f(z) cannot be told from zero.
        roundings = 8 * eps if eps <= torch.finfo(torch.float32).eps else 2 * eps
        if self.rtol == 0:
            target = torch.maximum(atol, size.mul_(roundings))
        elif self.rtol < roundings:
            target = torch.maximum(torch.add(atol, size, alpha=self.rtol), size * roundings)
        else:
            target = torch.add(atol, size, alpha=self.rtol)
        return Iterate(z, fz, g, torch.linalg.vector_norm(g, dim=-1), target)


def _result(best: Iterate, iterations: Tensor, trace: Tensor | None) -> FixedPointResult:
    status = torch.full_like(iterations, FixedPointStatus.MAX_STEPS, dtype=torch.int8)
    status.masked_fill_(best.residual <= best.target, int(FixedPointStatus.CONVERGED))
    last = best.residual if trace is None else trace[-1]
    status.masked_fill_(~(torch.isfinite(last) & torch.isfinite(best.residual)), int(FixedPointStatus.DIVERGED))
    return FixedPointResult(best.z, iterations, best.residual, status, trace)


def _growth(residual: Tensor, before: Tensor, active: Tensor | None) -> float:
    """The largest ratio of residuals among active items; NaN if one is."""
    ratio = residual / before
    return float((ratio if active is None else torch.where(active, ratio, 0.0)).max())


def _disturbed(new: Iterate, old: Iterate) -> Tensor:
    """Items whose residual grows well over the target though they stand still: f lets items depend on each other."""
    return (old.residual <= old.target) & (new.residual > 2 * new.target)


def _kept(active: Tensor, new: Iterate, old: Iterate) -> Iterate:
    """`new`, with the numbers of frozen items, whose z has not moved, kept even where f rounds differently."""
    residual = torch.where(active, new.residual, old.residual)
    return new._replace(residual=residual, target=torch.where(active, new.target, old.target))


def _better(best: Iterate, point: Iterate, host: bool) -> Iterate:
    """The iterate of smaller residual, item by item; accelerated iterations are not monotone."""
    smaller = point.residual <= best.residual
    if host and bool(smaller.all()):
        return point
    return best._replace(
        z=torch.where(smaller[:, None], point.z, best.z),
        residual=torch.where(smaller, point.residual, best.residual),
        target=torch.where(smaller, point.target, best.target),
    )

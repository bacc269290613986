"""Numerics of (I - J) t = rhs: any linear solver or fixed-point iteration, with the error measured.

Items of a batch are solved one by one, so to speak: each has its own Krylov space and its own convergence. That is
wrong if f couples them (batch normalization in training does). One product more tells: for independent items
J (s t) = s J t for every scaling s of the items, and with s of signs the same product measures every item's residual
anew. A batch that fails the test is solved again as a single system.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

from conelayers.errors import InaccurateWarning, UnsupportedError
from conelayers.fixed_points.iterations import FixedPointSolver, Picard
from conelayers.implicit.products import Tape
from conelayers.linalg.base import LinearSolver
from conelayers.linalg.krylov import KrylovSolver
from conelayers.linalg.neumann import NeumannGMRES
from conelayers.linalg.operators import IdentityMinus

__all__ = ["AdjointInfo", "Paired", "solve_resolvent"]


@dataclasses.dataclass
class AdjointInfo:
    """What the last derivative solve of one call measured; filled in when it runs.

    Attributes:
        solution: t with (I - J) t = rhs (J' in reverse mode), shape (*batch, n); a warm start for the next call.
        residual: ||rhs - (I - J) t|| of each item, shape (*batch,), measured on t.
        iterations: Iterations of each item, shape (*batch,).
        inverse_norm: ||(I - J)^-1|| in the 2-norm, shape (*batch,); only with `certify=True`.
        error_bound: residual * inverse_norm >= ||t - exact t||, shape (*batch,); only with `certify=True`.
        coupled: Whether items of the batch were found to depend on each other, and solved as one system.
    """

    solution: Tensor | None = None
    residual: Tensor | None = None
    iterations: Tensor | None = None
    inverse_norm: Tensor | None = None
    error_bound: Tensor | None = None
    coupled: bool = False


@dataclasses.dataclass(frozen=True)
class Paired:
    """Iterate (z, t) <- (f(z), rhs + J(z) t) from (z*, 0).

    Attributes:
        iteration: How.
    """

    iteration: Picard


class _Found(NamedTuple):
    solution: Tensor
    residual: Tensor
    iterations: Tensor


class _System(NamedTuple):
    """(I - J) t = rhs with the products of J and of its transpose on tensors (*rhs, *batch, n)."""

    tape: Tape
    transposed: bool

    def product(self, t: Tensor) -> Tensor:
        return self._times(self.transposed, t)

    def adjoint(self, t: Tensor) -> Tensor:
        return self._times(not self.transposed, t)

    def _times(self, transposed: bool, t: Tensor) -> Tensor:
        own = t.to(self.tape.value.dtype)
        return (self.tape.transposed_product(own) if transposed else self.tape.product(own)).to(t.dtype)

    def operator(self, rhs: Tensor, joint: bool) -> IdentityMinus:
        """I - J, with all items of the batch as one where `joint`; then vectors have shape (*rhs, items * n)."""
        if not joint:
            return IdentityMinus(self.product, self.adjoint, rhs.shape[-1], rhs.shape[:-1], rhs.dtype, rhs.device)
        shape, lead = self.tape.value.shape, rhs.shape[: rhs.dim() - self.tape.value.dim()]
        size = shape.numel()

        def product(t: Tensor) -> Tensor:
            return self.product(t.reshape(*t.shape[:-1], *shape)).reshape(t.shape)

        def adjoint(t: Tensor) -> Tensor:
            return self.adjoint(t.reshape(*t.shape[:-1], *shape)).reshape(t.shape)

        return IdentityMinus(product, adjoint, size, lead, rhs.dtype, rhs.device)


def solve_resolvent(
    tape: Tape,
    transposed: bool,
    solver: Any,
    rhs: Tensor,
    initial: Tensor | None = None,
    info: AdjointInfo | None = None,
    certify: bool = False,
) -> Tensor:
    """Solve (I - J) t = rhs, or with J' where `transposed`.

    Args:
        tape: f recorded at the fixed point, of shape (*batch, n).
        transposed: Use J'.
        solver: A `LinearSolver`; or a fixed-point solver, which iterates t <- rhs + J t; or `Paired`; or None for
            `NeumannGMRES()`.
        rhs: Shape (*rhs, *batch, n).
        initial: First guess, of the shape of `rhs`; ignored when its shape is another.
        info: Where to write what is measured.
        certify: Also compute ||(I - J)^-1|| by a dense decomposition (n products per item).

    Returns:
        t, of the shape of `rhs`.
    """
    system, given = _System(tape, transposed), rhs.dtype
    rhs = rhs.to(torch.promote_types(given, torch.float32))
    initial = None if initial is None or initial.shape != rhs.shape else initial.to(rhs.dtype)
    solver = _within_reach(solver, tape.eps)
    with torch.no_grad(), torch.autocast(rhs.device.type, enabled=False):
        found = _solve(system, solver, rhs, initial, False)
        coupled = False
        if tape.value.shape[:-1].numel() > 1 and not isinstance(solver, Paired):
            found, coupled = _checked(system, solver, rhs, found)
        if not isinstance(solver, Paired):
            _warn(found.residual, ~(found.residual <= max(1e-2, 8 * tape.eps) * torch.linalg.vector_norm(rhs, dim=-1)))
        if info is not None:
            info.solution, info.residual, info.iterations = found
            info.coupled = coupled
            if certify:
                matrix = system.operator(rhs, coupled).as_matrix()
                inverse_norm = torch.linalg.svdvals(matrix)[..., -1].reciprocal().expand(found.residual.shape)
                info.inverse_norm, info.error_bound = inverse_norm, found.residual * inverse_norm
    # An autograd function must not return its input as an output.
    return found.solution.to(given, copy=found.solution is rhs)


def _within_reach(solver: Any, eps: float) -> Any:
    """The solver, with a tolerance that products of low precision can meet; the default one for None."""
    if eps <= torch.finfo(torch.float32).eps:
        return NeumannGMRES() if solver is None else solver
    if solver is None:
        return NeumannGMRES(tolerance=2 * eps)
    return dataclasses.replace(solver, rtol=max(solver.rtol, 2 * eps)) if hasattr(solver, "rtol") else solver


def _solve(system: _System, solver: Any, rhs: Tensor, initial: Tensor | None, joint: bool) -> _Found:
    if isinstance(solver, Paired):
        return _iterate_pair(system, solver, rhs)
    if joint:
        shape, lead = rhs.shape, rhs.shape[: rhs.dim() - system.tape.value.dim()]
        rhs = rhs.reshape(*lead, -1)
        initial = None if initial is None else initial.reshape(rhs.shape)
        operator = system.operator(rhs.reshape(shape), True)
    else:
        operator = system.operator(rhs, False)
    if isinstance(solver, LinearSolver):
        return _solve_linear(solver, operator, rhs, initial)
    return _iterate(solver, operator.complement, rhs, initial)


def _solve_linear(solver: Any, operator: IdentityMinus, rhs: Tensor, initial: Tensor | None) -> _Found:
    state = solver.init(operator)
    if isinstance(solver, KrylovSolver | NeumannGMRES):
        solution, info = solver.solve(state, rhs, initial)
    else:  # a direct method has no use for a first guess
        solution, info = solver.solve(state, rhs)
    return _Found(solution, info.residual * torch.linalg.vector_norm(rhs, dim=-1), info.iterations)


def _iterate(solver: FixedPointSolver, product: Any, rhs: Tensor, initial: Tensor | None) -> _Found:
    start = (rhs if initial is None else initial).reshape(rhs.shape[:-1].numel(), rhs.shape[-1])

    def step(t: Tensor) -> Tensor:
        return (rhs + product(t.reshape(rhs.shape))).reshape(t.shape)

    result = solver.run(step, start)
    batch = rhs.shape[:-1]
    return _Found(result.value.reshape(rhs.shape), result.residual.reshape(batch), result.iterations.reshape(batch))


def _checked(system: _System, solver: Any, rhs: Tensor, found: _Found) -> tuple[_Found, bool]:
    """The same solution with its residual measured, or that of the joint system where items depend on each other."""
    t = found.solution
    items = system.tape.value.shape[:-1]
    signs = (1 - 2 * (torch.arange(items.numel(), device=rhs.device) % 2)).to(rhs.dtype).reshape(*items, 1)
    residual = torch.linalg.vector_norm(rhs + signs * system.product(signs * t) - t, dim=-1)
    size = torch.linalg.vector_norm(rhs, dim=-1)
    slack = system.tape.eps**0.5 * size
    doubtful = residual > 10 * found.residual + slack
    if not bool((doubtful | (found.residual > 1e-2 * size)).any()):
        return found._replace(residual=residual), False
    true = torch.linalg.vector_norm(rhs + system.product(t) - t, dim=-1)
    if not bool(((residual - true).abs() > 0.1 * true + slack).any()):
        return found._replace(residual=true), False
    usable = torch.isfinite(t).all()
    joint = _solve(system, solver, rhs, torch.where(usable, t, 0.0), True)
    t = joint.solution.reshape(rhs.shape)
    true = torch.linalg.vector_norm(rhs + system.product(t) - t, dim=-1)
    iterations = joint.iterations.reshape(*joint.iterations.shape, *(1,) * len(items)).expand(true.shape)
    return _Found(t, true, iterations), True


def _iterate_pair(system: _System, solver: Paired, rhs: Tensor) -> _Found:
    """See `Paired`; several right-hand sides of one system are iterated one after another."""
    z, n = system.tape.z.detach(), rhs.shape[-1]
    if rhs.dim() > z.dim():
        parts = [_iterate_pair(system, solver, r) for r in rhs]
        if not parts:
            return _Found(rhs, rhs[..., 0], rhs[..., 0].to(torch.int64))
        return _Found(*(torch.stack(part) for part in zip(*parts, strict=True)))
    _require_unchanged(system.tape)
    batch = z.shape[:-1]

    def pair(w: Tensor) -> Tensor:
        w = w.reshape(*batch, 2 * n)
        z, t = w[..., :n], w[..., n:]
        local = _System(Tape(system.tape.function, z, ()), system.transposed)
        return torch.cat([local.tape.value.detach(), rhs + local.product(t)], dim=-1).reshape(batch.numel(), 2 * n)

    result = solver.iteration.run(pair, torch.cat([z, torch.zeros_like(z)], dim=-1).reshape(batch.numel(), 2 * n))
    _warn(result.residual, ~result.converged)
    value = result.value.reshape(*batch, 2 * n)[..., n:].clone()
    return _Found(value, result.residual.reshape(batch), result.iterations.reshape(batch))


def _require_unchanged(tape: Tape) -> None:
    """Compare f, which is about to be called again, with what it was.

    Raises:
        UnsupportedError: It gives other values now.
    """
    with torch.no_grad():
        now, then = tape.function(tape.z.detach()), tape.value.detach()
        change = torch.linalg.vector_norm(now - then)
        if not bool(change <= tape.eps**0.75 * (1 + torch.linalg.vector_norm(then))):
            raise UnsupportedError(
                "this derivative calls f again, and f has changed since the fixed point was found (values at it differ "
                f"by {float(change):.1e}): call backward() before changing what f uses, pass changing tensors in "
                "`params`, or take ImplicitAdjoint() outside of torch.func transforms, which does not call f again."
            )


def _warn(residual: Tensor, failed: Tensor) -> None:
    """Say so when a derivative is wrong by more than rounding or a loose tolerance explains."""
    if bool(failed.any()):
        warnings.warn(
            f"the linear solve of a fixed point's derivative failed for {int(failed.sum())} of {failed.numel()} items "
            f"(largest residual {float(residual.max()):.1e}): I - df/dz may be singular there.",
            InaccurateWarning,
            stacklevel=2,
        )

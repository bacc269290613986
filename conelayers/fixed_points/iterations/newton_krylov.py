"""Inexact (semismooth) Newton iteration with GMRES."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.fixed_points.iterations.base import FixedPointSolver, Iterate
from conelayers.fixed_points.iterations.map import Map
from conelayers.implicit.products import Tape
from conelayers.linalg import GMRES, IdentityMinus
from conelayers.settings import require_counts, require_numbers

__all__ = ["NewtonKrylov"]


@dataclass
class _Memory:
    """What one step hands to the next."""

    previous: Tensor | None = None  # residual norms of the step before, shape: (batch,)
    fz: Tensor | None = None  # f at the proposal, found by the line search


@dataclass(frozen=True)
class NewtonKrylov(FixedPointSolver):
    """z <- z + s d with (I - J) d = f(z) - z solved by GMRES to a forcing tolerance, and s by halving, item by item.

    J is what autograd's formulas give, an element of the Clarke Jacobian where f is not differentiable: then this
    is the semismooth Newton method (Qi & Sun 1993). The forcing tolerance is that of Eisenstat & Walker (1996,
    choice 2), so convergence is superlinear without solving early systems exactly. f is recorded once per step,
    whatever GMRES needs.

    Attributes:
        max_steps: Largest number of Newton steps.
        krylov_steps: GMRES iterations per Newton step at most.
        forcing: Loosest relative tolerance of the linear solves.
        halvings: Step halvings tried before the shortest step is taken.
    """

    max_steps: int = 100
    krylov_steps: int = 200
    forcing: float = 0.1
    halvings: int = 6

    def __post_init__(self) -> None:
        """Reject settings outside their ranges."""
        super().__post_init__()
        require_counts(self, krylov_steps=1, halvings=0)
        require_numbers(self, forcing="(0, 1)")

    def init(self, f: Map, z: Tensor) -> _Memory:
        """Nothing is known yet."""
        return _Memory()

    def propose(self, f: Map, memory: _Memory, point: Iterate, active: Tensor) -> tuple[Tensor, _Memory]:
        """One damped Newton step."""
        tape = Tape(f, point.z, ())
        batch, n = point.z.shape
        operator = IdentityMinus(
            tape.product, tape.transposed_product, n, torch.Size([batch]), point.z.dtype, point.z.device
        )
        gmres = GMRES(
            tolerance=self._forcing(memory.previous, point.residual),
            max_iterations=self.krylov_steps,
            check_every=self.stride(point.z.device),
        )
        rhs = torch.where(active[:, None], point.fz - point.z, 0.0)
        direction, _ = gmres.solve(gmres.init(operator), rhs)
        z, fz = self._search(f, point, direction, active)
        return z, _Memory(point.residual, fz)

    def evaluate(self, f: Map, memory: _Memory, z: Tensor) -> Tensor:
        """F at the accepted point, from the line search."""
        assert memory.fz is not None
        return memory.fz

    def _forcing(self, previous: Tensor | None, residual: Tensor) -> Tensor:
        """Relative tolerance of each item's linear solve, shape (batch, 1)."""
        if previous is None:
            return torch.full_like(residual, self.forcing)[:, None]
        # The square of the last reduction, but no more than two digits beyond the roundings of the residual.
        least = min(1e3 * torch.finfo(residual.dtype).eps, self.forcing)
        return (residual / previous).square().mul(0.9).clamp(least, self.forcing)[:, None]

    def _search(self, f: Map, point: Iterate, direction: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the step of every item whose residual does not fall."""
        scale = torch.ones_like(point.residual)
        for halving in range(self.halvings + 1):
            z = torch.where(active[:, None], point.z + scale[:, None] * direction, point.z)
            fz = f(z)
            residual = torch.linalg.vector_norm(fz - z, dim=-1)
            short = active & ~(residual <= (1 - 1e-4 * scale) * point.residual)
            # The first step length is looked at on every device: as a rule it is the last.
            looks = halving == 0 or self.stride(z.device) == 1
            if halving == self.halvings or (looks and not bool(short.any())):
                break
            scale = torch.where(short, scale / 2, scale)
        return z, fz

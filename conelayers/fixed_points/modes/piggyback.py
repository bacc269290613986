"""Derivatives iterated together with the iterates."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from conelayers.fixed_points.modes.one_step import contraction
from conelayers.implicit.function import implicit
from conelayers.implicit.mode import Derivative
from conelayers.settings import require_counts, require_numbers

__all__ = ["Piggyback"]


@dataclasses.dataclass(frozen=True)
class Piggyback(Derivative):
    """Iterate (z, t) <- (f(z), r + J(z) t) from (z*, 0), with J(z)' in reverse mode.

    Each step takes a Clarke element at the current iterate, so the limit is an element of the conservative Jacobian
    that the nonsmooth iteration itself converges to (Bolte, Pauwels & Vaiter 2022, Automatic differentiation of
    nonsmooth iterative algorithms), for contractions f; z is refined on the way. The pair is a fixed point like any
    other, so its own derivatives are piggyback iterations again.

    Attributes:
        atol: Absolute tolerance on one step of the pair, 2-norm per item.
        rtol: Tolerance relative to the pair.
        max_steps: Largest number of steps.
        check_every: Steps between two questions to the device; None means 1 on the CPU and 8 elsewhere.
    """

    atol: float = 1e-12
    rtol: float = 1e-10
    max_steps: int = 10_000
    check_every: int | None = None

    def __post_init__(self) -> None:
        require_numbers(self, atol="[0, inf]", rtol="[0, inf]")
        require_counts(self, max_steps=1)

    def solve(self, linearization: Any, rhs: Tensor) -> Tensor:
        """The second half of the pair's fixed point."""
        lin = contraction(linearization, "Piggyback")
        equation, start = lin.paired(rhs, self, self)
        pair = implicit(equation, start, rhs, *lin.theta)[0]
        return pair[..., rhs.shape[-1] :].clone()  # forward mode takes no views as tangents

    def run(self, f: Any, z0: Tensor, fz0: Tensor | None = None, trace: bool = False) -> SimpleNamespace:
        """Plain iteration of the pair, every item until it stands still."""
        z = z0
        floor = max(self.rtol, 8 * torch.finfo(z0.dtype).eps)
        active = torch.ones(z0.shape[0], dtype=torch.bool, device=z0.device)
        iterations = torch.zeros(z0.shape[0], dtype=torch.int32, device=z0.device)
        residual = torch.full_like(z0[:, 0], torch.inf)
        every = self.check_every or (1 if z0.device.type == "cpu" else 8)
        for step in range(self.max_steps):
            if step % every == 0 and not bool(active.any()):
                break
            new = torch.where(active[:, None], f(z), z)
            residual = torch.where(active, torch.linalg.vector_norm(new - z, dim=-1), residual)
            iterations += active
            active = active & (residual > self.atol + floor * torch.linalg.vector_norm(new, dim=-1))
            z = new
        return SimpleNamespace(
            value=z, iterations=iterations, residual=residual, status=active.to(torch.int8), trace=residual[None]
        )

"""Anderson acceleration, every batch item with its own mixing coefficients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.iterations.base import FixedPointSolver, Iterate, Map

__all__ = ["Anderson"]


@dataclass
class _Memory:
    """Rings of the last differences, scaled; slot j of both rings belongs to the same step."""

    residuals: Tensor  # differences of g = f(z) - z, of unit length or zero, shape: (batch, m, n)
    steps: Tensor  # differences of z + mixing g, scaled alike, shape: (batch, m, n)
    gram: Tensor  # inner products of `residuals` plus the ridge, shape: (batch, m, m)
    best: Tensor  # smallest residual norm so far, shape: (batch,)
    ridge: float
    last: tuple[Tensor, Tensor, Tensor] | None = None  # g, z + mixing g and ||g|| of the step before
    accelerating: bool = False
    count: int = 0


@dataclass(frozen=True)
class Anderson(FixedPointSolver):
    """Anderson acceleration of type II in difference form, with restarts.

    With g = f(z) - z and the last m differences dG of g and dZ of z, the next iterate is

        z + beta g - (dZ + beta dG) gamma,     gamma = argmin ||g - dG gamma||^2,

    (Walker & Ni 2011). The least-squares problem is solved through its Gram matrix, of which each step computes one
    row; the differences are stored at unit length, so that the small ridge is relative to the residuals however
    small they are. For linear f it is GMRES in disguise: cells that need hundreds of Picard steps need tens of
    these. An item whose residual exceeds `restart` times its best so far forgets its history and takes a plain step.

    Attributes:
        memory: Number m of differences kept.
        mixing: The weight beta of the residual, in (0, 1].
        ridge: Tikhonov weight on the Gram matrix of unit vectors; None for the size of its rounding errors.
        restart: Growth of the residual over its best at which an item starts afresh.
        plain_below: On the CPU, where the host sees the residuals at no cost, steps stay plain as long as every item's
            residual shrinks by at least this factor per step: mixing cannot pay there. 0 mixes from the start.
    """

    memory: int = 10
    mixing: float = 1.0
    ridge: float | None = None
    restart: float = 1e3
    plain_below: float = 0.35

    def __post_init__(self) -> None:
        """Reject settings outside their ranges."""
        super().__post_init__()
        if self.memory < 1 or not 0 < self.mixing <= 1 or self.restart <= 1 or not 0 <= self.plain_below < 1:
            raise InvalidArgument(
                "Anderson: memory must be >= 1, mixing in (0, 1], restart > 1 and plain_below in [0, 1), got "
                f"memory={self.memory}, mixing={self.mixing}, restart={self.restart}, plain_below={self.plain_below}"
            )
        if self.ridge is not None and self.ridge < 0:
            raise InvalidArgument(f"ridge must be >= 0 or None, got {self.ridge}")

    def init(self, f: Map, z: Tensor) -> _Memory:
        """Empty rings."""
        batch, n = z.shape
        m = min(self.memory, max(n, 1))
        ridge = self.ridge
        if ridge is None:
            ridge = torch.finfo(z.dtype).eps * (64 + 4 * n**0.5)
        gram = torch.eye(m, dtype=z.dtype, device=z.device).mul_(1 + ridge).repeat(batch, 1, 1)
        best = z.new_full((batch,), torch.inf)
        return _Memory(z.new_zeros(batch, m, n), z.new_zeros(batch, m, n), gram, best, ridge)

    def propose(self, f: Map, memory: _Memory, point: Iterate, active: Tensor) -> tuple[Tensor, _Memory]:
        """Mix the history; the first step is a plain one."""
        g = point.fz - point.z
        mixed = point.fz if self.mixing == 1 else torch.lerp(point.z, point.fz, self.mixing)
        last, memory.last = memory.last, (g, mixed, point.residual)
        if last is None:
            return mixed, memory
        if not memory.accelerating:
            memory.accelerating = not self._contracts(point.residual, last[2], active)
            if not memory.accelerating:
                return mixed, memory
        self._restart(memory, point.residual)
        products = self._append(memory, g, g - last[0], mixed - last[1])
        used = products.shape[-1]
        factor, info = torch.linalg.cholesky_ex(memory.gram[:, :used, :used])
        gamma = torch.cholesky_solve(products[:, :, None], factor)[..., 0]
        gamma = gamma.masked_fill((info != 0)[:, None], 0.0)
        return mixed - torch.bmm(gamma[:, None], memory.steps[:, :used])[:, 0], memory

    def _contracts(self, residual: Tensor, previous: Tensor, active: Tensor) -> bool:
        if residual.device.type != "cpu" or self.plain_below == 0:
            return False
        return bool(((residual <= self.plain_below * previous) | ~active).all())

    def _restart(self, memory: _Memory, residual: Tensor) -> None:
        """Empty the rings of items whose residual has grown too far."""
        fresh = residual > self.restart * memory.best
        memory.best = torch.minimum(memory.best, residual)
        if residual.device.type == "cpu" and not bool(fresh.any()):
            return
        keep = (~fresh)[:, None, None]
        memory.residuals.mul_(keep)
        memory.steps.mul_(keep)
        # Empty slots have the rows of the identity.
        empty = torch.eye(memory.gram.shape[-1], dtype=residual.dtype, device=residual.device) * (1 + memory.ridge)
        memory.gram = torch.where(keep, memory.gram, empty)

    def _append(self, memory: _Memory, g: Tensor, difference: Tensor, step: Tensor) -> Tensor:
        """Enter a difference; returns the inner products of the residual ring with g, shape (batch, used)."""
        slot = memory.count % memory.gram.shape[-1]
        memory.count += 1
        used = min(memory.count, memory.gram.shape[-1])
        length = torch.linalg.vector_norm(difference, dim=-1, keepdim=True)
        scale = torch.where(length > 0, length, torch.inf).reciprocal_()  # a vanished difference is entered as zero
        unit = torch.mul(difference, scale)
        memory.residuals[:, slot] = unit
        torch.mul(step, scale, out=memory.steps[:, slot])
        # shape: (batch, 2, used); the ring is read once for the new row of the Gram matrix and the right-hand side, and
        # rows times a matrix run three times faster than a matrix times columns.
        products = torch.stack([unit, g], dim=1) @ memory.residuals[:, :used].mT
        memory.gram[:, slot, :used] = products[:, 0]
        memory.gram[:, :used, slot] = products[:, 0]
        memory.gram[:, slot, slot] = 1 + memory.ridge
        return products[:, 1]

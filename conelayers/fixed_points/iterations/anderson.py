"""Anderson acceleration, every batch item with its own mixing coefficients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.fixed_points.iterations.base import FixedPointSolver, Iterate
from conelayers.fixed_points.iterations.map import Map
from conelayers.settings import require_counts, require_numbers

__all__ = ["Anderson"]


class _Rings:
    """The last m differences of every item, and the inner products of those of the residual.

    Slot j of both rings belongs to the same step. Rows are stored so that every product is rows times a matrix, which
    runs ten times faster on a CPU than a batch of matrices times single columns.
    """

    def __init__(self, like: Tensor, m: int, ridge: float) -> None:
        batch, n = like.shape
        self.residuals = like.new_empty(batch, m, n)  # differences of g, of unit length or zero
        self.steps = like.new_empty(batch, m, n)  # differences of z + mixing g, scaled alike
        self.pair = like.new_empty(batch, 2, n)
        self.empty = torch.eye(m, dtype=like.dtype, device=like.device).mul_(1 + ridge)
        self.gram = self.empty.repeat(batch, 1, 1)  # products of `residuals` plus the ridge, shape: (batch, m, m)
        self.diagonal = 1 + ridge
        self.count = 0

    def forget(self, fresh: Tensor) -> None:
        """Empty the slots of some items."""
        keep = ~fresh[:, None, None]
        used = min(self.count, len(self.empty))
        for ring in (self.residuals, self.steps):
            ring[:, :used] = torch.where(keep, ring[:, :used], 0.0)
        self.gram = torch.where(keep, self.gram, self.empty)

    def append(self, g: Tensor, previous_g: Tensor, mixed: Tensor, previous_mixed: Tensor) -> None:
        """Enter the differences of a step in place of the oldest ones."""
        slot = self.count % len(self.empty)
        self.count += 1
        unit = torch.sub(g, previous_g, out=self.residuals[:, slot])
        length = torch.linalg.vector_norm(unit, dim=-1, keepdim=True)
        scale = length.masked_fill_(length == 0, torch.inf).reciprocal_()  # a vanished difference is entered as zero
        unit.mul_(scale)
        torch.sub(mixed, previous_mixed, out=self.steps[:, slot]).mul_(scale)
        # The ring is read once for the new row of the Gram matrix and for the right-hand side.
        self.pair[:, 0], self.pair[:, 1] = unit, g
        used = min(self.count, len(self.empty))
        products = self.pair @ self.residuals[:, :used].mT  # shape: (batch, 2, used)
        self.gram[:, slot, :used] = self.gram[:, :used, slot] = products[:, 0]
        self.gram[:, slot, slot] = self.diagonal
        self.products = products[:, 1]

    def combination(self) -> Tensor:
        """Coefficients gamma of the last g in the differences, a row per item, shape (batch, 1, used)."""
        used = self.products.shape[-1]
        factor, info = torch.linalg.cholesky_ex(self.gram[:, :used, :used])
        gamma = torch.cholesky_solve(self.products[:, :, None], factor).mT
        return gamma.masked_fill((info != 0)[:, None, None], 0.0)


@dataclass
class _Memory:
    """What one step hands to the next."""

    best: Tensor  # smallest residual norm so far, shape: (batch,)
    ridge: float
    rings: _Rings | None = None  # made when mixing begins
    last: tuple[Tensor, Tensor] | None = None  # g and z + mixing g of the step before


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
        plain_below: Where the host looks at every step (`check_every` is 1, as by default on the CPU), steps stay plain
            as long as every item's residual shrinks by at least this factor per step: mixing cannot pay there. 0 mixes
            from the start.
    """

    memory: int = 10
    mixing: float = 1.0
    ridge: float | None = None
    restart: float = 1e3
    plain_below: float = 0.35

    def __post_init__(self) -> None:
        """Reject settings outside their ranges."""
        super().__post_init__()
        require_counts(self, memory=1)
        require_numbers(self, mixing="(0, 1]", restart="(1, inf]", plain_below="[0, 1)")
        if self.ridge is not None:
            require_numbers(self, ridge="[0, inf)")

    def init(self, f: Map, z: Tensor) -> _Memory:
        """No history."""
        ridge = self.ridge
        if ridge is None:
            ridge = torch.finfo(z.dtype).eps * (64 + 4 * z.shape[-1] ** 0.5)
        return _Memory(z.new_full(z.shape[:1], torch.inf), ridge)

    def propose(self, f: Map, memory: _Memory, point: Iterate, active: Tensor) -> tuple[Tensor, _Memory]:
        """Mix the history; the first step is a plain one."""
        mixed = point.fz if self.mixing == 1 else torch.lerp(point.z, point.fz, self.mixing)
        last, memory.last = memory.last, (point.g, mixed)
        contracts = point.growth is not None and point.growth <= self.plain_below
        if last is None or (memory.rings is None and contracts):
            return mixed, memory
        if memory.rings is None:
            memory.rings = _Rings(mixed, min(self.memory, max(mixed.shape[-1], 1)), memory.ridge)
        fresh = point.residual > self.restart * memory.best
        memory.best = torch.minimum(memory.best, point.residual)
        if point.growth is None or bool(fresh.any()):
            memory.rings.forget(fresh)
        memory.rings.append(point.g, last[0], mixed, last[1])
        gamma = memory.rings.combination()
        used = gamma.shape[-1]
        return torch.baddbmm(mixed[:, None], gamma, memory.rings.steps[:, :used], alpha=-1)[:, 0], memory

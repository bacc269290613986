"""Limited-memory Broyden iteration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.fixed_points.iterations.base import FixedPointSolver, Iterate
from conelayers.fixed_points.iterations.map import Map
from conelayers.settings import require_counts, require_numbers

__all__ = ["Broyden"]


@dataclass
class _Memory:
    """Inverse Jacobian of F(z) = z - f(z) as I + sum_j u_j v_j', j < count."""

    u: Tensor  # shape: (batch, m, n)
    v: Tensor  # shape: (batch, m, n)
    best: Tensor  # smallest residual norm so far, shape: (batch,)
    last: tuple[Tensor, Tensor] | None  # z and g = f(z) - z of the step before
    count: int


@dataclass(frozen=True)
class Broyden(FixedPointSolver):
    """Broyden's good method on F(z) = z - f(z), started at the identity, with at most `memory` rank-one terms.

    With s = z_k - z_{k-1}, y = F(z_k) - F(z_{k-1}) and H the inverse Jacobian so far, the update is (Sherman-Morrison)

        H <- H + (s - H y) (s'H) / (s'H y),

    left out for an item whose denominator vanishes. When the memory is full all items start afresh from the
    identity; an item whose residual exceeds `restart` times its best does so alone.

    Attributes:
        memory: Number of rank-one terms kept.
        restart: Growth of the residual over its best at which an item starts afresh.
    """

    memory: int = 30
    restart: float = 1e3

    def __post_init__(self) -> None:
        """Reject settings outside their ranges."""
        super().__post_init__()
        require_counts(self, memory=1)
        require_numbers(self, restart="(1, inf]")

    def init(self, f: Map, z: Tensor) -> _Memory:
        """No terms yet."""
        batch, n = z.shape
        shape = (batch, self.memory, n)
        return _Memory(z.new_zeros(shape), z.new_zeros(shape), z.new_full((batch,), torch.inf), None, 0)

    def propose(self, f: Map, memory: _Memory, point: Iterate, active: Tensor) -> tuple[Tensor, _Memory]:
        """Update the inverse Jacobian by the last step and take a quasi-Newton step."""
        g = point.fz - point.z
        last, memory.last = memory.last, (point.z, g)
        fresh = point.residual > self.restart * memory.best
        memory.best = torch.minimum(memory.best, point.residual)
        if last is None:
            return point.fz, memory
        if memory.count == self.memory:
            memory.count = 0
        s, y = point.z - last[0], last[1] - g
        k = memory.count
        u, v = memory.u[:, :k], memory.v[:, :k]
        # H y and H g share one pass over v and one over u.
        pair = torch.stack([y, g], dim=1)  # shape: (batch, 2, n)
        hy, hg = (pair + (pair @ v.mT) @ u).unbind(1)
        sh = s + ((s[:, None] @ u.mT) @ v)[:, 0]
        denominator = (sh * y).sum(-1, keepdim=True)
        size = torch.linalg.vector_norm(sh, dim=-1, keepdim=True) * torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        usable = (denominator.abs() > 1e3 * torch.finfo(s.dtype).eps * size) & ~fresh[:, None]
        new_u = torch.where(usable, (s - hy) / torch.where(usable, denominator, 1.0), 0.0)
        new_v = torch.where(usable, sh, 0.0)
        memory.u[:, k], memory.v[:, k] = new_u, new_v
        memory.u[:, : k + 1].mul_((~fresh)[:, None, None])
        memory.count += 1
        # (H + u v')g from what is known
        step = torch.where(fresh[:, None], g, hg + new_u * (new_v * g).sum(-1, keepdim=True))
        return point.z + step, memory

"""Anderson acceleration, every batch item with its own mixing coefficients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.iterations.base import FixedPointSolver, Iterate, Map

__all__ = ["Anderson"]


@dataclass
class _Memory:
    """Rings of the last differences; slot j of both rings belongs to the same step."""

    residuals: Tensor  # differences of g = f(z) - z, shape: (batch, m, n)
    steps: Tensor  # differences of z + mixing g, shape: (batch, m, n)
    gram: Tensor  # inner products of `residuals`, shape: (batch, m, m)
    valid: Tensor  # slots an item may use, shape: (batch, m)
    best: Tensor  # smallest residual norm so far, shape: (batch,)
    last: tuple[Tensor, Tensor] | None  # g and z + mixing g of the step before
    count: int


@dataclass(frozen=True)
class Anderson(FixedPointSolver):
    """Anderson acceleration of type II in difference form, with restarts.

    With g = f(z) - z and the last m differences dG of g and dZ of z, the next iterate is

        z + beta g - (dZ + beta dG) gamma,     gamma = argmin ||g - dG gamma||^2,

    (Walker & Ni 2011). The least-squares problem is solved through its Gram matrix, of which each step computes one row,
    scaled to unit diagonal so that the small ridge is relative to the residuals however small they are. For linear f it
    is GMRES in disguise: cells that need hundreds of Picard steps need tens of these. An item whose residual exceeds
    `restart` times its best so far forgets its history and takes a plain step.

    Attributes:
        memory: Number m of differences kept.
        mixing: The weight beta of the residual, in (0, 1].
        ridge: Tikhonov weight relative to the unit diagonal of the scaled Gram matrix; None for 64 machine epsilons.
        restart: Growth of the residual over its best at which an item starts afresh.
    """

    memory: int = 10
    mixing: float = 1.0
    ridge: float | None = None
    restart: float = 1e3

    def __post_init__(self) -> None:
        """Reject settings outside their ranges."""
        super().__post_init__()
        if self.memory < 1 or not 0 < self.mixing <= 1 or self.restart <= 1:
            raise InvalidArgument(
                "Anderson: memory must be >= 1, mixing in (0, 1] and restart > 1, got "
                f"memory={self.memory}, mixing={self.mixing}, restart={self.restart}"
            )
        if self.ridge is not None and self.ridge < 0:
            raise InvalidArgument(f"ridge must be >= 0 or None, got {self.ridge}")

    def init(self, f: Map, z: Tensor) -> _Memory:
        """Empty rings."""
        batch, n = z.shape
        m = min(self.memory, max(n, 1))
        return _Memory(
            residuals=z.new_zeros(batch, m, n),
            steps=z.new_zeros(batch, m, n),
            gram=z.new_zeros(batch, m, m),
            valid=torch.zeros(batch, m, dtype=torch.bool, device=z.device),
            best=z.new_full((batch,), torch.inf),
            last=None,
            count=0,
        )

    def propose(self, f: Map, memory: _Memory, point: Iterate, active: Tensor) -> tuple[Tensor, _Memory]:
        """Mix the history; the first step is a plain one."""
        g = point.fz - point.z
        mixed = point.fz if self.mixing == 1 else torch.lerp(point.z, point.fz, self.mixing)
        last, memory.last = memory.last, (g, mixed)
        fresh = point.residual > self.restart * memory.best
        memory.best = torch.minimum(memory.best, point.residual)
        if last is None:
            return mixed, memory
        m = memory.valid.shape[1]
        slot = memory.count % m
        memory.count += 1
        used = min(memory.count, m)
        difference = g - last[0]
        memory.residuals[:, slot] = difference
        memory.steps[:, slot] = mixed - last[1]
        memory.valid[:, slot] = True
        memory.valid &= ~fresh[:, None]
        # shape: (batch, used, 2); the ring is read once for the new row of the Gram matrix and the right-hand side
        products = memory.residuals[:, :used] @ torch.stack([difference, g], dim=-1)
        memory.gram[:, slot, :used] = products[..., 0]
        memory.gram[:, :used, slot] = products[..., 0]
        gamma = self._coefficients(memory.gram[:, :used, :used], products[..., 1], memory.valid[:, :used])
        correction = torch.bmm(gamma[:, None], memory.steps[:, :used])[:, 0]
        return mixed - correction, memory

    def _coefficients(self, gram: Tensor, rhs: Tensor, valid: Tensor) -> Tensor:
        """Solve the scaled, ridged normal equations; slots without a usable difference get the coefficient 0."""
        square = gram.diagonal(dim1=-2, dim2=-1)
        usable = valid & (square > 0) & torch.isfinite(square)
        scale = torch.where(usable, square, torch.ones_like(square)).rsqrt() * usable
        ridge = 64 * torch.finfo(gram.dtype).eps if self.ridge is None else self.ridge
        matrix = torch.nan_to_num(gram * scale[:, :, None] * scale[:, None, :])
        # Unusable slots have a zero row and column; their diagonal is filled so that the matrix is definite.
        matrix.diagonal(dim1=-2, dim2=-1).add_(ridge + (~usable).to(gram.dtype))
        factor, info = torch.linalg.cholesky_ex(matrix)
        solution = torch.cholesky_solve((rhs * scale)[..., None], factor)[..., 0] * scale
        good = (info == 0) & torch.isfinite(solution).all(-1)
        return torch.where(good[:, None], solution, torch.zeros_like(solution))

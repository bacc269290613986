"""Damped Picard iteration."""

from dataclasses import dataclass

import torch
from torch import Tensor

from conelayers.fixed_points.iterations.base import FixedPointSolver, Iterate
from conelayers.fixed_points.iterations.map import Map
from conelayers.settings import require_numbers

__all__ = ["Picard"]


@dataclass(frozen=True)
class Picard(FixedPointSolver):
    """z <- (1 - damping) z + damping f(z).

    Converges for every contraction (damping 1) and, with damping in (0, 1), for every nonexpansive map that has a fixed
    point (Krasnoselskii-Mann).

    Attributes:
        damping: Weight of f(z), in (0, 1].
    """

    damping: float = 1.0

    def __post_init__(self) -> None:
        """Reject a damping outside (0, 1]."""
        super().__post_init__()
        require_numbers(self, damping="(0, 1]")

    def init(self, f: Map, z: Tensor) -> None:
        """Nothing is remembered."""

    def propose(self, f: Map, memory: None, point: Iterate, active: Tensor) -> tuple[Tensor, None]:
        """The averaged point."""
        return self.average(point.z, point.fz), None

    def average(self, z: Tensor, fz: Tensor) -> Tensor:
        """(1 - damping) z + damping f(z)."""
        return fz if self.damping == 1 else torch.lerp(z, fz, self.damping)

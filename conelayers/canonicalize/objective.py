"""How the optimal value of the user's problem follows from that of the cone programme."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.canonicalize.part_map import PartMap

__all__ = ["Objective"]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """The objective of the problem, as the user wrote it: sign (cone objective + constant), or exp of that.

    Attributes:
        constant: What no variable enters, an affine map from the parameters to one number.
        sign: 1 where the problem minimises, -1 where it maximises.
        exponentiate: Whether exp follows: geometric programmes.
    """

    constant: PartMap
    sign: float = 1.0
    exponentiate: bool = False

    def of(self, optimum: Tensor, constant: Tensor) -> Tensor:
        """The problem's value.

        Args:
            optimum: 1/2 x'Px + q'x, shape (*batch,).
            constant: The value of `constant`, shape (*batch,).
        """
        found = (optimum + constant) * self.sign
        return found.exp() if self.exponentiate else found

    def unattained(self, feasible: Tensor) -> Tensor:
        """The value by convention of problems that are unbounded (where `feasible`) or infeasible; shape (*batch,)."""
        best = -torch.inf if self.sign > 0 else torch.inf
        worst = -best
        if self.exponentiate:
            best, worst = max(best, 0.0), max(worst, 0.0)
        return torch.where(feasible, best, worst)

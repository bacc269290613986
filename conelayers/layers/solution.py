"""What `layer.solve` returns: the variables, the cone solution behind them, and how good they are."""

from __future__ import annotations

import dataclasses

import numpy as np
from torch import Tensor

from conelayers.program import ConeSolution, Status

__all__ = ["LayerSolution"]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerSolution:
    """Solution of a batch of problems.

    Attributes:
        variables: The requested variables, as `forward` returns them, connected for differentiation.
        cone: The solution (x, y, s) of the cone programmes, float64, connected for differentiation.
    """

    variables: tuple[Tensor, ...]
    cone: ConeSolution

    @property
    def status(self) -> Status | np.ndarray:
        """`Status` of each batch item: a member without batch axes, else an object array of members."""
        return self.cone.status

    @property
    def iterations(self) -> Tensor:
        """Iterations of the backend, shape (*batch,)."""
        return self.cone.iterations

    @property
    def primal_residual(self) -> Tensor:
        """Relative primal residual, shape (*batch,)."""
        return self.cone.primal_residual

    @property
    def dual_residual(self) -> Tensor:
        """Relative dual residual, shape (*batch,)."""
        return self.cone.dual_residual

    @property
    def gap(self) -> Tensor:
        """Relative duality gap, shape (*batch,)."""
        return self.cone.gap

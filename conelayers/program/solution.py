"""Solutions of a batch of cone programmes, which carry the evidence of their own quality."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from conelayers.program.status import Status

__all__ = ["ConeSolution"]


@dataclasses.dataclass(frozen=True, eq=False)
class ConeSolution:
    """Primal-dual points of a batch of programmes and how good they are.

    Attributes:
        x: Primal variables, shape (*batch, n).
        y: Dual variables in K*, shape (*batch, m).
        s: Slacks in K, shape (*batch, m).
        status_code: `Status` values, int8, shape (*batch,).
        iterations: Iterations of the backend, int64, shape (*batch,).
        primal_residual: Relative primal residual as `residuals` defines it, shape (*batch,).
        dual_residual: Relative dual residual, shape (*batch,).
        gap: Relative duality gap, shape (*batch,).
    """

    x: Tensor
    y: Tensor
    s: Tensor
    status_code: Tensor
    iterations: Tensor
    primal_residual: Tensor
    dual_residual: Tensor
    gap: Tensor

    @property
    def status(self) -> Status | np.ndarray:
        """`Status` of each item: a member for a single programme, else an object array of members."""
        codes = self.status_code.cpu().numpy()
        if codes.ndim == 0:
            return Status(int(codes))
        members = np.empty(codes.shape, dtype=object)
        for position in np.ndindex(codes.shape):
            members[position] = Status(int(codes[position]))
        return members

    @property
    def has_solution(self) -> Tensor:
        """Which items may be used and differentiated, bool, shape (*batch,)."""
        return self.status_code <= int(Status.INACCURATE)

    @property
    def all_solved(self) -> bool:
        """Whether every item is solved to the backend's tolerance."""
        return not bool(self.status_code.any())

    @property
    def worst(self) -> Tensor:
        """The largest of the three residuals, shape (*batch,)."""
        return torch.maximum(self.primal_residual, torch.maximum(self.dual_residual, self.gap))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The attributes, in order."""
        return (
            *(self.x, self.y, self.s, self.status_code, self.iterations),
            *(self.primal_residual, self.dual_residual, self.gap),
        )

    def detach(self) -> ConeSolution:
        """The same values, cut from the autograd graph."""
        return self.map(lambda value: value.detach())

    def reshape(self, batch_shape: torch.Size) -> ConeSolution:
        """The same items with other batch axes."""
        if self.status_code.shape == batch_shape:
            return self
        depth = self.status_code.dim()
        return self.map(lambda value: value.reshape((*batch_shape, *value.shape[depth:])))

    def to(self, device: torch.device) -> ConeSolution:
        """The same values on another device."""
        return self if self.x.device == device else self.map(lambda value: value.to(device))

    def map(self, function: Callable[[Tensor], Tensor]) -> ConeSolution:
        """The solution with a function applied to each of its tensors."""
        return ConeSolution(*map(function, self.tensors))

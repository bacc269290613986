"""The same programme in other units, where a solver lost its way in those that it was given.

With x = rho D x', s = rho E^-1 s', y = kappa E y' and the data

    P' = rho / kappa D P D,    q' = D q / kappa,    A' = E A D,    b' = E b / rho,

the solutions of one programme are those of the other. D and E bring the rows of [P A'; A 0] to about one (Ruiz 2001),
with one factor for all rows of a curved cone; rho and kappa do so for b and q. All factors are powers of two: nothing
is rounded.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.backends.base import Backend
from conelayers.backends.blocks import Blocks
from conelayers.program import ConeProgram, ConeSolution, residuals

__all__ = ["ALMOST_EXACT", "InOwnUnits"]

ALMOST_EXACT = 1e-13
"""A tolerance at which a solver goes on for as long as it can, and believes few certificates that do not hold."""

_ROUNDS = 12


@dataclasses.dataclass(frozen=True)
class InOwnUnits:
    """A backend that solves programmes in units of their own and answers in the units in which they are given.

    Attributes:
        backend: What solves.
    """

    backend: Backend

    @property
    def tol(self) -> float:
        """The backend's tolerance."""
        return getattr(self.backend, "tol", 1e-8)

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`. `warm_start` is ignored."""
        batch, flat = program.batch_shape, program.flatten()
        scaled, x_units, y_units, s_units = _scaled(flat)
        found = self.backend.solve(scaled)
        x, y, s = found.x * x_units, found.y * y_units, found.s * s_units
        measured = residuals(flat, x, y, s)
        numbers = {"primal_residual": measured.primal, "dual_residual": measured.dual, "gap": measured.gap}
        return dataclasses.replace(found, x=x, y=y, s=s, **numbers).reshape(batch)


def _scaled(program: ConeProgram) -> tuple[ConeProgram, Tensor, Tensor, Tensor]:
    """The programme in its own units, and x, y and s of these units in the given ones."""
    structure, blocks = program.structure, Blocks.of(program.structure)
    items = program.batch_shape.numel()
    device = program.q.device
    A_rows, A_columns, P_rows, P_columns = (
        torch.as_tensor(index, device=device)
        for index in (structure.A_indices, structure.A_columns, structure.P_indices, structure.P_columns)
    )
    P, q, A, b = (value.expand(items, value.shape[-1]) for value in (program.P, program.q, program.A, program.b))
    D, E = q.new_ones(items, structure.n), q.new_ones(items, structure.m)
    shape = P / _power(_norm(P))  # the unit of the objective is no reason to stretch x
    for _ in range(_ROUNDS):
        A_now = (A * E[:, A_rows] * D[:, A_columns]).abs()
        P_now = (shape * D[:, P_rows] * D[:, P_columns]).abs()
        columns = torch.maximum(_largest(A_now, A_columns, structure.n), _largest(P_now, P_columns, structure.n))
        columns = torch.maximum(columns, _largest(P_now, P_rows, structure.n))
        rows = blocks.spread(blocks.largest(_largest(A_now, A_rows, structure.m)))
        D, E = D * _power(columns**-0.5), E * _power(rows**-0.5)
    A, P, q, b = A * E[:, A_rows] * D[:, A_columns], P * D[:, P_rows] * D[:, P_columns], q * D, b * E
    # Bounds and costs both tell how large x is; where there are both, which may be far apart, their geometric mean.
    bound, cost, curvature = (_norm(value) for value in (b, q, P))
    costs = torch.where((curvature > 0) & (cost > 0), cost / curvature, 0.0)
    rho = _power(torch.where((bound > 0) & (costs > 0), (bound * costs).sqrt(), torch.maximum(bound, costs)))
    kappa = _power(torch.maximum(cost, rho * curvature))
    scaled = ConeProgram.unchecked(structure, P * (rho / kappa), q / kappa, A, b / rho)
    return scaled, rho * D, kappa * E, rho / E


def _largest(values: Tensor, index: Tensor, size: int) -> Tensor:
    found = values.new_zeros((*values.shape[:-1], size))
    return found.scatter_reduce(-1, index.expand(values.shape), values, "amax")


def _norm(values: Tensor) -> Tensor:
    """Largest entry, shape (items, 1)."""
    return values.abs().amax(-1, keepdim=True) if values.shape[-1] else values.new_zeros((*values.shape[:-1], 1))


def _power(values: Tensor) -> Tensor:
    """The nearest power of two; 1 for what is zero or not finite."""
    usable = (values > 0) & values.isfinite()
    return torch.where(usable, torch.exp2(torch.round(torch.log2(torch.where(usable, values, 1.0)))), 1.0)

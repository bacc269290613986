"""Computed points and their programmes, in units in which y and s of curved blocks are of one size.

A block of the cone may be measured in any unit: s -> f s, y -> y / f leaves the problem as it is. Where s is a thousand
times larger than y, so is its error, and v = y - s would know nothing of y.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.cones import ProductCone
from conelayers.program import ConeStructure
from conelayers.regularity.dense import Matrices
from conelayers.regularity.extremes import curved_blocks
from conelayers.regularity.residual import Residual, natural_residual

__all__ = ["Point"]

# y or s below this part of the other is zero, and tells no unit.
_NOTHING = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """Data and points of B items.

    Attributes:
        structure: Patterns and cone.
        P, q, A, b: Stored values, of B items or one.
        x: (B, n).
        v: y - s, (B, m).
        mu: Complementarity y's of each cone over its dimension, (B, number of cones).
        units: f, positive, the same for the rows of a curved block: s is f times the programme's own, (B, m).
        guess: How far v may be off where the Jacobian is singular, by the square root of the residual, (B,).
    """

    structure: ConeStructure
    P: Tensor
    q: Tensor
    A: Tensor
    b: Tensor
    x: Tensor
    v: Tensor
    mu: Tensor
    units: Tensor
    guess: Tensor

    @classmethod
    def of(
        cls, structure: ConeStructure, data: tuple[Tensor, ...], x: Tensor, y: Tensor, s: Tensor, guess: Tensor
    ) -> Point:
        """From stored values P, q, A, b and points (x, y, s) in the programme's own units."""
        P, q, A, b = data
        v = y - s
        return cls(structure, P, q, A, b, x, v, _complementarity(structure.cone, y, s), torch.ones_like(v), guess)

    def balanced(self) -> Point:
        """In units in which y and s of each curved block are of one size."""
        factors = torch.ones_like(self.v)
        y = self.structure.cone.project_dual(self.v)
        s = y - self.v
        for _, _, rows in curved_blocks(self.structure.cone):
            multiplier, slack = y[:, rows].norm(dim=-1), s[:, rows].norm(dim=-1)
            least = _NOTHING * torch.maximum(multiplier, slack)
            both = (multiplier > least) & (slack > least)
            factor = torch.where(both, multiplier / torch.where(both, slack, 1.0), 1.0).sqrt()
            factors[:, rows] = factor[..., None].expand(-1, *rows.shape)
        A = factors[:, torch.as_tensor(self.structure.A_indices)] * self.A
        v = y / factors - factors * s
        return dataclasses.replace(self, A=A, b=factors * self.b, v=v, units=factors * self.units)

    @property
    def own_v(self) -> Tensor:
        """V in the programme's own units, (B, m)."""
        y = self.structure.cone.project_dual(self.v)
        return y * self.units - (y - self.v) / self.units

    @functools.cached_property
    def matrices(self) -> Matrices:
        """Dense P and A."""
        return Matrices.of(self.structure, self.P, self.A)

    @functools.cached_property
    def residual(self) -> Residual:
        """F at the points."""
        return natural_residual(self.structure, self.P, self.q, self.A, self.b, self.x, self.v)

    def take(self, items: Tensor) -> Point:
        """Some of the items."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "structure"}
        shared = {name for name, value in values.items() if value.shape[0] == 1 < self.x.shape[0]}
        return Point(self.structure, **{k: value if k in shared else value[items] for k, value in values.items()})

    def sparse(self) -> tuple[sp.csc_array, sp.csr_array, np.ndarray]:
        """P (its upper triangle), A and y of a single item, in the programme's own units."""
        s, units = self.structure, self.units[0]
        values = self.A[0] / units[torch.as_tensor(s.A_indices)]
        y = units * s.cone.project_dual(self.v[0])
        return s.P_matrix(self.P[0].numpy()), sp.csr_array(s.A_matrix(values.numpy())), y.numpy()


def _complementarity(cone: ProductCone, y: Tensor, s: Tensor) -> Tensor:
    """|y's| of each block over its dimension, (B, number of cones), for y and s (B, m)."""
    products = y * s
    sums = [products[:, a:b].sum(1).abs() / max(1, b - a) for a, b in itertools.pairwise(cone.offsets)]
    return torch.stack(sums, -1) if sums else y.new_zeros(y.shape[0], 0)

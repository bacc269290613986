"""What a cone must bring to be checked: how far a point violates it, its barrier, its kinks; and points to check at."""

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import Tensor

from conelayers.cones import Cone, ProductCone

FAST = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # a seed does not shrink
    suppress_health_check=[HealthCheck.differing_executors],
)
seeds = st.integers(0, 2**31 - 1)
# Differences err by STEP^4 times the fifth derivative, which for exponents near 0 or 1 reaches 1e6, and by rounding
# over STEP: at 1e-3 the first error alone is 1e-5 for the power cone of 0.99, at 1e-4 both are below 1e-9.
STEP = 1e-4


def points(dim: int, seed: int, spread: float, count: int = 64) -> Tensor:
    """Points of norm one whose coordinates range over `spread` decades. shape: (count, dim)."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    v = v * 10 ** (spread * (torch.rand(count, dim, generator=generator, dtype=torch.float64) - 1))
    return v / v.norm(dim=-1, keepdim=True)


def central(function, v: Tensor, step: float) -> Tensor:
    """Fourth-order central differences along every axis, last axis of the result. shape: (..., dim)."""
    columns = []
    for axis in torch.eye(v.shape[-1], dtype=v.dtype):
        near = function(v + step * axis) - function(v - step * axis)
        far = function(v + 2 * step * axis) - function(v - 2 * step * axis)
        columns.append((8 * near - far) / (12 * step))
    return torch.stack(columns, -1)


class ConeCase:
    """A cone under test. `violation` is a distance-like measure, positive outside the cone."""

    cone: Cone
    smooth_margin = 0.05
    kinks: tuple[tuple[float, ...], ...] = ()

    def violation(self, v: Tensor) -> Tensor:
        raise NotImplementedError

    def dual_violation(self, v: Tensor) -> Tensor:
        return self.violation(v)

    def barrier(self, y: Tensor) -> Tensor | None:
        return None

    def product(self) -> ProductCone:
        return ProductCone([self.cone])

    def smooth(self, seed: int = 3) -> Tensor:
        """Points well away from kinks."""
        v = points(self.cone.dim, seed, 0.0, 300)
        return v[self.cone.margin(v) > self.smooth_margin][:40]

    def hard(self, seed: int, spread: float) -> Tensor:
        """Points on all sides of the faces, near the boundaries of the cone and of its polar, and on them."""
        v = points(self.cone.dim, seed, spread, 16)
        p = self.cone.project(v)
        d = v - p
        tilt = 10.0 ** -torch.arange(0, 16, dtype=torch.float64).unsqueeze(-1)
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=v.dtype)] * min(self.cone.dim, 3))
        corners = torch.zeros(len(signs), self.cone.dim, dtype=v.dtype)
        corners[:, : min(self.cone.dim, 3)] = signs.reshape(len(signs), -1)
        return torch.cat([v, p, d, p + tilt * d, p - tilt * d, tilt * p + d, d - tilt * p, corners])

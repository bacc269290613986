"""What every cone promises, checked for each cone by one suite.

A new cone gets the suite by one subclass of `ConeContract` that names the cone, says how far a point violates it (from
the definition of the cone, independently of its projection), gives its barrier, and lists points on kinks.
"""

import copy
import math
import pickle

import pytest
import torch
from cones.cone_projection_contract import ProjectionContract
from cones.cone_smoothing_contract import SmoothingContract
from torch import Tensor

from conelayers.cones import (
    DualExponential,
    DualPower,
    Exponential,
    Free,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
)


class ConeContract(ProjectionContract, SmoothingContract):
    """The whole suite: projection, smoothing, and what any value of the package does."""

    def test_float32_stays_float32(self):
        v = self.smooth()
        single = v.float()
        derivative = self.product().derivative(single)
        assert derivative.matrix().dtype == torch.float32
        assert self.cone.project(single).dtype == torch.float32
        assert (self.cone.project(single) - self.cone.project(v)).abs().max() < 1e-5
        assert (derivative.matrix() - self.product().derivative(v).matrix()).abs().max() < 1e-4
        assert (self.cone.margin(single) - self.cone.margin(v)).nan_to_num(0).abs().max() < 1e-5
        hard = self.hard(2, 6.0).float()
        assert torch.isfinite(self.cone.project(hard)).all()
        assert torch.isfinite(self.product().derivative(hard).matrix()).all()
        smoothed = self.product().project(single, mu=1e-2)
        assert smoothed.dtype == torch.float32
        assert (smoothed - self.cone.project(v, mu=1e-2)).abs().max() < 1e-4

    @pytest.mark.parametrize("batch", [(), (0,), (3,), (2, 3), (2, 0, 3)])
    def test_batches(self, batch):
        product = ProductCone([self.cone, self.cone])
        v = torch.randn(*batch, product.dim, dtype=torch.float64)
        u = torch.randn(5, *batch, product.dim, dtype=torch.float64)
        for mu in (None, 0.1, torch.full((*batch, 2), 0.1, dtype=torch.float64)):
            assert product.project(v, mu=mu).shape == v.shape
            derivative = product.derivative(v, mu=mu)
            assert derivative.matrix().shape == (*v.shape, product.dim)
            assert derivative.apply(u).shape == u.shape
            assert derivative.curvature(u, u).shape == u.shape
        assert product.margin(v).shape == (*batch, 2)
        if batch == (2, 3):
            halves = torch.cat([self.cone.project(half) for half in v.chunk(2, -1)], -1)
            assert (product.project(v) - halves).abs().max() < 1e-14
            one = torch.stack([product.derivative(v).apply(column) for column in u])
            assert (product.derivative(v).apply(u) - one).abs().max() < 1e-14

    def test_is_a_value(self):
        twin = pickle.loads(pickle.dumps(self.cone))
        assert twin == self.cone
        assert hash(twin) == hash(self.cone)
        assert copy.deepcopy(self.cone) == self.cone
        assert self.cone.dual() == self.cone.dual()


class TestZero(ConeContract):
    cone = Zero(3)

    def violation(self, v):
        return v.abs().amax(-1)

    def dual_violation(self, v):
        return torch.zeros_like(v[..., 0])


class TestFree(ConeContract):
    cone = Free(3)

    def violation(self, v):
        return torch.zeros_like(v[..., 0])

    def dual_violation(self, v):
        return v.abs().amax(-1)


class TestNonnegative(ConeContract):
    cone = Nonnegative(4)
    kinks = ((0.0, 0.0, 0.0, 0.0), (1.0, 0.0, -1.0, 2.0))

    def violation(self, v):
        return -v.amin(-1)

    def barrier(self, y):
        return -y.log().sum(-1)


class TestSecondOrder(ConeContract):
    cone = SecondOrder(5)
    kinks = ((0.0,) * 5, (5.0, 3.0, 0.0, 4.0, 0.0), (-5.0, 0.0, 3.0, 0.0, -4.0))

    def violation(self, v):
        return v[..., 1:].norm(dim=-1) - v[..., 0]

    def barrier(self, y):
        return -((y[..., 0] - y[..., 1:].norm(dim=-1)) * (y[..., 0] + y[..., 1:].norm(dim=-1))).log() / 2


class TestSecondOrderPlane(TestSecondOrder):
    cone = SecondOrder(2)
    kinks = ((0.0, 0.0), (1.0, -1.0), (-1.0, 1.0))


class TestSecondOrderLine(TestSecondOrder):
    cone = SecondOrder(1)
    kinks = ((0.0,),)

    def barrier(self, y):
        return -y[..., 0].log()


class TestPositiveSemidefinite(ConeContract):
    cone = PositiveSemidefinite(3)
    kinks = (
        (0.0,) * 6,
        (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
        (1.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        (-1.0, 0.0, 0.0, -2.0, 0.0, 0.0),
    )

    def matrix(self, v):
        r = 1 / math.sqrt(2)
        a, b, c, d, e, f = v.unbind(-1)
        rows = [a, b * r, c * r, b * r, d, e * r, c * r, e * r, f]
        return torch.stack(rows, -1).reshape(*v.shape[:-1], 3, 3)

    def violation(self, v):
        return -torch.linalg.eigvalsh(self.matrix(v)).amin(-1)

    def barrier(self, y):
        return -torch.linalg.slogdet(self.matrix(y)).logabsdet


def exponential_violation(v: Tensor) -> Tensor:
    """First-order distance from y exp(x / y) <= z, y > 0, or the distance from the face where y <= 0."""
    x, y, z = v.unbind(-1)
    face = torch.stack([x, y.abs(), -z], -1).clamp(min=0).norm(dim=-1)
    ratio = x / torch.where(y > 0, y, 1)
    big, small = torch.exp(ratio.clamp(max=0)), torch.exp(-ratio.clamp(min=0))
    slope = torch.stack([big, (1 - ratio) * big, small], -1).norm(dim=-1)
    return torch.where(y > 0, torch.minimum((y * big - z * small) / slope, face), face)


class TestExponential(ConeContract):
    cone = Exponential()
    kinks = (
        (0.0, 0.0, 0.0),
        (-1.0, 0.0, 1.0),
        (-1.0, 0.0, -1.0),
        (-1.0, 0.0, 0.0),
        (0.0, -1.0, 1.0),
        (0.0, -1.0, -1.0),
        (0.0, -1.0, 0.0),
        (-1.0, -1.0, 0.0),
        (0.0, 0.0, 1.0),
        (0.0, 0.0, -1.0),
    )

    def violation(self, v):
        return exponential_violation(v)

    def dual_violation(self, v):
        return exponential_violation(torch.stack([v[..., 0] - v[..., 1], -v[..., 0], v[..., 2]], -1)) / 2

    def barrier(self, y):
        x, y, z = y.unbind(-1)
        return -(y * (z / y).log() - x).log() - y.log() - z.log()


class TestDualExponential(TestExponential):
    cone = DualExponential()
    kinks = tuple(tuple(-x for x in kink) for kink in TestExponential.kinks)
    violation = TestExponential.dual_violation
    dual_violation = TestExponential.violation

    def barrier(self, y):
        return TestExponential.barrier(self, torch.stack([y[..., 0] - y[..., 1], -y[..., 0], y[..., 2]], -1))


class TestPower(ConeContract):
    cone = Power(0.3)
    kinks = ((0.0, 0.0, 0.0),)

    def smooth(self, seed=3):
        # Across z = 0 the projection has one derivative but not two.
        v = super().smooth(seed)
        return v[v[:, 2].abs() > 0.15]

    def violation(self, v):
        a = self.cone.alpha
        x, y, z = v.unbind(-1)
        sign = torch.maximum(-x, -y)
        x, y = x.clamp(min=1e-300), y.clamp(min=1e-300)
        mean = torch.exp(a * x.log() + (1 - a) * y.log())
        slope = torch.stack([a * mean / x, (1 - a) * mean / y, torch.ones_like(x)], -1).norm(dim=-1)
        return torch.maximum(sign, (z.abs() - mean) / slope)

    def dual_violation(self, v):
        a = self.cone.alpha
        return min(a, 1 - a) * self.violation.__func__(self, v / v.new_tensor([a, 1 - a, 1.0]))

    def barrier(self, y):
        a = self.cone.alpha
        x, y, z = y.unbind(-1)
        mean = torch.exp(a * x.log() + (1 - a) * y.log())
        return -(mean - z).log() - (mean + z).log() - (1 - a) * x.log() - a * y.log()


class TestPowerHalf(TestPower):
    cone = Power(0.5)


class TestPowerSmall(TestPower):
    cone = Power(0.02)
    smooth_margin = 0.1


class TestPowerLarge(TestPower):
    cone = Power(0.99)
    smooth_margin = 0.1


class TestDualPower(TestPower):
    cone = DualPower(0.3)

    def violation(self, v):
        a = self.cone.alpha
        return min(a, 1 - a) * TestPower.violation(self, v / v.new_tensor([a, 1 - a, 1.0]))

    def dual_violation(self, v):
        return TestPower.violation(self, v)

    def barrier(self, y):
        a = self.cone.alpha
        return TestPower.barrier(self, y / y.new_tensor([a, 1 - a, 1.0]))


class TestDualPowerLarge(TestDualPower):
    cone = DualPower(0.9)

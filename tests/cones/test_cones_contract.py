"""What every cone promises, checked for each cone by one suite.

A new cone gets the suite by one subclass of `ConeContract` that names the cone, says how far a point violates it (from
the definition of the cone, independently of its projection), gives its barrier, and lists points on kinks.
"""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from conelayers.cones import (
    Cone,
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


class ConeContract:
    """The suite. `violation` is a distance-like measure, positive outside the cone."""

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

    @FAST
    @given(seed=seeds, spread=st.sampled_from([0.0, 3.0, 9.0, 20.0]), scale=st.sampled_from([1e-8, 1.0, 1e8]))
    def test_projection_satisfies_moreaus_conditions(self, seed, spread, scale):
        v = scale * self.hard(seed, spread)
        size = v.norm(dim=-1).clamp(min=1e-150)
        p = self.cone.project(v)
        d = v - p
        assert torch.isfinite(p).all()
        assert (self.violation(p) / size).max() < 1e-14 * 20
        assert (self.dual_violation(-d) / size).max() < 1e-14 * 20
        assert ((p * d).sum(-1).abs() / size**2).max() < 1e-14 * 20
        dual = self.cone.dual().project(-v)
        assert ((dual + d).norm(dim=-1) / size).max() < 1e-14
        again = self.cone.project(p)
        assert ((again - p).norm(dim=-1) / size).max() < 1e-14 * 2

    @FAST
    @given(seed=seeds, spread=st.sampled_from([0.0, 3.0, 9.0]), near=st.sampled_from([1.0, 1e-3, 1e-8]))
    def test_projection_is_nonexpansive(self, seed, spread, near):
        v = self.hard(seed, spread)
        w = v + near * points(self.cone.dim, seed + 1, 0.0, len(v))
        moved = (self.cone.project(v) - self.cone.project(w)).norm(dim=-1)
        assert (moved <= (v - w).norm(dim=-1) + 1e-14).all()

    @FAST
    @given(seed=seeds, spread=st.sampled_from([0.0, 3.0, 9.0, 20.0]), weak=st.sampled_from(["min", "max"]))
    def test_derivative_is_symmetric_between_zero_and_identity_and_homogeneous(self, seed, spread, weak):
        v = self.hard(seed, spread)
        derivative = self.product().derivative(v, weak=weak)
        dense = derivative.matrix()
        assert torch.isfinite(dense).all()
        assert (dense - dense.mT).abs().max() < 1e-14
        values = torch.linalg.eigvalsh(dense)
        assert values.min() > -1e-13
        assert values.max() < 1 + 1e-13
        size = v.norm(dim=-1).clamp(min=1e-150)
        assert ((derivative.apply(v) - self.cone.project(v)).norm(dim=-1) / size).max() < 1e-13
        u = points(self.cone.dim, seed + 1, 0.0, len(v))
        assert (derivative.apply(u) - (dense @ u.unsqueeze(-1)).squeeze(-1)).abs().max() < 1e-13

    def test_spectrum_reconstructs_the_matrix(self):
        v = self.hard(5, 3.0)
        for mu in (None, 0.1):
            derivative = self.product().derivative(v, mu=mu)
            rebuilt = torch.zeros_like(derivative.matrix())
            for rows, vectors, values in derivative.spectrum():
                assert ((values >= 0) & (values <= 1)).all()
                eye = torch.eye(rows.shape[-1], dtype=v.dtype)
                assert (vectors.mT @ vectors - eye).abs().max() < 1e-13
                block = vectors @ torch.diag_embed(values) @ vectors.mT
                rebuilt[..., rows.unsqueeze(-1), rows.unsqueeze(-2)] = block
            assert (rebuilt - derivative.matrix()).abs().max() < 1e-13

    def test_derivative_matches_differences_of_the_projection(self):
        v = self.smooth()
        expected = central(self.cone.project, v, STEP)
        assert (self.product().derivative(v).matrix() - expected).abs().max() < 1e-9

    def test_curvature_matches_differences_of_the_derivative(self):
        v = self.smooth()
        u, w = points(self.cone.dim, 7, 0.0, len(v)), points(self.cone.dim, 8, 0.0, len(v))
        product = self.product()
        expected = central(lambda x: (product.derivative(x).apply(u) * w).sum(-1), v, STEP)
        actual = product.derivative(v).curvature(u, w)
        scale = 1 + expected.abs().amax(-1, keepdim=True) ** 3  # error of the differences: their fifth derivative
        assert ((actual - expected).abs() / scale).max() < 1e-9
        assert (actual - product.derivative(v).curvature(w, u)).abs().max() < 1e-12 * scale.max()

    @FAST
    @given(seed=seeds, spread=st.sampled_from([0.0, 2.0]))
    def test_curvature_is_a_symmetric_form_that_vanishes_along_v(self, seed, spread):
        v = self.hard(seed, spread)
        u, w, h = (points(self.cone.dim, seed + i, 0.0, len(v)) for i in range(3))
        derivative = self.product().derivative(v)
        one, two = (derivative.curvature(u, w) * h).sum(-1), (derivative.curvature(u, h) * w).sum(-1)
        assert torch.isfinite(one).all()
        scale = 1 + derivative.curvature(u, w).norm(dim=-1) + derivative.curvature(u, h).norm(dim=-1)
        assert ((one - two).abs() / scale).max() < 1e-11
        along = derivative.curvature(v, w)
        assert (along.norm(dim=-1) / (1 + derivative.curvature(w, w).norm(dim=-1))).max() < 1e-11

    def test_dual_derivative_is_the_complement(self):
        v = self.smooth()
        product = self.product()
        eye = torch.eye(self.cone.dim, dtype=v.dtype)
        total = product.dual_derivative(v).matrix() + product.derivative(-v).matrix()
        assert (total - eye).abs().max() < 1e-13
        u, w = points(self.cone.dim, 7, 0.0, len(v)), points(self.cone.dim, 8, 0.0, len(v))
        here, there = product.dual_derivative(v).curvature(u, w), product.derivative(-v).curvature(u, w)
        assert (here - there).abs().max() < 1e-11 * (1 + there.abs().max())
        assert self.cone.dual().dual() == self.cone

    @FAST
    @given(seed=seeds, spread=st.sampled_from([0.0, 3.0]))
    def test_margin_is_a_distance_to_the_boundaries(self, seed, spread):
        v = self.hard(seed, spread)
        w = v + 0.1 * points(self.cone.dim, seed + 1, 2.0, len(v))
        p = self.cone.project(v)
        margin, other, double, boundary = self.cone.margin(torch.stack([v, w, 2 * v, p]))
        if torch.isinf(margin).all():
            return
        assert (margin >= 0).all()
        # Distances are nonexpansive and homogeneous; the best of several basins is found, to rounding.
        assert (margin - other - (v - w).norm(dim=-1)).max() < 1e-14 * 5
        assert (double - 2 * margin).abs().max() < 1e-14 * 5
        kinked = (v - p).norm(dim=-1) > 1e-9  # then p lies on the boundary of the cone
        assert torch.where(kinked, boundary, 0).max() < 1e-14 * 5
        assert (margin - self.cone.dual().margin(-v)).abs().max() < 1e-14

    def test_derivative_is_continuous_within_the_margin(self):
        v = points(self.cone.dim, 11, 1.0, 100)
        margin = self.cone.margin(v).clamp(max=1.0)
        v, margin = v[margin > 1e-3], margin[margin > 1e-3]
        direction = points(self.cone.dim, 12, 0.0, len(v))
        steps = torch.linspace(0, 0.97, 200, dtype=v.dtype).reshape(-1, 1, 1)
        path = self.cone.derivative(v + steps * margin.unsqueeze(-1) * direction).matrix()
        assert path.diff(dim=0).abs().max() < 0.5

    def test_elements_at_kinks_bound_the_nearby_derivatives(self):
        for kink in self.kinks:
            v = torch.tensor(kink, dtype=torch.float64)
            low = self.product().derivative(v, weak="min").matrix()
            high = self.product().derivative(v, weak="max").matrix()
            near = v + 1e-9 * points(self.cone.dim, 13, 2.0, 400)
            sampled = self.product().derivative(near).matrix()
            assert torch.linalg.eigvalsh(sampled - low).min() > -1e-3, kink
            assert torch.linalg.eigvalsh(high - sampled).min() > -1e-3, kink
            assert (self.product().derivative(v).matrix() - low).abs().max() == 0
            assert self.cone.margin(v) < 1e-12
            assert torch.linalg.eigvalsh(high - low).max() > 0.9, kink

    @FAST
    @given(seed=seeds, radius=st.sampled_from([1e-6, 1e-3]))
    def test_radius_reaches_the_kinks_nearby(self, seed, radius):
        v = points(self.cone.dim, seed, 0.0, 8)
        if torch.isinf(self.cone.margin(v)).all():
            return
        boundary = self.cone.project(v)
        boundary = boundary[(v - boundary).norm(dim=-1) > 0.1]
        near = boundary + 0.3 * radius * points(self.cone.dim, seed + 1, 0.0, len(boundary))
        low = self.product().derivative(near, weak="min", radius=radius).matrix()
        high = self.product().derivative(near, weak="max", radius=radius).matrix()
        plain = self.product().derivative(near).matrix()
        gap = torch.linalg.eigvalsh(high - low)
        assert (gap.amax(-1) > 0.99).all()
        assert gap.min() > -1e-9
        assert torch.linalg.eigvalsh(high - plain).min() > -200 * radius
        assert torch.linalg.eigvalsh(plain - low).min() > -200 * radius

    @pytest.mark.parametrize("mu", [1.0, 1e-3, 1e-8])
    def test_proximal_point_solves_the_barrier_equation(self, mu):
        v = torch.cat([points(self.cone.dim, 17, 0.0), points(self.cone.dim, 18, 4.0)])
        y = self.cone.project(v, mu=mu).requires_grad_()
        barrier = self.barrier(y)
        if barrier is None:
            assert (y - self.cone.project(v)).abs().max() == 0
            return
        assert torch.isfinite(barrier).all()  # y lies in the interior
        (gradient,) = torch.autograd.grad(barrier.sum(), y)
        residual = (y + mu * gradient - v).abs()
        # Near the boundary the gradient of the barrier itself amplifies rounding of y by 1 / mu.
        assert residual.max() < 1e-13 + 1e-14 / mu

    @pytest.mark.parametrize("mu", [1.0, 1e-2, 1e-3])
    def test_smoothed_derivatives_match_differences(self, mu):
        v = points(self.cone.dim, 19, 0.0, 40)
        product, step = self.product(), 0.02 * math.sqrt(mu)
        derivative = product.derivative(v, mu=mu)
        expected = central(lambda x: self.cone.project(x, mu=mu), v, step)
        assert (derivative.matrix() - expected).abs().max() < 1e-6
        assert torch.linalg.eigvalsh(derivative.matrix()).min() > -1e-14
        u, w = points(self.cone.dim, 7, 0.0, len(v)), points(self.cone.dim, 8, 0.0, len(v))
        expected = central(lambda x: (product.derivative(x, mu=mu).apply(u) * w).sum(-1), v, step)
        error = (derivative.curvature(u, w) - expected).abs() * math.sqrt(mu)
        assert error.max() < 1e-6

    def test_smoothing_vanishes_with_mu(self):
        v = self.smooth()
        exact = self.product().derivative(v)
        smoothed = self.product().derivative(v, mu=1e-12)
        assert (smoothed.matrix() - exact.matrix()).abs().max() < 1e-8
        u, w = points(self.cone.dim, 7, 0.0, len(v)), points(self.cone.dim, 8, 0.0, len(v))
        assert (smoothed.curvature(u, w) - exact.curvature(u, w)).abs().max() < 1e-5
        assert (self.cone.project(v, mu=1e-12) - self.cone.project(v)).abs().max() < 1e-9

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

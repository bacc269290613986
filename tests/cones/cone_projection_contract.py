"""What every cone promises about its projection, its Clarke Jacobian and its kinks."""

import torch
from cones.cone_case import FAST, STEP, ConeCase, central, points, seeds
from hypothesis import given
from hypothesis import strategies as st


class ProjectionContract(ConeCase):
    """Moreau's conditions, elements of the Clarke Jacobian and their derivatives, distances to kinks."""

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

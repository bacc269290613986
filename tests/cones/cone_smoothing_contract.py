"""What every cone promises about its smoothing."""

import math

import pytest
import torch
from cones.cone_case import ConeCase, central, points


class SmoothingContract(ConeCase):
    """The proximal point of the barrier, its derivatives, and the limit of both."""

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

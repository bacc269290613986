"""Certificates against sampled and exact extremes over all Clarke elements."""

import itertools

import pytest
import torch
from equilibria import dense_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.certificates import (
    certify_activation,
    certify_fixed_point,
    certify_splitting,
    perron_vector,
    regular_over_box,
)
from conelayers.layers.fixed_point import fixed_point
from conelayers.layers.monotone_conv import MonotoneConvDEQ, MonotoneMultiTierDEQ


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 0.4, 0.9]), monotone=st.booleans())
def test_certificate_is_a_lower_bound_over_all_clarke_elements(seed, scale, monotone):
    gen = torch.Generator().manual_seed(seed)
    n = 5
    A, B = torch.randn(2, n, n, generator=gen, dtype=torch.float64) * scale
    W = 0.7 * torch.eye(n, dtype=torch.float64) - A.T @ A + B - B.T if monotone else A
    certificate = certify_activation(W)
    corners = torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)
    inner = torch.rand(500, n, generator=gen, dtype=torch.float64)
    D = torch.cat([corners, inner])
    smallest = torch.linalg.svdvals(torch.eye(n, dtype=W.dtype) - D[:, :, None] * W)[:, -1].min()
    assert certificate.lower_bound <= smallest + 1e-12
    if certificate.regular:
        assert regular_over_box(W)
    if monotone:
        assert certificate.regular and certificate.monotonicity >= 0.3 - 1e-10


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([1, 5, 40]),
    entries=st.integers(0, 5),
    scale=st.sampled_from([1e-300, 1e-12, 1.0, 1e12, 1e300]),
)
def test_nearly_empty_matrices_have_perron_vectors(seed, n, entries, scale):
    gen = torch.Generator().manual_seed(seed)
    W = torch.zeros(n, n, dtype=torch.float64)
    for row, column in torch.randint(n, (entries, 2), generator=gen):
        W[row, column] = scale * torch.randn(1, generator=gen, dtype=torch.float64)
    vector, radius = perron_vector(W)
    magnitude = W.abs() / W.abs().max().clamp(min=1e-300)
    positive = magnitude + 1e-6 * magnitude.mean().clamp(min=1e-300)
    # For a positive vector the spectral radius is between the smallest and the largest of these quotients.
    quotients = positive @ vector / vector
    assert (vector > 0).all() and quotients.max() <= quotients.min() * (1 + 1e-6)
    assert radius / W.abs().max().clamp(min=1e-300) <= quotients.max()


def test_exact_decision_over_the_box():
    assert regular_over_box(torch.tensor([[0.0, 5.0], [0.0, 0.0]]))  # triangular: always invertible
    assert not regular_over_box(torch.tensor([[2.0]]))  # D = 1/2 makes it singular
    with pytest.raises(InvalidArgument):
        regular_over_box(torch.zeros(20, 20))


def test_convolutional_certificate_is_that_of_the_dense_matrix():
    model = MonotoneConvDEQ(2, 3, (4, 5), m=0.3)
    W = dense_matrix(model, torch.randn(1, 2, 4, 5))
    found, dense = model.certificate(), certify_activation(W)
    assert abs(found.contraction - dense.contraction) < 1e-10
    assert abs(found.monotonicity - dense.monotonicity) < 1e-10


def test_local_certificate_against_dense_jacobian():
    W, x = 0.3 * torch.randn(6, 6), torch.randn(4, 6)
    z = fixed_point(lambda z: torch.tanh(z @ W.T + x), torch.zeros_like(x))
    c = certify_fixed_point(lambda z, x: torch.tanh(z @ W.T + x), z, x)
    J = (1 - z.square())[:, :, None] * W
    assert torch.allclose(c.sigma_min, torch.linalg.svdvals(torch.eye(6) - J)[:, -1])
    assert torch.allclose(c.spectral_radius, torch.linalg.eigvals(J).abs().amax(-1))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.05, 0.5, 1.0, 4.0]))
def test_splitting_certificate_bounds_the_steps(seed, alpha):
    gen = torch.Generator().manual_seed(seed)
    A, B = 0.3 * torch.randn(2, 6, 6, generator=gen, dtype=torch.float64)
    m = 0.3
    W = (1 - m) * torch.eye(6, dtype=torch.float64) - A.T @ A + B - B.T
    found = certify_splitting(W, alpha)
    assert found.peaceman_rachford < 1 and found.resolvent >= 1 + alpha * m - 1e-12
    F = torch.eye(6, dtype=torch.float64) - W
    L = torch.linalg.matrix_norm(F, ord=2)
    assert found.peaceman_rachford <= (1 - 4 * alpha * m / (1 + alpha * L) ** 2) ** 0.5 + 1e-12  # Giselsson & Boyd
    assert found.forward_backward <= (1 - 2 * alpha * m + alpha**2 * L**2) ** 0.5 + 1e-12
    # Two nearby starts come closer by at least the factor in every reflected step, relu in between.
    u = torch.randn(2, 50, 6, generator=gen, dtype=torch.float64)
    half = 2 * torch.relu(u) - u
    moved = 2 * torch.linalg.solve(torch.eye(6, dtype=torch.float64) + alpha * F, half.mT).mT - half
    before, after = ((a[0] - a[1]).norm(dim=-1) for a in (u, moved))
    assert (after <= found.peaceman_rachford * before + 1e-12).all()
    with pytest.raises(InvalidArgument):
        certify_splitting(W, 0.0)


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize(("channels", "size", "kernel"), [((2, 3), (6, 6), 3), ((2, 3, 2), (8, 4), 1)])
def test_multi_tier_certificate_bounds_the_dense_matrix(channels, size, kernel, scale):
    model = MonotoneMultiTierDEQ(2, channels, size, m=0.25, kernel=kernel)
    with torch.no_grad():
        for p in model.A:
            p.mul_(scale)
    W = dense_matrix(model, torch.randn(1, 2, *size))
    found, dense = model.certificate(), certify_activation(W)
    assert found.criterion == "monotonicity" and found.monotonicity == 0.25 <= dense.monotonicity + 1e-10
    assert dense.contraction <= found.contraction + 1e-12
    assert 0 < found.lower_bound <= dense.lower_bound + 1e-12
    D = torch.cat([torch.rand(50, len(W)), torch.rand(50, len(W)).round()])
    smallest = torch.linalg.svdvals(torch.eye(len(W)) - D[:, :, None] * W)[:, -1].min()
    assert found.lower_bound <= smallest

"""Implicit models: projections, gradients, compositions, conversion, bounds, pruning."""

import copy
import dataclasses

import pytest
import torch
from equilibria import TIGHT, assert_close, gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conelayers.errors import InvalidArgument
from conelayers.fixed_points.iterations import Anderson, Picard
from conelayers.fixed_points.modes.unrolled import Unrolled
from conelayers.layers.implicit_model import ImplicitModel, InfinityNorm, PerronFrobenius, project_rows


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-8, 1.0, 1e8]))
def test_row_projection_satisfies_the_optimality_conditions(seed, scale):
    gen = torch.Generator().manual_seed(seed)
    A = torch.randn(6, 9, generator=gen, dtype=torch.float64) * scale
    weights = torch.rand(9, generator=gen, dtype=torch.float64) + 0.1
    radius = torch.rand(6, generator=gen, dtype=torch.float64) * 2 * scale
    P = project_rows(A, radius, weights)
    norms = (P.abs() * weights).sum(1)
    assert (norms <= radius * (1 + 1e-12)).all()
    # <A - P, Q - P> <= 0 for every Q of the ball: its extreme points are +- r_i e_j / w_j.
    R = A - P
    reach = radius * (R.abs() / weights).amax(1)
    assert (reach - (R * P).sum(1) <= 1e-9 * scale**2).all()


def model(n=6, p=3, q=2, **options):
    return ImplicitModel(p, n, q, solver=Anderson(**TIGHT), **options)


def test_implicit_model_gradients_and_projection():
    for wellposed in (InfinityNorm(0.8), PerronFrobenius(0.8)):
        m, u = model(wellposed=wellposed), torch.randn(4, 3)
        with torch.no_grad():
            m.A.mul_(20)
        m.project_()
        assert torch.linalg.eigvals(m.A.abs()).abs().max() <= 0.8 + 1e-9
        unrolled = copy.deepcopy(m)
        unrolled.adjoint = Unrolled(250)
        assert_close(gradients(m(u), m), gradients(unrolled(u), unrolled))
        assert m.certificate().regular
    assert model(wellposed=InfinityNorm(0.5)).A.abs().sum(1).max() <= 0.5 + 1e-12


def test_perron_frobenius_accepts_what_the_norm_refuses():
    A = torch.tensor([[0.0, 50.0], [0.0, 0.0]])
    assert torch.equal(PerronFrobenius(0.9).project(A), A)
    assert not torch.equal(InfinityNorm(0.9).project(A), A)


def test_compositions():
    u = torch.randn(5, 3)
    f, g = model(), model(4, 2, 2)
    assert_close([f.cascade(g)(u)], [g(f(u))], 1e-10)
    h = model(5)
    assert_close([f.sum(h)(u)], [f(u) + h(u)], 1e-10)
    both = f.parallel(h)(torch.cat([u, 2 * u], 1))
    assert_close([both], [torch.cat([f(u), h(2 * u)], 1)], 1e-10)


def test_feedback_closes_the_loop():
    f, back = model(), model(4, 2, 3)
    with torch.no_grad():
        for m in (f, back):
            for M in (m.B, m.C, m.D):
                M.mul_(0.2)
    u = torch.randn(5, 3)
    y = f.feedback(back)(u)
    assert (f(u + back(y)) - y).abs().max() < 1e-10
    one = torch.eye(1)
    loop = ImplicitModel.from_matrices(0 * one, one, one, one)
    with pytest.raises(InvalidArgument, match="algebraic loop"):
        loop.feedback(loop)


def test_feedforward_conversion():
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    implicit = ImplicitModel.from_feedforward(net, solver=Picard())
    u = torch.randn(6, 3)
    assert (implicit(torch.cat([u, torch.ones(6, 1)], 1)) - net(u)).abs().max() < 1e-14
    assert (implicit(u) - net(u)).abs().max() < 1e-14
    assert torch.equal(implicit.sparsified(0.0).reduced()(u), implicit(u))
    second = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    chain = implicit.cascade(ImplicitModel.from_feedforward(second))
    assert (chain(u) - second(net(u))).abs().max() < 1e-13
    assert (chain.sum(ImplicitModel.from_feedforward(nn.Sequential(nn.Linear(3, 3))))(u).shape) == (6, 3)
    with pytest.raises(InvalidArgument, match="constant"):
        ImplicitModel(3, 4, 2).cascade(chain)
    sigma = torch.full((u.shape[1],), 0.01)
    ahead = net(u + sigma * (2 * torch.rand(u.shape) - 1))
    assert ((ahead - net(u)).abs() <= implicit.output_bound(sigma) + 1e-12).all()
    assert torch.equal(implicit.output_bound(sigma), implicit.output_bound(torch.cat([sigma, torch.zeros(1)])))
    assert torch.equal(implicit.A, implicit.A.triu(1))
    with pytest.raises(InvalidArgument):
        ImplicitModel.from_feedforward(nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3)))


def test_box_bounds_hold_and_are_attained_by_nonnegative_models():
    m, u = model(), torch.randn(200, 3)
    sigma = torch.tensor([0.1, 0.2, 0.3])
    moved = u + (2 * torch.rand(200, 3) - 1) * sigma
    assert ((m.state(u) - m.state(moved)).abs() <= m.state_bound(sigma) + 1e-10).all()
    assert ((m(u) - m(moved)).abs() <= m.output_bound(sigma) + 1e-10).all()
    # A nonnegative model at positive inputs is linear there, and moves exactly as far as the bound says.
    positive = ImplicitModel.from_matrices(*(M.abs() for M in (m.A, m.B, m.C, m.D)), solver=Anderson(**TIGHT))
    u = torch.rand(1, 3) + 1
    assert torch.allclose((positive(u + sigma) - positive(u))[0], positive.output_bound(sigma), atol=1e-9)
    assert torch.autograd.grad(m.output_bound(sigma).sum(), m.A)[0].abs().max() > 0
    m.A.data.mul_(100)
    with pytest.raises(InvalidArgument, match="spectral radius"):
        m.sensitivity()


def test_sparsified_and_reduced():
    m, u = model(), torch.randn(4, 3)
    sparse = m.sparsified(0.15)
    assert (sparse.A != 0).sum() < (m.A != 0).sum()
    assert torch.equal(sparse.A, torch.where(m.A.abs() > 0.15, m.A, 0.0))
    with torch.no_grad():
        m.A[:, 2] = 0
        m.C[:, 2] = 0  # state 2 is heard by nobody
        m.A[:, 4] = 0
        m.C[:, 4] = 0
        m.A[2, 4] = 0.3  # state 4 by state 2 alone
    small = m.reduced()
    assert small.A.shape == (4, 4)
    assert_close([small(u)], [m(u)], 1e-10)


def test_models_are_modules():
    m = model()
    again = model()
    again.load_state_dict(m.state_dict())
    u = torch.randn(2, 3)
    assert torch.equal(again(u), m(u))
    assert dataclasses.replace(m.solver, atol=1.0).atol == 1.0
    y, info = m(u, return_info=True)
    assert y.shape == (2, 2) and info.converged.all()


@pytest.mark.parametrize("entry", [0.0559, 0.05588547885417938, 1.0])
def test_models_of_which_one_entry_is_left_have_bounds_and_projections(entry):
    """LAPACK does not always find eigenvectors of such a matrix, and none are needed: its powers vanish."""
    for n in (20, 40):
        B, C = torch.randn(n, 2), torch.randn(3, n)
        for row, column in [(1, 0), (0, 1), (18, 4), (n - 1, 0), (5, 6)]:
            A = torch.zeros(n, n)
            A[row, column] = entry
            m = ImplicitModel.from_matrices(A, B, C, torch.zeros(3, 2), wellposed=PerronFrobenius(0.9))
            expected = C.abs() @ (torch.eye(n) + A) @ B.abs()
            torch.testing.assert_close(m.sensitivity().detach(), expected)
            assert torch.equal(m.project_().A, A)

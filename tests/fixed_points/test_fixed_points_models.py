"""Equilibrium models: structure, equilibria, gradients, certificates against sampled and exact extremes."""

import copy
import dataclasses
import itertools
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.implicit.unrolled import Unrolled
from conelayers.iterations import Anderson, ForwardBackward, NewtonKrylov, PeacemanRachford, Picard
from conelayers.layers.convolution import downsample, padded_norm
from conelayers.layers.deq import DEQ, fixed_point_correction
from conelayers.layers.fixed_point import fixed_point
from conelayers.layers.implicit_model import ImplicitModel, InfinityNorm, PerronFrobenius, project_rows
from conelayers.layers.monotone_conv import MonotoneConvDEQ, MonotoneMultiTierDEQ
from conelayers.layers.monotone_deq import MonotoneDEQ
from conelayers.residual.fixed_point import certify_activation, certify_fixed_point, certify_splitting, regular_over_box

TIGHT = {"atol": 1e-12, "rtol": 1e-12}


@pytest.fixture(autouse=True)
def double_precision():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


class Cell(nn.Module):
    def __init__(self, n=7):
        super().__init__()
        self.W, self.U = nn.Linear(n, n), nn.Linear(n, n)

    def forward(self, z, x):
        return torch.tanh(self.W(z) + self.U(x))


def gradients(output, module):
    return torch.autograd.grad(output.pow(2).sum(), list(module.parameters()))


def assert_close(found, reference, tolerance=1e-8):
    for a, b in zip(found, reference, strict=True):
        assert (a - b).abs().max() <= tolerance * max(1.0, float(b.detach().abs().max()))


# -- DEQ
# ----------------------------------------------------------------------------------------------------------------


def test_deq_gradients_with_spectral_normalisation_against_unrolled():
    x = torch.randn(4, 7)
    model = DEQ(Cell(), solver=Anderson(**TIGHT), spectral_norm=0.6)
    with torch.no_grad():
        model.cell.W.weight.mul_(5)
    unrolled = copy.deepcopy(model)
    unrolled.adjoint = Unrolled(100)
    assert_close(gradients(model(x), model), gradients(unrolled(x), unrolled))
    normalized = model.normalized_parameters()
    assert torch.linalg.matrix_norm(normalized["W.weight"], ord=2) <= 0.6 + 1e-12
    assert torch.equal(normalized["W.bias"], model.cell.W.bias)
    z = model(x)
    assert (functional_call(model.cell, normalized, (z, x)) - z).abs().max() < 1e-11


def test_deq_warm_start_keeps_one_detached_copy():
    model, x = DEQ(Cell(), warm_start=True, spectral_norm=0.9), torch.randn(4, 7)
    _, cold = model(x, return_info=True)
    _, warm = model(x, return_info=True)
    assert warm.iterations.max() == 0 < cold.iterations.max()
    assert not model.state.requires_grad
    model(torch.randn(2, 7))  # another batch size starts afresh
    model.reset_state()
    assert model.state is None
    copied = pickle.loads(pickle.dumps(model))
    assert torch.equal(copied(x), model(x))


def test_jacobian_penalty_estimates_the_frobenius_norm():
    model, x = DEQ(Cell(), spectral_norm=0.9), torch.randn(3, 7)
    z = model(x)
    W = model.normalized_parameters()["W.weight"]
    J = (1 - model.cell.W.weight.new_tensor(0) - torch.tanh(
        functional_call(model.cell, model.normalized_parameters(), (z, x)).atanh()
    ).square())[:, :, None] * W  # fmt: skip
    exact = J.square().sum() / z.numel()
    estimate = model.jacobian_penalty(z, x, samples=2000)
    assert abs(float(estimate.detach() / exact.detach()) - 1) < 0.1
    assert torch.autograd.grad(estimate, model.cell.W.weight)[0].abs().max() > 0


def test_trajectory_and_correction():
    model, x = DEQ(Cell(), spectral_norm=0.9), torch.randn(3, 7)
    z = model(x)
    states = model.trajectory(x, (1, 3, 30))
    distances = [float((s - z).norm().detach()) for s in states]
    assert distances[0] > distances[1] > distances[2]
    losses = [s.square().mean() for s in states]
    total = fixed_point_correction(losses, decay=0.5)
    assert torch.allclose(total, losses[2] + 0.5 * losses[1] + 0.25 * losses[0])
    assert torch.autograd.grad(total, model.cell.U.weight)[0].abs().max() > 0
    with pytest.raises(InvalidArgument):
        model.trajectory(x, (3, 3))


# -- monotone models
# ----------------------------------------------------------------------------------------------------


def dense_matrix(model, x):
    """W of a monotone model, column by column, from its operator alone."""
    splitting, weights = model.splitting()
    with torch.no_grad():
        zero = model.inject(torch.zeros_like(x[:1]))
        flat = torch.cat([t.flatten() for t in zero]) if isinstance(zero, list) else zero.flatten()
        n = len(flat)

        def apply(v):
            if not isinstance(zero, list):
                z = v.reshape(zero.shape)
                return (z - splitting.operator(z, 0 * zero, *weights)).flatten()
            parts = [p.reshape(t.shape) for p, t in zip(v.split([t.numel() for t in zero]), zero)]
            out = splitting.operator(parts, [0 * t for t in zero], *weights)
            return torch.cat([(p - o).flatten() for p, o in zip(parts, out)])

        return torch.stack([apply(e) for e in torch.eye(n)], dim=1)


MODELS = {
    "dense": (lambda s: MonotoneDEQ(5, 12, m=0.2, solver=s), (3, 5)),
    "conv": (lambda s: MonotoneConvDEQ(2, 3, (5, 6), m=0.2, solver=s), (3, 2, 5, 6)),
    "tiers": (lambda s: MonotoneMultiTierDEQ(2, (2, 3), (6, 6), m=0.2, solver=s), (3, 2, 6, 6)),
}


@pytest.mark.parametrize("name", MODELS)
def test_monotone_by_construction(name):
    make, shape = MODELS[name]
    model = make(Anderson())
    W = dense_matrix(model, torch.randn(shape))
    gap = torch.eye(len(W)) - W
    assert torch.linalg.eigvalsh((gap + gap.T) / 2).min() >= 0.2 - 1e-10


@pytest.mark.parametrize("name", MODELS)
def test_monotone_solvers_agree_and_gradients_match_unrolled(name):
    make, shape = MODELS[name]
    x = torch.randn(shape)
    model = make(NewtonKrylov(**TIGHT))
    z = model(x)
    reference = gradients(torch.cat([t.flatten() for t in z]) if isinstance(z, list) else z, model)
    splitting, weights = model.splitting()
    injection = model.inject(x)
    # The unrolled oracle: damped forward-backward steps, recorded.
    u = injection
    step = 0.08
    for _ in range(1500):
        value = splitting.operator(u, injection, *weights)
        if isinstance(u, list):
            u = splitting.prox([a - step * b for a, b in zip(u, value)], step)
        else:
            u = splitting.prox(u - step * value, step)
    flat = torch.cat([t.flatten() for t in u]) if isinstance(u, list) else u
    assert_close(reference, gradients(flat, model), 1e-8)
    solvers = [Anderson(max_steps=3000, **TIGHT), ForwardBackward(alpha=step, max_steps=5000, **TIGHT)]
    if name != "tiers":
        solvers.append(PeacemanRachford(max_steps=3000, **TIGHT))
    for solver in solvers:
        model.solver = solver
        again = model(x)
        for a, b in zip(again, z):
            assert (a - b).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_step_search_shortens_the_solve(name):
    make, shape = MODELS[name]
    x = torch.randn(shape)
    model = make(PeacemanRachford(alpha=0.01, max_steps=20000))
    before = model(x, return_info=True)[1].iterations.max()
    alpha = model.tune_step(x)
    assert model.solver.alpha == alpha != 0.01
    assert model(x, return_info=True)[1].iterations.max() < before


def test_monotone_model_refuses_what_it_cannot_do():
    with pytest.raises(InvalidArgument):
        MonotoneDEQ(3, 3, m=0.0)
    with pytest.raises(InvalidArgument, match="Anderson"):
        MonotoneDEQ(3, 3, activation=torch.tanh)
    with pytest.raises(InvalidArgument):
        MonotoneConvDEQ(1, 2, (4, 4), kernel=2)
    with pytest.raises(InvalidArgument):
        MonotoneMultiTierDEQ(1, (2, 2), (5, 5))
    model = MonotoneMultiTierDEQ(1, (2, 2), (6, 6), solver=PeacemanRachford())
    with pytest.raises(UnsupportedError, match="resolvent"):
        model(torch.randn(1, 1, 6, 6))


# -- certificates
# -------------------------------------------------------------------------------------------------------


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


# -- implicit models
# ----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", MODELS)
def test_splitting_solvers_run_under_vmap(name):
    """A model per place of the axis, shared inputs, and the other way round; values and gradients as in a loop."""
    make, shape = MODELS[name]
    solver = ForwardBackward(alpha=0.1, max_steps=5000, **TIGHT) if name == "tiers" else PeacemanRachford(**TIGHT)
    model, other = make(solver), make(solver)
    x = torch.randn(2, *shape)
    names = [n for n, _ in model.named_parameters()]
    stacked = {n: torch.stack([dict(m.named_parameters())[n].detach() for m in (model, other)]) for n in names}

    def total(parameters, x):
        z = functional_call(model, parameters, (x,))
        return sum(t.square().sum() for t in (z if isinstance(z, list) else [z]))

    gradient = torch.func.grad_and_value(total)
    for dims in ((0, None), (None, 0), (0, 0)):
        parameters = stacked if dims[0] == 0 else {n: t[0] for n, t in stacked.items()}
        inputs = x if dims[1] == 0 else x[0]
        grads, values = torch.func.vmap(gradient, in_dims=dims)(parameters, inputs)
        for i in range(2):
            one = {n: t[i] for n, t in stacked.items()} if dims[0] == 0 else parameters
            expected, value = gradient(one, inputs[i] if dims[1] == 0 else inputs)
            assert_close([values[i]], [value])
            assert_close([grads[n][i] for n in names], [expected[n] for n in names])


def test_starts_alone_may_be_mapped_and_vmap_nests():
    model = MonotoneDEQ(5, 12, m=0.2, solver=PeacemanRachford(**TIGHT))
    x, z0 = torch.randn(2, 2, 3, 5), torch.rand(2, 2, 3, 12)
    expected = model(x[0, 0])
    found = torch.func.vmap(lambda z0: model(x[0, 0], z0))(z0[0])
    assert_close(list(found), [expected, expected])
    found = torch.func.vmap(torch.func.vmap(model))(x)
    assert_close([found.reshape(12, 12)], [model(x.reshape(12, 5))])


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


@pytest.mark.parametrize("stride", [1, 2])
def test_norm_bound_of_padded_convolutions(stride):
    size = (6, 8)
    inputs = torch.eye(2 * math.prod(size)).reshape(-1, 2, *size)
    for seed in range(10):
        kernel = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(seed))
        images = torch.nn.functional.conv2d(inputs, kernel, stride=stride, padding=1)
        norm = torch.linalg.matrix_norm(images.flatten(1), ord=2)
        assert norm <= padded_norm(kernel, size) <= 1.3 * stride * norm
    assert torch.equal(images, downsample(kernel, inputs)) == (stride == 2)


SINGLE_ITEMS = [
    (lambda: MonotoneDEQ(3, 5), (3,)),
    (lambda: MonotoneDEQ(3, 5, solver=Anderson()), (3,)),
    (lambda: ImplicitModel(3, 5, 2), (3,)),
    (lambda: DEQ(ContractingCell()), (3,)),
    (lambda: MonotoneConvDEQ(2, 3, (4, 4)), (2, 4, 4)),
    (lambda: MonotoneMultiTierDEQ(2, (3, 2), (6, 6), solver=Anderson()), (2, 6, 6)),
]


class ContractingCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, z, x):
        return torch.tanh(0.3 * self.linear(z) + x)


@pytest.mark.parametrize(("build", "shape"), SINGLE_ITEMS)
def test_an_item_without_batch_axis_is_solved_as_in_a_batch(build, shape):
    """Its entries depend on each other: they are one item, not a batch of them."""
    torch.manual_seed(0)
    model = build().double()
    model.solver = dataclasses.replace(model.solver, atol=1e-12, rtol=1e-12)
    x = torch.randn(4, *shape, dtype=torch.float64, requires_grad=True)

    def derivative(z):
        total = sum(t.square().sum() for t in tree_leaves(z))
        return torch.autograd.grad(total, [x, *model.parameters()])

    batch, one = model(x), [model(item) for item in x]
    mapped = torch.func.vmap(model)(x)
    rows = [torch.stack(parts) for parts in zip(*map(tree_leaves, one), strict=True)]
    for expected, stacked, found in zip(tree_leaves(batch), rows, tree_leaves(mapped), strict=True):
        torch.testing.assert_close(stacked, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for expected, stacked in zip(derivative(batch), derivative(one), strict=True):
        torch.testing.assert_close(stacked, expected, rtol=1e-8, atol=1e-8)

"""Derivatives of layers against torch's numerical checks, for every cone and every transform."""

import cvxpy as cp
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from conelayers import CvxpyLayer
from conelayers.errors import UnsupportedError


def quadratic():
    x, F, g, h = cp.Variable(3), cp.Parameter((4, 3)), cp.Parameter(4), cp.Parameter(2)
    constraints = [x[:2] <= h, cp.sum(x) == 1]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g)), constraints)
    layer = CvxpyLayer(problem, [F, g, h], [x, constraints[0].dual_variables[0], constraints[1].dual_variables[0]])
    torch.manual_seed(0)
    return layer, (torch.randn(4, 3), torch.randn(4), torch.tensor([0.1, 2.0]))


def second_order():
    x, F, c = cp.Variable(3), cp.Parameter((2, 3)), cp.Parameter(3)
    ball = cp.norm(F @ x) <= 1
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [ball])
    torch.manual_seed(1)
    return CvxpyLayer(problem, [F, c], [x]), (torch.randn(2, 3) + 1, 3 * torch.ones(3))


def semidefinite():
    X, C, b = cp.Variable((3, 3), PSD=True), cp.Parameter((3, 3), symmetric=True), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [cp.trace(X) == b])
    torch.manual_seed(2)
    C_value = torch.randn(3, 3)
    return CvxpyLayer(problem, [C, b], [X]), (C_value + C_value.T, torch.tensor(1.0))


def repeated_eigenvalues():
    """At C = diag(1, 1, -1) the projection has repeated eigenvalues of both signs."""
    X, C = cp.Variable((3, 3), symmetric=True), cp.Parameter((3, 3), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - C)), [X >> 0])
    return CvxpyLayer(problem, [C], [X]), (torch.diag(torch.tensor([1.0, 1.0, -1.0])),)


def exponential():
    x, a, t = cp.Variable(3), cp.Parameter(3), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.sum(cp.exp(x)) <= t])
    torch.manual_seed(3)
    return CvxpyLayer(problem, [a, t], [x]), (torch.randn(3) + 1, torch.tensor(3.0))


def entropy():
    x, c, b = cp.Variable(4), cp.Parameter(4), cp.Parameter()
    problem = cp.Problem(cp.Maximize(c @ x + cp.sum(cp.entr(x))), [cp.sum(x) == b])
    torch.manual_seed(4)
    return CvxpyLayer(problem, [c, b], [x]), (torch.randn(4), torch.tensor(1.5))


def power():
    x, a, t = cp.Variable(3, nonneg=True), cp.Parameter(3), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [cp.PowCone3D(x[0], x[1], t, 0.3)])
    return CvxpyLayer(problem, [a, t], [x]), (torch.tensor([0.2, 0.5, 1.0]), torch.tensor(1.0))


FAMILIES = [quadratic, second_order, semidefinite, repeated_eigenvalues, exponential, entropy, power]


def prepared(family):
    layer, params = family()
    return layer, tuple(p.requires_grad_() for p in params)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_first_derivatives(family):
    layer, params = prepared(family)
    assert gradcheck(layer, params, check_forward_ad=True, eps=1e-5, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_second_derivatives(family):
    layer, params = prepared(family)
    assert gradgradcheck(
        layer, params, check_fwd_over_rev=True, check_rev_over_rev=True, eps=1e-5, atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_jacobians_by_transforms(family):
    layer, params = family()
    every = tuple(range(len(params)))
    reverse = torch.func.jacrev(lambda *p: layer(*p)[0], every)(*params)
    forward = torch.func.jacfwd(lambda *p: layer(*p)[0], every)(*params)
    looped = torch.autograd.functional.jacobian(lambda *p: layer(*p)[0], params)
    for r, f, slow in zip(reverse, forward, looped, strict=True):
        torch.testing.assert_close(r, slow, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(f, slow, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_derivatives_mapped_by_the_older_vmap(family):
    """`torch.autograd.functional` with vectorize=True has a vmap of its own, which knows no rules of functions."""
    layer, params = prepared(family)

    def loss(*p):
        return sum((value**2).sum() for value in layer(*p))

    looped = torch.autograd.functional.jacobian(layer, params)
    for mode in ("reverse-mode", "forward-mode"):
        mapped = torch.autograd.functional.jacobian(layer, params, vectorize=True, strategy=mode)
        torch.testing.assert_close(mapped, looped, rtol=1e-8, atol=1e-10)
    looped = torch.autograd.functional.hessian(loss, params)
    for mode in ("reverse-mode", "forward-mode"):
        mapped = torch.autograd.functional.hessian(loss, params, vectorize=True, outer_jacobian_strategy=mode)
        torch.testing.assert_close(mapped, looped, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_vmap_is_a_batch(family):
    layer, params = family()
    batched = tuple(torch.stack([p, p * 1.02, p * 0.97]) for p in params)
    mapped = torch.func.vmap(layer)(*batched)
    for ours, direct in zip(mapped, layer(*batched), strict=True):
        torch.testing.assert_close(ours, direct, rtol=1e-9, atol=1e-10)

    def loss(*p):
        return (layer(*p)[0] ** 2).sum()

    mapped_gradients = torch.func.vmap(torch.func.grad(loss, argnums=tuple(range(len(params)))))(*batched)
    leaves = tuple(p.clone().requires_grad_() for p in batched)
    gradients = torch.autograd.grad(loss(*leaves), leaves)
    for ours, direct in zip(mapped_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, direct, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("family", [quadratic, second_order, semidefinite], ids=lambda f: f.__name__)
def test_hessian_of_a_loss(family):
    layer, params = family()

    def loss(last):
        return (layer(*params[:-1], last)[0] ** 3).sum()

    looped = torch.autograd.functional.hessian(loss, params[-1])
    for outer in (torch.func.jacrev, torch.func.jacfwd):
        for inner in (torch.func.jacrev, torch.func.jacfwd):  # torch loses second tangents of forward over forward
            torch.testing.assert_close(outer(inner(loss))(params[-1]), looped, rtol=1e-8, atol=1e-9)


def test_checkpoints():
    layer, params = prepared(second_order)
    expected = torch.autograd.grad(layer(*params)[0].square().sum(), params)
    for reentrant in (False, True):
        (x,) = checkpoint(layer, *params, use_reentrant=reentrant)
        gradients = torch.autograd.grad(x.square().sum(), params) if not reentrant else backward(x, params)
        torch.testing.assert_close(gradients, expected)


def backward(x, params):
    """Reentrant checkpoints know `backward` only."""
    x.square().sum().backward()
    return tuple(p.grad for p in params)


def test_parameters_without_effect_have_gradients_of_zeros():
    """A constant of the objective moves no solution: its gradient is there all the same, also where it stands alone."""
    x, target, offset = cp.Variable(2), cp.Parameter(2), cp.Parameter(2, complex=True)
    constant = cp.sum(cp.real(offset))
    free = cp.Problem(cp.Minimize(cp.sum_squares(x - target) + constant), [cp.sum(x) == 1])
    values = torch.tensor([1.0, 2.0]).double(), torch.tensor([[1 + 2j, 0.5], [1j, 3]])
    a, c = (value.clone().requires_grad_() for value in values)
    layer = CvxpyLayer(free, [target, offset], [x])
    (solution,) = layer(a, c)
    assert solution.shape == (2, 2)
    of_target, of_offset = torch.autograd.grad(solution[:, 0].sum(), (a, c))
    torch.testing.assert_close(of_target, torch.tensor([1.0, -1.0]).double())
    assert of_offset.dtype == c.dtype and torch.equal(of_offset, torch.zeros_like(c))

    fixed = CvxpyLayer(cp.Problem(cp.Minimize(constant), [cp.sum(x) == 1, x[0] == 3 * x[1]]), [offset], [x])
    (solution,) = fixed(c)
    (solution * solution).sum().backward()
    assert torch.equal(c.grad, torch.zeros_like(c))
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.equal(
            transform(lambda value: fixed(torch.complex(value, value))[0])(a.detach()), torch.zeros(2, 2)
        )


def test_products_with_hessians_by_three_backward_passes():
    """`torch.autograd.functional.hvp` differentiates a graph of third order along an argument that enters linearly."""
    layer, (F, c) = second_order()
    direction = torch.randn_like(c)

    def loss(value):
        return layer(F, value)[0].square().sum()

    expected = torch.func.hessian(loss)(c) @ direction
    for product in (torch.autograd.functional.hvp, torch.autograd.functional.vhp):
        torch.testing.assert_close(product(loss, c, direction)[1], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("outer", [torch.func.jacrev, torch.func.jacfwd])
def test_third_derivatives_of_curved_cones_are_refused(outer):
    layer, (F, c) = second_order()
    with pytest.raises(UnsupportedError, match="Third derivatives"):
        outer(torch.func.hessian(lambda value: layer(F, value)[0].square().sum()))(c)


@pytest.mark.parametrize("seed", range(4))
def test_duals_of_hermitian_constraints_are_unique(seed):
    """The nearest semidefinite matrix X to A has the dual 2(X - A); as real matrices of twice the order it has many."""
    X, target = cp.Variable((3, 3), hermitian=True), cp.Parameter((3, 3), hermitian=True)
    psd = X >> 0
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X - target)), [psd])
    layer = CvxpyLayer(problem, [target], [X, psd.dual_variables[0]])
    torch.manual_seed(seed)
    A, direction, weights = (M + M.mH for M in torch.randn(3, 3, 3, dtype=torch.complex128))

    def closed_form(M):
        values, vectors = torch.linalg.eigh((M + M.mH) / 2)
        return 2 * (vectors * (-values).clamp(min=0).to(M.dtype)) @ vectors.mH

    def along(function):
        return torch.func.jvp(lambda M: torch.view_as_real(function(M)), (A,), (direction,))[1]

    torch.testing.assert_close(layer(A)[1], closed_form(A), rtol=0, atol=1e-9)
    expected = along(closed_form)
    torch.testing.assert_close(along(lambda M: layer(M)[1]), expected, rtol=0, atol=1e-8)
    leaf = A.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((weights.conj() * layer(leaf)[1]).real.sum(), leaf)
    reverse, forward = (gradient.conj() * direction).real.sum(), (torch.view_as_real(weights) * expected).sum()
    torch.testing.assert_close(reverse, forward, rtol=0, atol=1e-8)

"""Cone programmes given as data: random ones of every cone mix, against two independent derivative oracles."""

import numpy as np
import pytest
import torch
from oracles import central_differences, diffcp_adjoint, random_program, random_tangent, relative_error
from torch.autograd import gradcheck, gradgradcheck

from conelayers import ConeLayer, ConelayersError, Smoothed, solve_cone_program
from conelayers.backends import SCS
from conelayers.cones import (
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    ProductCone,
    SecondOrder,
    Zero,
)

MIXES = {
    "linear": ([Zero(3), Nonnegative(6)], 10),
    "second-order": ([Zero(1), SecondOrder(4), SecondOrder(3), SecondOrder(1)], 9),
    "semidefinite": ([PositiveSemidefinite(3), Zero(1), PositiveSemidefinite(2)], 10),
    "exponential": ([Nonnegative(2), Exponential(), Exponential()], 8),
    "power": ([Power(0.3), Power(0.8), Zero(1)], 8),
    "duals": ([DualExponential(), DualPower(0.4), Nonnegative(2)], 9),
    "all": (
        [PositiveSemidefinite(2), Exponential(), Zero(2), SecondOrder(3), Power(0.6), Nonnegative(3),
         PositiveSemidefinite(3), DualExponential(), DualPower(0.2)],
        24,
    ),
}  # fmt: skip
WITH_DIFFCP = ["linear", "second-order", "semidefinite", "exponential"]


def leaves_of(program):
    return [getattr(program, name).clone().requires_grad_() for name in ("P", "q", "A", "b")]


@pytest.mark.parametrize("backend", ["BATCHED", "CLARABEL"])
@pytest.mark.parametrize("mix", MIXES)
def test_gradients_agree_with_central_differences(mix, backend):
    cones, n = MIXES[mix]
    program, known = random_program(cones, n, (3,), seed=20)
    layer = ConeLayer(*_layer_arguments(program), solver=backend)
    leaves = leaves_of(program)
    solution = layer.solve_values(*leaves)
    generator = torch.Generator().manual_seed(1)
    weights = [
        torch.randn(value.shape, generator=generator, dtype=torch.float64) for value in (known.x, known.y, known.s)
    ]
    for value, expected in zip((solution.x, solution.y, solution.s), (known.x, known.y, known.s), strict=True):
        torch.testing.assert_close(value.detach(), expected, rtol=1e-9, atol=1e-9)
    loss = sum((w * value).sum() for w, value in zip(weights, (solution.x, solution.y, solution.s), strict=True))
    gradients = torch.autograd.grad(loss, leaves)
    tangent = random_tangent(program)
    differences = central_differences(program, tangent, known)
    parts = (tangent.P, tangent.q, tangent.A, tangent.b)
    # The slope of each item's loss; items are independent.
    slopes = sum((g * d).sum(-1) for g, d in zip(gradients, parts, strict=True))
    expected = sum((w * d).sum(-1) for w, d in zip(weights, differences, strict=True))
    assert relative_error(slopes, expected) < 1e-7


@pytest.mark.parametrize("mix", WITH_DIFFCP)
def test_gradients_agree_with_diffcp(mix):
    cones, n = MIXES[mix]
    program, known = random_program(cones, n, (), seed=21)
    layer = ConeLayer(*_layer_arguments(program))
    leaves = leaves_of(program)
    solution = layer.solve_values(*leaves)
    weights = [torch.randn_like(value) for value in (known.x, known.y, known.s)]
    outputs = (solution.x, solution.y, solution.s)
    gradients = torch.autograd.grad(outputs, leaves, grad_outputs=weights)
    for ours, theirs in zip(gradients, diffcp_adjoint(program, *weights), strict=True):
        assert relative_error(ours, theirs) < 1e-6


def _layer_arguments(program):
    structure = program.structure
    return structure.cone, structure.A_matrix(np.ones(structure.A_nnz)), structure.P_matrix(np.ones(structure.P_nnz))


def small():
    """One programme with a curved cone; dense tensors."""
    program, _ = random_program([Zero(1), SecondOrder(3), Nonnegative(2)], 5, (), seed=3, density=1.0)
    s = program.structure
    P = torch.zeros(5, 5, dtype=torch.float64)
    P[s.P_indices, s.P_columns] = program.P
    P = P + P.triu(1).T
    A = torch.zeros(s.m, 5, dtype=torch.float64)
    A[s.A_indices, s.A_columns] = program.A
    return P, program.q, A, program.b, s.cone


def test_dense_tensors_twice_differentiable():
    *tensors, cone = small()
    leaves = [t.requires_grad_() for t in tensors]

    def solve(P, q, A, b):
        solution = solve_cone_program(P, q, A, b, cone)
        return solution.x, solution.y, solution.s

    assert gradcheck(solve, leaves, check_forward_ad=True, eps=1e-5, atol=1e-7, rtol=1e-6)
    assert gradgradcheck(solve, leaves, eps=1e-5, atol=1e-6, rtol=1e-5)


def test_second_derivatives_of_slacks_in_both_orders():
    P, q, A, b, cone = small()

    def slacks(row):
        return solve_cone_program(P, q, torch.cat([A[:1] * row, A[1:]]), b, cone).s

    reverse_over_forward = torch.func.jacrev(torch.func.jacfwd(slacks))(torch.ones(5))
    forward_over_reverse = torch.func.jacfwd(torch.func.jacrev(slacks))(torch.ones(5))
    torch.testing.assert_close(reverse_over_forward, forward_over_reverse, rtol=1e-7, atol=1e-9)
    assert forward_over_reverse.abs().max() > 1e-3


def test_sparse_tensors_have_gradients_on_their_pattern():
    P, q, A, b, cone = small()
    A[0, 0] = 0.0
    leaf = A.to_sparse_coo().requires_grad_()
    solution = solve_cone_program(P, q, leaf, b, cone)
    (gradient,) = torch.autograd.grad(solution.x.sum(), leaf)
    dense = A.clone().requires_grad_()
    (expected,) = torch.autograd.grad(solve_cone_program(P, q, dense, b, cone).x.sum(), dense)
    mask = A != 0
    torch.testing.assert_close(gradient.to_dense()[mask], expected[mask], rtol=1e-9, atol=1e-10)


def test_asymmetric_P_counts_by_its_symmetric_part():
    P, q, A, b, cone = small()
    skew = torch.randn(5, 5, dtype=torch.float64)
    skew = skew - skew.T
    expected = solve_cone_program(P, q, A, b, cone).x
    torch.testing.assert_close(solve_cone_program(P + skew, q, A, b, cone).x, expected, rtol=1e-9, atol=1e-9)


def test_batch_axes_and_sums_over_shared_tensors():
    P, q, A, b, cone = small()
    q_many = q + 0.1 * torch.randn(2, 3, 5, dtype=torch.float64)
    shared = A.clone().requires_grad_()
    solution = solve_cone_program(P, q_many, shared, b, cone)
    assert solution.x.shape == (2, 3, 5) and solution.status.shape == (2, 3)
    (gradient,) = torch.autograd.grad(solution.x.sum(), shared)
    separate = A.expand(2, 3, *A.shape).clone().requires_grad_()
    (each,) = torch.autograd.grad(solve_cone_program(P, q_many, separate, b, cone).x.sum(), separate)
    torch.testing.assert_close(gradient, each.sum((0, 1)), rtol=1e-9, atol=1e-10)


def test_no_rows_and_linear_objectives():
    q = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    A, b = torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    solution = solve_cone_program(torch.eye(2, dtype=torch.float64), q, A, b, [])
    torch.testing.assert_close(solution.x, -q)
    torch.testing.assert_close(torch.autograd.grad(solution.x.sum(), q)[0], -torch.ones(2, dtype=torch.float64))
    box = torch.cat([torch.eye(2), -torch.eye(2)]).double()
    bound = torch.ones(4, dtype=torch.float64, requires_grad=True)
    solution = solve_cone_program(None, q.detach(), box, bound, [Nonnegative(4)])
    torch.testing.assert_close(solution.x.detach(), torch.tensor([-1.0, 1.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(solution.x @ torch.tensor([1.0, 10.0], dtype=torch.float64), bound)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 10.0, -1.0, 0.0], dtype=torch.float64))


def test_single_precision():
    *tensors, cone = small()
    solution = solve_cone_program(*(t.float() for t in tensors), cone)
    assert solution.x.dtype == solution.gap.dtype == torch.float32


def test_smoothed_derivative_tends_to_the_exact_one():
    P, q, A, b, cone = small()
    leaf = b.clone().requires_grad_()
    (exact,) = torch.autograd.grad(solve_cone_program(P, q, A, leaf, cone).x.sum(), leaf)
    errors = []
    for mu in (1e-2, 1e-4, 1e-6):
        solution = solve_cone_program(P, q, A, leaf, cone, derivative=Smoothed(mu))
        errors.append(relative_error(torch.autograd.grad(solution.x.sum(), leaf)[0], exact))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4


def test_a_first_order_backend_is_polished_to_the_same_answer():
    P, q, A, b, cone = small()
    leaf = b.clone().requires_grad_()
    expected = solve_cone_program(P, q, A, leaf, cone)
    ours = solve_cone_program(P, q, A, leaf, cone, solver=SCS(tol=1e-6))
    torch.testing.assert_close(ours.x, expected.x, rtol=1e-10, atol=1e-11)
    (a,), (e,) = (torch.autograd.grad(s.x.sum(), leaf) for s in (ours, expected))
    torch.testing.assert_close(a, e, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(4)}, "q has shape"),
        ({"b": torch.zeros(7)}, "b has shape"),
        ({"cone": ProductCone([Zero(2)])}, "cone has dimension 2"),
        ({"P": torch.eye(4)}, "P has shape"),
        ({"q": torch.zeros(2, 5), "b": torch.zeros(3, 6)}, "batch axes"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = dict(zip(("P", "q", "A", "b", "cone"), small(), strict=True)) | change
    with pytest.raises(ConelayersError, match=message):
        solve_cone_program(**arguments)

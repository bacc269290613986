"""Kinks of semidefinite, exponential and power cones, and repeated constraints of theirs: one element in all modes."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch.func import jacfwd, jacrev

from conelayers import CvxpyLayer


def T(values) -> torch.Tensor:
    return torch.tensor(np.asarray(values, dtype=float))


def projection(constraints, point):
    """The nearest point that satisfies the constraints of it, as a function of the given one."""
    x, b = cp.Variable(point.shape, symmetric=point.ndim == 2), cp.Parameter(point.shape)
    return CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - b)), constraints(x)), [b], [x])


def in_all_modes(layer, point):
    """The Jacobian by ordinary backward passes; that of `jacrev` and `jacfwd` are the same."""

    def solution(p):
        return layer(p)[0].reshape(-1)

    p = point.clone().requires_grad_()
    out = solution(p)
    found = torch.stack([torch.autograd.grad(o, p, retain_graph=True)[0] for o in out])
    torch.testing.assert_close(jacrev(solution)(point), found, atol=1e-9, rtol=0)
    torch.testing.assert_close(jacfwd(solution)(point), found, atol=1e-9, rtol=0)
    return found.reshape(len(out), -1)


TWICE = {
    "semidefinite": (lambda x: [x >> 0, 2 * x >> 0], [[1.0, 2.0], [2.0, -1.0]]),
    "exponential": (lambda x: [cp.exp(x[0]) <= x[1]] * 2, [1.0, 0.5]),
    "power": (lambda x: [cp.PowCone3D(x[0], 1, x[1], 0.3)] * 2, [0.5, 1.5]),
}
"""Multipliers are not unique, the solution is differentiable."""


@pytest.mark.parametrize("name", TWICE)
def test_a_constraint_given_twice_leaves_the_derivative_alone(name):
    constraints, point = TWICE[name][0], T(TWICE[name][1])
    layer = projection(constraints, point)
    step = 1e-4 * torch.ones_like(point)
    ahead, behind = (layer(point + s * step)[0].reshape(-1) for s in (1, -1))
    found = in_all_modes(layer, point) @ step.reshape(-1)
    torch.testing.assert_close(found, (ahead - behind) / 2, atol=1e-9, rtol=0)


WEAK = {
    "semidefinite": (lambda x: [x >> 0], [[1.0, 1.0], [1.0, 1.0]]),
    "exponential": (lambda x: [cp.exp(x[0]) <= x[1]], [0.0, 1.0]),
    "power": (lambda x: [cp.power(x[0], 1.5, approx=False) <= x[1]], [1.0, 1.0]),
}
"""The point lies on the constraint's boundary: the pieces are the identity and the projection onto the tangent."""


@pytest.mark.parametrize("name", WEAK)
def test_a_constraint_without_force_holds_or_does_not(name):
    constraints, point = WEAK[name][0], T(WEAK[name][1])
    layer = projection(constraints, point)
    found = in_all_modes(layer, point)
    inward = T([[1.0, -1.0], [-1.0, 1.0]]) if point.dim() == 2 else T([-1.5 if name == "power" else -1.0, 1.0])
    pieces = [in_all_modes(layer, point + s * inward) for s in (1e-4, -1e-4)]
    assert min(float((piece - found).abs().max()) for piece in pieces) < 1e-3
    assert float((pieces[0] - pieces[1]).abs().max()) > 0.2

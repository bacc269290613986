"""Certificates whose matrices have entries that should be zero: interior points leave small numbers there."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer, Status


@pytest.mark.parametrize("order", [4, 10, 26])
@pytest.mark.parametrize("trace", [-1.0, -1e-3, -1e4])
@pytest.mark.parametrize("solver", [None, "CLARABEL"])
def test_a_negative_trace_is_infeasible(solver, order, trace):
    X, t = cp.Variable((order, order), PSD=True), cp.Parameter()
    problem = cp.Problem(cp.Minimize(cp.sum(X)), [cp.trace(X) == t, X[0, 0] >= 0.5])
    layer = CvxpyLayer(problem, [t], [X], solver=solver, on_failure="nan")
    assert layer.solve(torch.tensor(trace)).status is Status.PRIMAL_INFEASIBLE


@pytest.mark.parametrize("solver", [None, "CLARABEL"])
def test_norms_below_zero_are_infeasible(solver):
    x, r = cp.Variable(6), cp.Parameter()
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum(x)), [cp.norm(x) <= r]), [r], [x], solver=solver, on_failure="nan")
    assert layer.solve(torch.tensor(-0.5)).status is Status.PRIMAL_INFEASIBLE


@pytest.mark.parametrize("solver", [None, "CLARABEL"])
def test_unbounded_in_a_matrix(solver):
    X, C = cp.Variable((5, 5), PSD=True), cp.Parameter((5, 5), symmetric=True)
    problem = cp.Problem(cp.Minimize(cp.trace(C @ X)), [X[0, 0] <= 1])
    layer = CvxpyLayer(problem, [C], [X], solver=solver, on_failure="nan")
    assert layer.solve(torch.tensor(np.diag([1.0, 1, 1, 1, -1]))).status is Status.DUAL_INFEASIBLE

"""Problems that break CVXPY's rules: the message names the place, the rule and a rewrite that works."""

import cvxpy as cp
import numpy as np
import pytest
import torch

from conelayers import CvxpyLayer
from conelayers.errors import InvalidArgument

w = cp.Variable(3, name="w")
gamma, tc = cp.Parameter(nonneg=True, name="gamma"), cp.Parameter(nonneg=True, name="tc")
p, w0, mu = (cp.Parameter(3, name=name) for name in ("p", "w0", "mu"))
Sigma, L, free = cp.Parameter((3, 3), PSD=True, name="Sigma"), cp.Parameter((3, 3), name="L"), cp.Parameter(name="free")
indefinite = np.diag([1.0, -1.0, 2.0])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            gamma * cp.quad_form(w, Sigma),
            r"In the objective, gamma \* quad_form\(w, Sigma\) breaks the DPP rules: it multiplies the parameters "
            r"gamma, Sigma.*write quad_form\(w, S\), and pass S = gamma \* Sigma",
        ),
        (tc * cp.norm1(w - w0), r"tc \* norm1\(w - w0\) breaks the DPP.*z == w - w0, and write tc \* norm1\(z\)"),
        (gamma * cp.sum_squares(L @ w), r"z of shape \(3,\).*z == L @ w, and write gamma \* sum_squares\(z\)"),
        (gamma * (mu @ w), r"z == mu @ w, and write gamma \* z"),
        (-(mu @ w) / cp.norm(L @ w), r"DCP rules: a ratio.*minimise norm\(L @ w, 2\) subject to mu @ w == 1"),
        (gamma * tc * cp.norm1(w), r"gamma \* tc breaks the DPP.*one parameter for the product"),
        (cp.exp(free) * cp.norm1(w), r"exp\(free\) is not affine in its parameter\(s\) free.*Declare one parameter"),
        (cp.sum(w / gamma), r"divides by the parameter\(s\) gamma.*1 / gamma"),
        (free * cp.norm1(w), r"sign of free is unknown.*nonneg=True"),
        (cp.quad_form(w, indefinite), r"quad_form\(w, .*not positive semidefinite.*psd_wrap"),
        (cp.sqrt(cp.sum_squares(w)), r"sum_squares\(w\) is convex.*Write norm\(x\)"),
        (w[0] * w[1], "DCP rules: a product of two expressions with variables"),
        (cp.sum(cp.log(w)), r"is concave and Minimize needs a convex"),
        (cp.log(cp.sum_squares(w)), "log is concave and takes .* convex"),
    ],
    ids=str,
)
def test_objectives(objective, message):
    problem = cp.Problem(cp.Minimize(objective), [w >= 0])
    with pytest.raises(InvalidArgument, match=r"Problem must be DPP.*" + message):
        CvxpyLayer(problem, problem.parameters(), [w])


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (cp.sum_squares(w) == 1, r"In constraint 0 \(.*\), the two sides of an equality must be affine"),
        ((cp.norm(w) >= gamma).set_label("far"), r"constraint 'far', the left side is constant.*right side convex"),
        (tc * cp.norm1(w - w0) <= 1, r"constraint 0 .*z == w - w0"),
        (cp.log(w) == 0, "affine"),
    ],
    ids=str,
)
def test_constraints(constraint, message):
    problem = cp.Problem(cp.Minimize(cp.sum(w)), [constraint, w <= 1])
    with pytest.raises(InvalidArgument, match=r"Problem must be DPP.*" + message):
        CvxpyLayer(problem, problem.parameters(), [w])


def test_the_rewrites_work():
    z, S = cp.Variable(3), cp.Parameter((3, 3), PSD=True)
    objectives = [
        (cp.quad_form(w, S), []),
        (tc * cp.norm1(z), [z == w - w0]),
        (gamma * cp.sum_squares(z), [z == L @ w]),
    ]
    for objective, definitions in objectives:
        problem = cp.Problem(cp.Minimize(objective), [cp.sum(w) == 1, w >= 0, *definitions])
        CvxpyLayer(problem, problem.parameters(), [w])


Q = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])
root = np.linalg.cholesky(Q).T
X = cp.Variable((3, 2), name="X")
s = cp.Parameter(nonneg=True, name="s")


@pytest.mark.parametrize(
    ("forms", "squares"),
    [
        (cp.quad_form(w - p, Q), cp.sum_squares(root @ (w - p))),
        (cp.matrix_frac(w - p, np.linalg.inv(Q)), cp.sum_squares(root @ (w - p))),
        (cp.quad_form(s * w, Q) - mu @ w, cp.sum_squares(s * (root @ w)) - mu @ w),
        (
            sum(cp.quad_form(X[:, k] - p, Q) for k in range(2)) + 2 * cp.quad_form(w, Q) + cp.sum_squares(X[:, 0] - w),
            sum(cp.sum_squares(root @ (X[:, k] - p)) for k in range(2))
            + 2 * cp.sum_squares(root @ w)
            + cp.sum_squares(X[:, 0] - w),
        ),
    ],
    ids=["tracking", "matrix_frac", "scaled", "stages"],
)
def test_forms_of_expressions_with_parameters(forms, squares):
    budget = cp.sum(w) == 1
    constraints, parameters = [budget, w >= 0, cp.sum(X) == 1], forms.parameters()
    wanted = [w, budget.dual_variables[0]]
    ours = CvxpyLayer(cp.Problem(cp.Minimize(forms), constraints), parameters, wanted)
    theirs = CvxpyLayer(cp.Problem(cp.Minimize(squares), constraints), parameters, wanted)
    assert ours.program.structure.P_nnz > 0 and all(v.name in ("w", "X") for v in ours.program.provenance.variables)
    torch.manual_seed(0)
    values = [torch.rand(q.shape).double().requires_grad_() for q in parameters]
    one, other = ours.solve(*values), theirs.solve(*values)
    torch.testing.assert_close(one.variables, other.variables, rtol=0, atol=1e-7)
    torch.testing.assert_close(one.value, other.value, rtol=0, atol=1e-8)
    weights = torch.randn(3).double()
    gradients = [torch.autograd.grad(weights @ solution.variables[0], values) for solution in (one, other)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-7)


def test_a_parametric_matrix_and_a_parametric_argument():
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(w - p, Sigma)), [cp.sum(w) == 1]), [p, Sigma], [w])
    at = torch.tensor([1.0, 2.0, 3.0]).double()
    weights = np.linalg.inv(Q) @ np.ones(3)
    expected = at - (at.sum() - 1) * torch.from_numpy(weights / weights.sum())
    torch.testing.assert_close(layer(at, torch.from_numpy(Q))[0], expected)


def test_nothing_is_added_where_nothing_is_needed():
    for objective in (cp.quad_form(w, Q), cp.sum_squares(w) + p @ w, cp.quad_form(w, Sigma)):
        problem = cp.Problem(cp.Minimize(objective), [cp.sum(w) == 1])
        layer = CvxpyLayer(problem, problem.parameters(), [w])
        assert (layer.program.structure.n, layer.program.structure.m) == (3, 1)

"""Everyday CVXPY problems whose regularity is known: (name, truth, problem, parameters, values).

Truth: "regular"; "not" where a variable or multiplier of the user is undetermined, or parameters pull dependent rows
apart; "open" where the user's solution is Lipschitz but some element of the Clarke Jacobian of the lifted residual is
not that of the user's problem, so that nothing may be promised; "without multipliers" where none exist, so that the
problem is not regular and a solver's point is on its way to infinity.
"""

import cvxpy as cp
import numpy as np
import torch


def T(values):
    return torch.tensor(np.asarray(values, dtype=float))


def _projection(constraints, a, extra=None):
    """argmin |x - a|^2 + extra(x) under constraints(x)."""
    x, p = cp.Variable(3, name="x"), cp.Parameter(3)
    objective = cp.sum_squares(x - p) + (0 if extra is None else extra(x))
    return cp.Problem(cp.Minimize(objective), constraints(x)), [p], [T(a)]


POINT = (0.7, 2.0, -1.0)
ONES = np.ones((3, 3))

#: Functions of x with a bound that is inactive at POINT, and one that is active there.
BOUNDED = {
    "norm": (cp.norm, 10, 1),
    "abs": (cp.abs, 10, 0.5),
    "max": (cp.max, 10, 1),
    "exp": (cp.exp, 50, 3),
    "norm1": (cp.norm1, 10, 2),
    "norm_inf": (cp.norm_inf, 10, 1.5),
    "sum abs": (lambda x: cp.sum(cp.abs(x)), 10, 2),
    "huber": (lambda x: cp.sum(cp.huber(x)), 100, 3),
    "pos": (lambda x: cp.sum(cp.pos(x)), 10, 2),
    "sum_largest": (lambda x: cp.sum_largest(x, 2), 10, 2),
    "cvar": (lambda x: cp.cvar(x, 0.5), 10, 1),
    "log_sum_exp": (cp.log_sum_exp, 10, 1),
    "entropy": (lambda x: -cp.sum(cp.entr(x + 1.5)), 100, 2),
    "geo_mean": (lambda x: -cp.geo_mean(x + 1.5), 0, -2),
    "tv": (cp.tv, 20, 2),
    "log_det": (lambda x: -cp.log_det(cp.diag(x + 1.5)), 3, -2),
    "quad_over_lin": (lambda x: cp.quad_over_lin(x, x[0] + 3), 50, 0.5),
    "sqrt": (lambda x: -cp.sum(cp.sqrt(x + 1.5)), 0, -5),
    "inv_pos": (lambda x: cp.sum(cp.inv_pos(x + 1.5)), 20, 1.5),
    "lambda_max": (lambda x: cp.lambda_max(cp.diag(x) + ONES), 20, 3),
    "sigma_max": (lambda x: cp.sigma_max(cp.diag(x) + ONES), 20, 3),
    "kl_div": (lambda x: cp.sum(cp.kl_div(x + 2, 2 * np.ones(3))), 20, 0.2),
    "logistic": (lambda x: cp.sum(cp.logistic(x)), 20, 2),
    "pnorm": (lambda x: cp.pnorm(x, 3), 9, 1),
    "two norms": (lambda x: cp.norm(x) + cp.norm1(x - 1), 30, 4),
}

#: Objectives added to |x - a|^2, at POINT.
ADDED = {
    "lasso": lambda x: 0.8 * cp.norm1(x),
    "all zero": lambda x: 9 * cp.norm1(x),
    "huber": lambda x: cp.sum(cp.huber(x)),
    "pos": lambda x: cp.sum(cp.pos(x)),
    "group lasso": lambda x: cp.norm(x[:2]) + 3 * cp.norm(x[2:]),
    "max": cp.max,
    "norm_inf": cp.norm_inf,
    "exp": lambda x: cp.sum(cp.exp(x)),
    "logistic": lambda x: cp.sum(cp.logistic(x)),
    "sum_largest": lambda x: cp.sum_largest(x, 2) / 2,
    "total variation": lambda x: 0.3 * cp.tv(x),
    "norm at zero": lambda x: 9 * cp.norm(x),
    "log_sum_exp": cp.log_sum_exp,
    "entropy": lambda x: -cp.sum(cp.entr(x + 2)),
    "nuclear norm": lambda x: 0.4 * cp.normNuc(cp.diag(x) + ONES),
    "lambda_max": lambda x: cp.lambda_max(cp.diag(x) + ONES),
    "squared norm1": lambda x: cp.square(cp.norm1(x)),
    "maximum": lambda x: cp.sum(cp.maximum(x, 2 * x, 0.3)),
}


def _nothing(x):
    return []


#: Points on kinks: (truth, constraints, a, added objective).
KINKS = {
    "ball": ("regular", lambda x: [cp.norm(x) <= 3], (2, 2, 1), None),
    "square": ("regular", lambda x: [cp.sum_squares(x) <= 9], (2, 2, 1), None),
    "simplex": ("regular", lambda x: [x >= 0, cp.sum(x) == 1], (0.6, 0.4, 0), None),
    "box": ("regular", lambda x: [cp.abs(x) <= 1], (1, 0, -2), None),
    "max": ("regular", lambda x: [cp.max(x) <= 1], (2, 1, 1), None),
    "lasso": ("regular", _nothing, (0.4, 2, -1), lambda x: 0.8 * cp.norm1(x)),
    "norm in the objective": ("regular", _nothing, (0.3, 0.4, 0), cp.norm),
    "max in the objective": ("regular", _nothing, (1, 1, 0), cp.max),
    "huber": ("regular", _nothing, (2, 0.3, -1), lambda x: cp.sum(cp.huber(x))),
    "exp": ("regular", lambda x: [cp.exp(x) <= 1], (0, -1, 1), None),
    "lambda_max": ("regular", lambda x: [cp.lambda_max(cp.diag(x)) <= 2], (2, 1, 0), None),
    "sum of abs": ("regular", lambda x: [cp.sum(cp.abs(x)) <= 3.7], POINT, None),
    "norm1": ("regular", lambda x: [cp.norm1(x) <= 3], (1.5, 1, -0.5), None),
    "sum of huber": ("regular", lambda x: [cp.sum(cp.huber(x)) <= 4.49], POINT, None),
    "sum_largest": ("regular", lambda x: [cp.sum_largest(x, 2) <= 2.7], POINT, None),
    "sum of pos": ("regular", lambda x: [cp.sum(cp.pos(x)) <= 2.7], POINT, None),
    "log_sum_exp": ("regular", lambda x: [cp.log_sum_exp(x) <= np.log(3)], (0, 0, 0), None),
    "sum of exp": ("regular", lambda x: [cp.sum(cp.exp(x)) <= 3], (0, 0, 0), None),
    "two norms": ("regular", lambda x: [cp.norm(x) + cp.norm1(x) <= 8], (1, 2, -2), None),
    "two weak sums": (
        "regular",
        lambda x: [cp.norm1(x) <= 3, cp.norm1(x[:2]) + cp.norm(x) <= 2 + np.sqrt(3)],
        (1, 1, 1),
        None,
    ),
    "range": ("regular", lambda x: [cp.max(x) - cp.min(x) <= 3], (0, 2, 3), None),
    "inactive at its own kink": ("regular", lambda x: [cp.norm(x) + cp.norm1(x) <= 3], (0, 0, 0), None),
    "inactive tie": ("regular", lambda x: [cp.max(x) + cp.norm(x) <= 30], (1, 1, 0), None),
    "sum with a tie": ("open", lambda x: [cp.norm1(x) <= 3], (3, 0, 0), None),
    "two norms with a tie": ("open", lambda x: [cp.norm(x) + cp.norm1(x) <= 12], (0, 3, 4), None),
    "double eigenvalue": ("open", lambda x: [cp.lambda_max(cp.diag(x)) <= 2], (3, 3, 0), None),
    "redundant bound": ("not", lambda x: [x <= 1, x[0] <= 1], (2, 0, 0), None),
    "touching sets": ("without multipliers", lambda x: [cp.norm(x) <= 1, x[0] >= 1], (2, 1, 0), None),
    "one point": ("not", lambda x: [cp.norm(x) <= 0], (2, 2, 1), None),
    "constraint twice": ("not", lambda x: [cp.norm(x) <= 1, cp.norm(2 * x) <= 2], (1, 2, 3), None),
    "inactive constraint twice": ("regular", lambda x: [cp.norm(x) <= 9, cp.norm(2 * x) <= 18], (1, 2, 3), None),
    "equation twice": ("not", lambda x: [cp.sum(x) == 1, 2 * cp.sum(x) == 2], (1, 2, 3), None),
}


def _regressions():
    rng = np.random.default_rng(0)
    F, point = rng.standard_normal((6, 4)), [1.0, 2, -1, 0.5, 0.3, 0.1]
    for name, loss, constraints in [
        ("least absolute deviations", lambda r, x: cp.norm1(r), None),
        ("quantile regression", lambda r, x: cp.sum(0.3 * cp.pos(r) + 0.7 * cp.neg(r)), None),
        ("Chebyshev approximation", lambda r, x: cp.norm_inf(r), None),
        ("norm twice", lambda r, x: cp.norm1(r) + cp.norm1(2 * r) + 0.01 * cp.sum_squares(x), None),
        ("lasso", lambda r, x: 0.5 * cp.sum_squares(r) + 2 * cp.norm1(x), None),
        ("square-root lasso", lambda r, x: cp.norm(r) + 0.4 * cp.norm1(x), None),
        ("constrained lasso", lambda r, x: cp.sum_squares(r), lambda x: [cp.norm1(x) <= 0.4]),
        ("constrained lasso, inactive", lambda r, x: cp.sum_squares(r), lambda x: [cp.norm1(x) <= 40]),
        ("nonnegative least squares", lambda r, x: cp.sum_squares(r), lambda x: [x >= 0]),
        ("basis pursuit", lambda r, x: cp.norm1(x), lambda x: [F[:2] @ x == np.array([1.0, 2.0])]),
    ]:
        x, b = cp.Variable(4, name="x"), cp.Parameter(6)
        problem = cp.Problem(cp.Minimize(loss(F @ x - b, x)), constraints(x) if constraints else [])
        yield f"regression: {name}", "regular", problem, [b] if b in problem.parameters() else [], [T(point)]


def _programmes():
    c, x = cp.Parameter(3), cp.Variable(3, name="x")
    simplex = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1])
    yield "LP: vertex", "regular", simplex, [c], [T([1, 2, 3])]
    yield "LP: edge", "not", simplex, [c], [T([1, 1, 3])]
    degenerate = cp.Problem(cp.Minimize(c @ x), [x >= 0, cp.sum(x) == 1, x[0] <= 1])
    yield "LP: degenerate vertex", "not", degenerate, [c], [T([1, 2, 3])]
    C, X = cp.Parameter((2, 3)), cp.Variable((2, 3), name="X")
    cost, columns = cp.sum(cp.multiply(C, X)), cp.sum(X, axis=0) == np.array([0.2, 0.3, 0.5])
    value = [T([[0.3, 0.9, 0.4], [0.8, 0.1, 0.6]])]
    full = [columns, cp.sum(X, axis=1) == np.array([0.4, 0.6]), X >= 0]
    yield "transport: a redundant equation", "not", cp.Problem(cp.Minimize(cost), full), [C], value
    lean = [columns, cp.sum(X[0]) == 0.4]
    yield "transport", "regular", cp.Problem(cp.Minimize(cost), [*lean, X >= 0]), [C], value
    entropic = cp.Problem(cp.Minimize(cost - 0.1 * cp.sum(cp.entr(X))), lean)
    yield "entropic transport", "regular", entropic, [C], value
    rng = np.random.default_rng(1)
    A, B = np.eye(4) + 0.1 * rng.standard_normal((4, 4)), 0.3 * rng.standard_normal((4, 2))
    for bound in (0.2, 20.0):
        for kind in ("abs", "norm", "norm_inf"):
            Z, U, start = cp.Variable((4, 5)), cp.Variable((2, 4), name="U"), cp.Parameter(4)
            limit = {
                "abs": [cp.abs(U) <= bound],
                "norm": [cp.norm(U[:, t]) <= bound for t in range(4)],
                "norm_inf": [cp.norm_inf(U) <= bound],
            }[kind]
            dynamics = [Z[:, 0] == start, Z[:, 1:] == A @ Z[:, :-1] + B @ U]
            problem = cp.Problem(cp.Minimize(cp.sum_squares(Z) + 0.5 * cp.sum_squares(U)), dynamics + limit)
            yield f"control: {kind} {bound}", "regular", problem, [start], [T([1, -1, 0.5, 0.2])]
    S = cp.Parameter((3, 3), symmetric=True)
    given = T(np.array([[0.3, -1.1, 0.4], [-1.1, -0.2, 0.7], [0.4, 0.7, 0.9]]))
    for name, objective, constraints in [
        ("nearest correlation matrix", lambda Y: cp.sum_squares(Y - 2 * S), lambda Y: [Y >> 0, cp.diag(Y) == 1]),
        ("largest eigenvalue", lambda Y: cp.trace(S @ Y), lambda Y: [Y >> 0, cp.trace(Y) == 1]),
        ("nuclear proximal step", lambda Y: cp.sum_squares(Y - S) + 1.2 * cp.normNuc(Y), lambda Y: []),
        ("nuclear ball", lambda Y: cp.sum_squares(Y - S), lambda Y: [cp.normNuc(Y) <= 1.5]),
        ("two matrix norms", lambda Y: cp.sum_squares(Y - S), lambda Y: [cp.sigma_max(Y) + cp.normNuc(Y) <= 30]),
    ]:
        Y = cp.Variable((3, 3), symmetric=True, name="Y")
        yield f"SDP: {name}", "regular", cp.Problem(cp.Minimize(objective(Y)), constraints(Y)), [S], [given]
    w, weight = cp.Variable(3, name="x"), cp.Parameter(nonneg=True)
    ball = [weight * cp.norm1(w[:2]) + cp.norm1(w[2:]) <= 5]
    weighted = cp.Problem(cp.Minimize(cp.sum_squares(w - 1)), ball)
    yield "weighted norm, weakly active", "regular", weighted, [weight], [T(2.0)]
    yield "weighted norm, inactive", "regular", weighted, [weight], [T(0.5)]


def problems():
    """All of them."""
    for name, (function, inactive, active) in BOUNDED.items():
        for state, bound in (("inactive", inactive), ("active", active)):
            yield f"{name} {state}", "regular", *_projection(lambda x, f=function, d=bound: [f(x) <= d], POINT)
    for name, added in ADDED.items():
        yield f"objective: {name}", "regular", *_projection(_nothing, POINT, added)
    for name, (truth, constraints, a, added) in KINKS.items():
        yield f"kink: {name}", truth, *_projection(constraints, a, added)
    yield from _regressions()
    yield from _programmes()

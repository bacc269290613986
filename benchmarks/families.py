"""The benchmark problems: one function per family, returning a problem, its parameters, its variable and a sampler.

Bounds are stacked into one inequality (`hstack([-x, x - u]) <= 0`) because Moreau 0.4.1 with CVXPY 1.9.3 drops `x >=
0` and separate bounds; the stacked form is right with every package, so all are measured on the same problem.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cvxpy as cp
import numpy as np

__all__ = ["FAMILIES", "Family", "sparse_single"]


@dataclasses.dataclass(frozen=True)
class Family:
    """A parametrised problem and random parameters for it.

    Attributes:
        name: As printed in tables.
        problem: The CVXPY problem.
        parameters: Its parameters, in the order of `sample`'s arrays.
        variables: What is returned and differentiated.
        sample: Batch size and random generator to a list of parameter arrays with a leading batch axis.
        semidefinite: Whether it has PSD cones (Clarabel's gradients through diffcp are wrong there).
    """

    name: str
    problem: cp.Problem
    parameters: list[cp.Parameter]
    variables: list[cp.Variable]
    sample: Callable[[int, np.random.Generator], list[np.ndarray]]
    semidefinite: bool = False


def dense_qp(n: int) -> Family:
    """Least squares in n variables with n dense inequalities; all data are parameters."""
    x = cp.Variable(n)
    F, g = cp.Parameter((n, n)), cp.Parameter(n)
    G, h = cp.Parameter((n, n)), cp.Parameter(n)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(F @ x - g) + 0.1 * cp.sum_squares(x)), [G @ x <= h])

    def sample(batch, rng):
        F = rng.standard_normal((batch, n, n)) / np.sqrt(n) + np.eye(n)
        G = rng.standard_normal((batch, n, n)) / np.sqrt(n)
        x0 = 0.1 * rng.standard_normal((batch, n))
        h = np.einsum("bij,bj->bi", G, x0) + 0.1 * rng.random((batch, n))
        return [F, rng.standard_normal((batch, n)), G, h]

    return Family(f"dense QP n={n}", problem, [F, g, G, h], [x], sample)


def second_order(n: int = 20, cones: int = 5, size: int = 8) -> Family:
    """Least squares with balls: ||F_i x + g_i|| <= r_i, five cones of dimension 9."""
    x = cp.Variable(n)
    F = [cp.Parameter((size, n)) for _ in range(cones)]
    g = [cp.Parameter(size) for _ in range(cones)]
    c = cp.Parameter(n)
    constraints = [cp.norm(Fi @ x + gi) <= 1 for Fi, gi in zip(F, g, strict=True)]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c)), constraints)

    def sample(batch, rng):
        Fs = [rng.standard_normal((batch, size, n)) / np.sqrt(n) for _ in range(cones)]
        gs = [0.2 * rng.standard_normal((batch, size)) for _ in range(cones)]
        return [*Fs, *gs, 2 * rng.standard_normal((batch, n))]

    return Family("second-order", problem, [*F, *g, c], [x], sample)


def semidefinite(order: int = 8, equalities: int = 5) -> Family:
    """Projection onto a slice of the semidefinite cone: 8 x 8, strongly convex, 5 equalities."""
    X = cp.Variable((order, order), symmetric=True)
    C = cp.Parameter((order, order))
    A = [cp.Parameter((order, order)) for _ in range(equalities)]
    b = cp.Parameter(equalities)
    constraints = [X >> 0] + [cp.sum(cp.multiply(A[i], X)) == b[i] for i in range(equalities)]
    problem = cp.Problem(cp.Minimize(cp.sum_squares(X) / 2 + cp.sum(cp.multiply(C, X))), constraints)

    def sample(batch, rng):
        def symmetric():
            M = rng.standard_normal((batch, order, order))
            return (M + M.transpose(0, 2, 1)) / 2

        As = [symmetric() for _ in range(equalities)]
        root = rng.standard_normal((batch, order, order))
        X0 = root @ root.transpose(0, 2, 1) / order
        b = np.stack([(Ai * X0).sum((1, 2)) for Ai in As], axis=1)
        return [symmetric(), *As, b]

    return Family("SDP 8x8", problem, [C, *A, b], [X], sample, semidefinite=True)


def logistic(points: int = 60, features: int = 10) -> Family:
    """Logistic regression with an l1 penalty: 60 points, two exponential cones each."""
    w = cp.Variable(features)
    X, lam = cp.Parameter((points, features)), cp.Parameter(nonneg=True)
    loss = cp.sum(cp.logistic(X @ w)) / points
    problem = cp.Problem(cp.Minimize(loss + lam * cp.norm1(w) + 0.005 * cp.sum_squares(w)))

    def sample(batch, rng):
        features_ = rng.standard_normal((batch, points, features))
        truth = np.zeros(features)
        truth[:3] = 2.0
        labels = np.sign(features_ @ truth + rng.standard_normal((batch, points)))
        return [-labels[..., None] * features_, 0.02 + 0.03 * rng.random(batch)]

    return Family("logistic l1", problem, [X, lam], [w], sample)


def control(horizon: int = 20, states: int = 4, inputs: int = 2) -> Family:
    """Model predictive control: linear dynamics over 20 steps, bounded inputs, from a parametric state and dynamics."""
    x, u = cp.Variable((states, horizon + 1)), cp.Variable((inputs, horizon))
    A, B, start = cp.Parameter((states, states)), cp.Parameter((states, inputs)), cp.Parameter(states)
    constraints = [x[:, 0] == start]
    constraints += [x[:, t + 1] == A @ x[:, t] + B @ u[:, t] for t in range(horizon)]
    flat = cp.vec(u, order="F")
    constraints.append(cp.hstack([flat - 0.5, -0.5 - flat]) <= 0)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x) + 0.1 * cp.sum_squares(u)), constraints)

    def sample(batch, rng):
        A = np.eye(states) + 0.1 * rng.standard_normal((batch, states, states))
        return [A, 0.3 * rng.standard_normal((batch, states, inputs)), rng.standard_normal((batch, states))]

    return Family("MPC horizon 20", problem, [A, B, start], [u], sample)


def portfolio(assets: int = 50, factors: int = 10) -> Family:
    """Markowitz portfolio with a factor model of risk, long only, with a cap per asset."""
    w, f = cp.Variable(assets), cp.Variable(factors)
    mu, F, d = cp.Parameter(assets), cp.Parameter((factors, assets)), cp.Parameter(assets)
    risk = cp.sum_squares(f) + cp.sum_squares(cp.multiply(d, w))
    constraints = [f == F @ w, cp.sum(w) == 1, cp.hstack([-w, w - 0.2]) <= 0]
    problem = cp.Problem(cp.Minimize(risk - mu @ w), constraints)

    def sample(batch, rng):
        return [
            0.1 * rng.standard_normal((batch, assets)),
            rng.standard_normal((batch, factors, assets)) / np.sqrt(factors),
            0.3 + 0.3 * rng.random((batch, assets)),
        ]

    return Family("factor portfolio", problem, [mu, F, d], [w], sample)


def sparse_single(n: int = 10_000, m: int = 3_000, seed: int = 0) -> tuple[Family, list[np.ndarray]]:
    """One large sparse QP: n box-constrained variables, m sparse equalities; rows of the cone programme about 1.3 n."""
    import scipy.sparse as sp

    rng = np.random.default_rng(seed)
    A = sp.random(m, n, density=4 / n, random_state=rng, data_rvs=rng.standard_normal, format="csc")
    A = A + sp.csc_array((np.ones(m), (np.arange(m), np.arange(m))), shape=(m, n))
    x = cp.Variable(n)
    c, b = cp.Parameter(n), cp.Parameter(m)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) / 2), [A @ x == b, x >= 0])
    b_value = A @ np.maximum(rng.standard_normal(n), 0)

    def sample(batch, rng):
        return [rng.standard_normal((batch, n)), np.tile(b_value, (batch, 1))]

    return Family(f"sparse n={n}", problem, [c, b], [x], sample), [rng.standard_normal(n), b_value]


FAMILIES: dict[str, Callable[[], Family]] = {
    "qp10": lambda: dense_qp(10),
    "qp50": lambda: dense_qp(50),
    "qp100": lambda: dense_qp(100),
    "soc": second_order,
    "sdp": semidefinite,
    "logistic": logistic,
    "mpc": control,
    "portfolio": portfolio,
}

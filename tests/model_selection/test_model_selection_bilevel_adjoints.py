"""The system with the inner Hessian: what comes back is the solver's iterate, with its residual, and never a zero."""

import warnings

import pytest
import torch

from conelayers.bilevel import BilevelProblem, implicit_hypergradient
from conelayers.errors import InaccurateWarning
from conelayers.linalg import CG, MINRES, Neumann


def quadratic(eigenvalues, seed=0):
    """The problem w = argmin w'Hw/2 - theta'w, outer(w) = c'w, whose hypergradient is H^-1 c."""
    generator = torch.Generator().manual_seed(seed)
    n = len(eigenvalues)
    Q = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]
    H = Q @ torch.diag(eigenvalues) @ Q.T
    c, theta = torch.randn(2, n, generator=generator, dtype=torch.float64)
    problem = BilevelProblem(
        lambda w, t: w[0] @ H @ w[0] / 2 - t[0] @ w[0],
        lambda w, t: c @ w[0],
    )
    return problem, (torch.linalg.solve(H, theta),), (theta,), H, c


def conjugate_gradients(H, c, steps):
    """The textbook recurrence, without any safeguard."""
    u, r = torch.zeros_like(c), c
    p = r
    for _ in range(steps):
        alpha = (r @ r) / (p @ H @ p)
        u, last, r = u + alpha * p, r, r - alpha * H @ p
        p = r + (r @ r) / (last @ last) * p
    return u


def assert_as_near(found, expected, H, c):
    """As near to H^-1 c in the norm of H: rounding moves the iterates of long runs, not their error."""
    exact = torch.linalg.solve(H, c)
    energies = [float((u - exact) @ H @ (u - exact)) for u in (found, expected, torch.zeros_like(c))]
    assert energies[0] < 1.05 * energies[1] and energies[0] < 0.9 * energies[2]


@pytest.mark.parametrize(("condition", "steps"), [(3, 5), (3, 10), (4, 50)])
def test_few_steps_on_an_ill_conditioned_problem_give_the_iterate(condition, steps):
    problem, w, theta, H, c = quadratic(torch.logspace(-condition, 0, 80, dtype=torch.float64))
    expected = conjugate_gradients(H, c, steps)
    with pytest.warns(InaccurateWarning, match="inner Hessian"):
        found = implicit_hypergradient(problem, w, theta, CG(max_iterations=steps))
    assert_as_near(found.gradient[0], expected, H, c)
    torch.testing.assert_close(found.residual, (H @ found.adjoint - c).norm() / c.norm())


def test_the_default_on_an_ill_conditioned_problem():
    problem, w, theta, H, c = quadratic(torch.logspace(-4, 0, 200, dtype=torch.float64))
    with pytest.warns(InaccurateWarning, match="relative residual"):
        found = implicit_hypergradient(problem, w, theta)
    expected = conjugate_gradients(H, c, 50)
    assert_as_near(found.gradient[0], expected, H, c)


@pytest.mark.parametrize("first", [-1.0, 1.0])
def test_an_indefinite_inner_problem_is_solved_at_its_stationary_point(first):
    eigenvalues = torch.cat([torch.full((3,), first), torch.tensor([-2.0, 3.0, 0.5])]).double()
    problem, w, theta, H, c = quadratic(eigenvalues)
    found = implicit_hypergradient(problem, w, theta)
    torch.testing.assert_close(found.gradient[0], torch.linalg.solve(H, c), rtol=1e-8, atol=1e-8)
    assert found.residual < 1e-9


def test_a_singular_inner_problem_warns():
    problem, w, theta, H, c = quadratic(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64) + 1e-300)
    with pytest.warns(InaccurateWarning, match="singular"):
        found = implicit_hypergradient(problem, (torch.ones(3, dtype=torch.float64),), theta)
    assert found.residual > 1e-2


@pytest.mark.parametrize("warm", [False, True])
def test_the_neumann_series_is_its_recursion(warm):
    problem, w, theta, H, c = quadratic(torch.linspace(1, 2, 6, dtype=torch.float64))
    start = torch.ones(6, dtype=torch.float64) if warm else None
    u = torch.zeros_like(c) if start is None else start
    for _ in range(7):
        u = u - 0.3 * (H @ u - c)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InaccurateWarning)
        found = implicit_hypergradient(problem, w, theta, Neumann(step=0.3, max_iterations=7), start)
    torch.testing.assert_close(found.adjoint, u)


@pytest.mark.parametrize("solver", [CG(), MINRES(), Neumann(step=0.6)])
def test_solvers_start_where_they_are_told(solver):
    problem, w, theta, H, c = quadratic(torch.linspace(1, 2, 6, dtype=torch.float64))
    exact = torch.linalg.solve(H, c)
    for start in (None, torch.ones(6, dtype=torch.float64), exact):
        found = implicit_hypergradient(problem, w, theta, solver, start)
        torch.testing.assert_close(found.adjoint, exact, rtol=1e-8, atol=1e-9)

"""LSMR, matrix-free and batched."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.linalg.base import LinearInfo, LinearSolver, largest, relative_residual
from conelayers.linalg.krylov import KrylovState, divide, norm
from conelayers.linalg.operators import LinearOperator

__all__ = ["LSMR"]


@dataclasses.dataclass(frozen=True)
class LSMR(LinearSolver[KrylovState]):
    """Least squares by Golub-Kahan bidiagonalisation (Fong & Saunders 2011): MINRES on A'A x = A'b, never formed.

    Of all least-squares solutions it returns the one of smallest norm. The number of iterations grows with the
    condition number of A, so where a factorization fits, it is the better choice.

    Attributes:
        tolerance: An item stops when ||r|| <= tolerance ||b|| or ||A'r|| <= tolerance ||A|| ||r||; None means 1e-10 in
            double and 1e-5 in single precision.
        max_iterations: Limit on all passes together; None means 20 max(rows, columns) + 100.
        check_every: Iterations between two questions of the host to the device.
        passes: Restarts on the measured residual, which undo the loss of orthogonality.
    """

    square = False
    singular = True
    minimum_norm = True

    tolerance: float | None = None
    max_iterations: int | None = None
    check_every: int = 10
    passes: int = 4

    def init(self, operator: LinearOperator) -> KrylovState:
        """Nothing to compute."""
        self.check(operator)
        return KrylovState(operator)

    def transpose(self, state: KrylovState) -> KrylovState:
        """The transposed operator."""
        return KrylovState(state.operator.transpose())

    def solve(self, state: KrylovState, rhs: Tensor) -> tuple[Tensor, LinearInfo]:
        """Solve for right-hand sides of shape (*rhs, *batch, rows)."""
        operator = state.operator
        batch = torch.broadcast_shapes(rhs.shape[:-1], operator.batch_shape)
        rhs = rhs.expand(*batch, rhs.shape[-1])
        scale = largest(rhs)
        scale = torch.where((scale > 0) & scale.isfinite(), scale, torch.ones_like(scale))
        b = rhs / scale
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = 1e-10 if b.dtype == torch.float64 else 1e-5
        limit = self.max_iterations if self.max_iterations is not None else 20 * max(operator.shape) + 100
        x = b.new_zeros(*batch, operator.shape[1])
        target = tolerance * norm(b)
        residual, done = b, norm(b) == 0
        iterations = torch.zeros(done.shape, dtype=torch.int64, device=b.device)
        for _ in range(self.passes):
            if limit <= 0 or bool(done.all()):
                break
            step, spent, optimality = _bidiagonalise(
                operator, residual, ~done, target, tolerance, limit, self.check_every
            )
            candidate = x + step
            candidate_residual = b - operator.matvec(candidate)
            # Corrections are sums of A'u, so the sum of passes keeps the minimum norm.
            better = norm(operator.rmatvec(candidate_residual)) < norm(operator.rmatvec(residual))
            x = torch.where(better, candidate, x)
            residual = torch.where(better, candidate_residual, residual)
            iterations = iterations + spent
            limit -= max(int(spent.max()), 1)
            first_enough = norm(operator.rmatvec(residual)) <= optimality * norm(residual)
            done = done | (norm(residual) <= target) | first_enough | ~better
        x = x * scale
        return x, LinearInfo(iterations.squeeze(-1), relative_residual(operator, x, rhs))


def _bidiagonalise(
    operator: LinearOperator,
    b: Tensor,
    active: Tensor,
    target: Tensor,
    tolerance: float,
    limit: int,
    check_every: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass from zero; returns the step, the iterations per item and the bound that ||A'r|| / ||r|| had to meet."""
    beta = norm(b)
    u = divide(b, beta)
    v = operator.rmatvec(u)
    alpha = norm(v)
    v = divide(v, alpha)
    one, nil = torch.ones_like(alpha), torch.zeros_like(alpha)
    x, h, h_bar = torch.zeros_like(v), v, torch.zeros_like(v)
    alpha_bar, zeta_bar, rho, rho_bar, c_bar, s_bar, zeta = alpha, alpha * beta, one, one, one, nil, nil
    # Quantities of the recurred residual norm (Fong & Saunders, section 3.4, without damping).
    beta_dd, beta_d, rho_d, tau_tilde, theta_tilde = beta, nil, one, nil, nil
    size = alpha**2  # Frobenius norm of the bidiagonal matrix, squared: an estimate of ||A||^2
    active = active & (zeta_bar > 0)
    iterations = torch.zeros(active.shape, dtype=torch.int64, device=b.device)
    for iteration in range(limit):
        if iteration % check_every == 0 and not bool(active.any()):
            break
        u = operator.matvec(v) - alpha * u
        beta = norm(u)
        u = divide(u, beta)
        v = operator.rmatvec(u) - beta * v
        alpha = norm(v)
        v = divide(v, alpha)
        size = torch.where(active, size + alpha**2 + beta**2, size)
        # First rotation: bidiagonal to upper bidiagonal R.
        rho_old, rho = rho, torch.hypot(alpha_bar, beta)
        c, s = divide(alpha_bar, rho), divide(beta, rho)
        theta, alpha_bar = s * alpha, c * alpha
        # Second rotation: R' to upper bidiagonal.
        rho_bar_old, zeta_old, theta_bar = rho_bar, zeta, s_bar * rho
        rho_temp = c_bar * rho
        rho_bar = torch.hypot(rho_temp, theta)
        c_bar, s_bar = divide(rho_temp, rho_bar), divide(theta, rho_bar)
        zeta, zeta_bar = c_bar * zeta_bar, -s_bar * zeta_bar
        h_bar = h - divide(theta_bar * rho, rho_old * rho_bar_old) * h_bar
        x = torch.where(active, x + divide(zeta, rho * rho_bar) * h_bar, x)
        h = v - divide(theta, rho) * h
        # Residual norm.
        beta_hat, beta_dd = c * beta_dd, -s * beta_dd
        theta_tilde_old, rho_tilde = theta_tilde, torch.hypot(rho_d, theta_bar)
        c_tilde, s_tilde = divide(rho_d, rho_tilde), divide(theta_bar, rho_tilde)
        theta_tilde, rho_d = s_tilde * rho_bar, c_tilde * rho_bar
        beta_d = c_tilde * beta_hat - s_tilde * beta_d
        tau_tilde = divide(zeta_old - theta_tilde_old * tau_tilde, rho_tilde)
        tau = divide(zeta - theta_tilde * tau_tilde, rho_d)
        residual = torch.hypot(beta_d - tau, beta_dd)
        iterations = iterations + active
        optimal = zeta_bar.abs() <= tolerance * size.sqrt() * residual
        active = active & (residual > target) & ~optimal & (alpha > 0) & (beta > 0)
    return x, iterations, tolerance * size.sqrt()

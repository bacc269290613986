"""The homogeneous self-dual embedding: residual, full Jacobian and derivative, dense and for reference.

With z = (x, v, w), y = Pi_{K*}(v), s = y - v and tau = max(w, 0), the residual is

    N(z) = ( P x + A'y + q tau,
             -A x - s + b tau,
             -q'x - b'y - x'P x / tau - max(w, 0) + w ).

For P = 0 this is N(z) = ((Q - I) Pi + I) z with the skew Q of Ye, Todd & Mizuno (1994), as Busseti, Moursi & Boyd
(2019) differentiate it; with P the embedding is nonlinear (Goulart & Chen 2024). N is positively homogeneous of degree
one, so its Jacobian at a zero is singular along z itself, always. At tau = 1 the ray can be divided out, which leaves
the reduced Jacobian J(D) that the package uses; this module is what that reduction is tested against.
"""

from __future__ import annotations

import torch
from torch import Tensor

from conelayers.linalg import DenseOperator, MinimumNorm
from conelayers.program import ConeProgram, ConeSolution

__all__ = ["embedding_derivative", "embedding_jacobian", "embedding_residual"]


def embedding_residual(program: ConeProgram, z: Tensor) -> Tensor:
    """N(z), shape (*batch, n + m + 1).

    Args:
        program: The programmes.
        z: (x, v, w), shape (*batch, n + m + 1), with w > 0 where P is not zero.
    """
    x, v, w = _split(program, z)
    y = program.structure.cone.project_dual(v)
    tau = w.clamp(min=0)
    Px = program.P_times(x)
    first = Px + program.A_transpose_times(y) + program.q * tau
    second = program.b * tau - program.A_times(x) - (y - v)
    curved = (x * Px).sum(-1, keepdim=True)
    quadratic = torch.where(curved == 0, torch.zeros_like(curved), curved / tau)
    linear = (program.q * x).sum(-1, keepdim=True) + (program.b * y).sum(-1, keepdim=True)
    return torch.cat([first, second, -linear - quadratic - tau + w], -1)


def embedding_jacobian(program: ConeProgram, z: Tensor) -> Tensor:
    """An element of the Clarke Jacobian of N at z with w > 0, shape (*batch, n + m + 1, n + m + 1)."""
    x, v, w = _split(program, z)
    P, A = _dense(program)
    D = program.structure.cone.dual_derivative(v).matrix()
    batch = torch.broadcast_shapes(program.batch_shape, z.shape[:-1])
    identity = torch.eye(D.shape[-1], dtype=D.dtype, device=D.device)
    Px, tau = program.P_times(x), w
    corner = ((x * Px).sum(-1, keepdim=True) / tau**2).unsqueeze(-1)
    q, b = program.q.unsqueeze(-1), program.b.unsqueeze(-1)
    rows = [
        [P, A.mT @ D, q],
        [-A, identity - D, b],
        [-(program.q + 2 * Px / tau).unsqueeze(-2), -(b.mT @ D), corner],
    ]
    return torch.cat([torch.cat([block.expand(*batch, *block.shape[-2:]) for block in row], -1) for row in rows], -2)


def embedding_derivative(
    program: ConeProgram,
    solution: ConeSolution,
    dP: Tensor | None = None,
    dq: Tensor | None = None,
    dA: Tensor | None = None,
    db: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Directional derivative (dx, dy, ds) of the solution, by the full Jacobian at z = (x, y - s, 1).

    From N = 0, dN/dz dz = -dN/dtheta; dz is determined up to multiples of z, which the normalisation by tau removes:
    dx = dz_x - x dtau, dy = D dz_v - y dtau, ds = D dz_v - dz_v - s dtau.

    Args:
        program: The programmes.
        solution: Their solution.
        dP: Tangent of P's values, of their shape, or None for zero.
        dq: Tangent of q.
        dA: Tangent of A's values.
        db: Tangent of b.
    """
    s = program.structure
    x, y, slack = solution.x, solution.y, solution.s
    v = y - slack
    zero_P, zero_A = torch.zeros_like(program.P), torch.zeros_like(program.A)
    moved = ConeProgram(
        s,
        zero_P if dP is None else dP,
        torch.zeros_like(program.q) if dq is None else dq,
        zero_A if dA is None else dA,
        torch.zeros_like(program.b) if db is None else db,
    )
    # At tau = 1 the residual is linear in the data, but for the two terms that hold none of it.
    Px = moved.P_times(x)
    first = Px + moved.A_transpose_times(y) + moved.q
    second = moved.b - moved.A_times(x)
    third = -((moved.q + Px) * x).sum(-1, keepdim=True) - (moved.b * y).sum(-1, keepdim=True)
    z = torch.cat([x, v, torch.ones_like(x[..., :1])], -1)
    solver = MinimumNorm(rank_tolerance=1e-12)
    dz, _ = solver.solve(
        solver.init(DenseOperator(embedding_jacobian(program, z))), -torch.cat([first, second, third], -1)
    )
    dz_x, dz_v, dtau = _split(program, dz)
    projected = s.cone.dual_derivative(v).apply(dz_v)
    return dz_x - x * dtau, projected - y * dtau, projected - dz_v - slack * dtau


def _split(program: ConeProgram, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    n, m = program.structure.n, program.structure.m
    return z[..., :n], z[..., n : n + m], z[..., n + m :]


def _dense(program: ConeProgram) -> tuple[Tensor, Tensor]:
    """P in full and A as dense tensors, shapes (*batch, n, n) and (*batch, m, n)."""
    n = program.structure.n
    identity = torch.eye(n, dtype=program.q.dtype, device=program.q.device)
    lead = (n, *(1,) * len(program.batch_shape), n)
    columns = identity.reshape(lead)
    P, A = program.P_times(columns), program.A_times(columns)
    return P.movedim(0, -1), A.movedim(0, -1)

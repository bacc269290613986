"""Independent answers to compare with: random programmes with a known solution, and derivatives by two other ways.

1. `central_differences`: fourth-order differences of solutions polished to 1e-12 (`reference_solution` checks it). At
   solver accuracy alone, differences are wrong by percents once a curved cone is active.
2. `diffcp_adjoint`: diffcp's dense mode with SCS, quadratic objectives lifted to a second-order cone.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.backends import Clarabel, Diffcp
from conelayers.cones import ProductCone, SecondOrder
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.residual.polish import polish

__all__ = [
    "central_differences",
    "diffcp_adjoint",
    "random_program",
    "random_tangent",
    "reference_solution",
    "relative_error",
]


def random_program(
    cones, n: int, batch: tuple[int, ...] = (), seed: int = 0, *, quadratic: bool = True, density: float = 0.7
) -> tuple[ConeProgram, ConeSolution]:
    """Programmes made from a solution: x and v are drawn, y = Pi_{K*}(v), s = y - v, and q and b follow.

    With a positive definite P and n well above the number of active rows they are well conditioned, and every block's
    dual is generically not zero. Returns the programmes and (x, y, s) as a `ConeSolution`.
    """
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cone = ProductCone(cones)
    m = cone.dim
    mask = torch.rand(m, n, generator=generator, dtype=torch.float64) < density
    A = randn(*batch, m, n) * mask
    root = randn(*batch, n, n)
    P = root @ root.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)
    x, v = randn(*batch, n), randn(*batch, m)
    y = cone.project_dual(v)
    s = y - v
    structure = ConeStructure.from_matrices(
        np.ones((n, n)) if quadratic else None, sp.csc_array(mask.numpy().astype(float)), cone
    )
    P_values = P[..., structure.P_indices, structure.P_columns]
    A_values = A[..., structure.A_indices, structure.A_columns]
    draft = ConeProgram(structure, P_values, torch.zeros_like(x), A_values, torch.zeros_like(v))
    q = -draft.P_times(x) - draft.A_transpose_times(y)
    b = draft.A_times(x) + s
    program = ConeProgram(structure, P_values, q, A_values, b)
    zeros = torch.zeros(batch, dtype=torch.float64)
    return program, ConeSolution(x, y, s, zeros.to(torch.int8), zeros.long(), zeros, zeros, zeros)


def random_tangent(program: ConeProgram, seed: int = 1) -> ConeProgram:
    """Random directions in P, q, A and b, as a `ConeProgram` of tangents."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for value in (program.P, program.q, program.A, program.b)
    ]
    return ConeProgram(program.structure, *parts)


def moved(program: ConeProgram, tangent: ConeProgram, step: float) -> ConeProgram:
    """The programme at program + step tangent."""
    parts = [getattr(program, name) + step * getattr(tangent, name) for name in ("P", "q", "A", "b")]
    return ConeProgram(program.structure, *parts)


def reference_solution(program: ConeProgram, start: ConeSolution | None = None) -> ConeSolution:
    """A solution polished to 1e-12, from `start` or from Clarabel; AssertionError where that is not reached."""
    solution = Clarabel(threads=1).solve(program) if start is None else _measured(program, start)
    solution = polish(program, solution, steps=12)
    worst = torch.maximum(solution.primal_residual, torch.maximum(solution.dual_residual, solution.gap))
    assert (worst <= 1e-12).all(), f"the oracle's own solution has residual {worst.max():.1e}"
    return solution


def central_differences(
    program: ConeProgram, tangent: ConeProgram, solution: ConeSolution | None = None, step: float = 1e-4
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dy, ds) along `tangent`: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h of polished solutions."""
    base = reference_solution(program, solution)
    ends = {k: reference_solution(moved(program, tangent, k * step), base) for k in (-2, -1, 1, 2)}

    def difference(name: str) -> Tensor:
        near = getattr(ends[1], name) - getattr(ends[-1], name)
        far = getattr(ends[2], name) - getattr(ends[-2], name)
        return (8 * near - far) / (12 * step)

    return difference("x"), difference("y"), difference("s")


def diffcp_adjoint(
    program: ConeProgram, gx: Tensor, gy: Tensor, gs: Tensor
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """Gradients of P (None if there is none), q, A and b of one programme, by diffcp's dense mode with SCS.

    1/2 x'Px <= t with P = F'F is the second-order cone constraint ||(t - 1, sqrt(2) F x)|| <= t + 1.
    """
    backend = Diffcp(tol=1e-11)
    if program.structure.P_nnz == 0:
        solution = reference_solution(program)
        return None, *backend.adjoint(program, solution, gx, gy, gs)
    n, m = program.structure.n, program.structure.m
    upper = program.structure.P_matrix(program.P.numpy()).toarray()
    P = upper + np.triu(upper, 1).T
    values, vectors = np.linalg.eigh(P)
    F = np.sqrt(values)[:, None] * vectors.T
    extra = np.zeros((n + 2, n + 1))
    extra[0, n] = extra[1, n] = -1.0
    extra[2:, :n] = -np.sqrt(2) * F
    A = np.zeros((m + n + 2, n + 1))
    A[:m, :n] = program.structure.A_matrix(program.A.numpy()).toarray()
    A[m:] = extra
    cone = ProductCone([*program.structure.cone.cones, SecondOrder(n + 2)])
    structure = ConeStructure.from_matrices(None, np.ones_like(A), cone)
    lift_b = torch.zeros(n + 2, dtype=torch.float64)
    lift_b[0], lift_b[1] = 1.0, -1.0
    lifted = ConeProgram(
        structure,
        torch.zeros(0, dtype=torch.float64),
        torch.cat([program.q, torch.ones(1, dtype=torch.float64)]),
        torch.from_numpy(A.T.reshape(-1).copy()),
        torch.cat([program.b, lift_b]),
    )
    pad = torch.zeros(n + 2, dtype=torch.float64)
    dq, dA, db = backend.adjoint(
        lifted, reference_solution(lifted), torch.cat([gx, pad[:1]]), torch.cat([gy, pad]), torch.cat([gs, pad])
    )
    dense = dA.reshape(n + 1, m + n + 2).T
    # With P = F'F a gradient G of P gives the gradient 2 F G of F.
    dF = -np.sqrt(2) * dense[m + 2 :, :n].numpy()
    G = np.linalg.solve(2 * F, dF)
    rows, columns = program.structure.P_indices, program.structure.P_columns
    dP = np.where(rows == columns, G[rows, columns], G[rows, columns] + G[columns, rows])
    A_rows, A_columns = program.structure.A_indices, program.structure.A_columns
    return torch.from_numpy(dP), dq[:n], dense[A_rows, A_columns], db[:m]


def relative_error(value: Tensor, expected: Tensor) -> float:
    """||value - expected|| / ||expected|| over everything."""
    return float((value - expected).norm() / expected.norm())


def _measured(program: ConeProgram, start: ConeSolution) -> ConeSolution:
    """`start` with the residuals it has in `program`, so that polishing may not keep a wrong point."""
    import dataclasses

    from conelayers.program import residuals

    now = residuals(program, start.x, start.y, start.s)
    return dataclasses.replace(start, primal_residual=now.primal, dual_residual=now.dual, gap=now.gap)

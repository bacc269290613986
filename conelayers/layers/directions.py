"""Why a programme has no solution, as vectors: the least shift that makes it feasible, and a ray of descent."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from conelayers.backends import default_backend
from conelayers.cones import ProductCone, Zero
from conelayers.program import ConeProgram, ConeStructure
from conelayers.residual.solve import solve_and_polish

__all__ = ["least_shift", "ray_of_descent"]


def least_shift(program: ConeProgram) -> np.ndarray | None:
    """The r of least norm for which  Ax + s = b + r, s in K  has a solution, shape (m,); None if it is not found.

    Stationarity in x and s says A'r = 0, r in K*, b'r = -||r||^2 (with the sign of r turned): where r is not zero, it
    is a certificate of infeasibility, and its rows are those that contradict each other.

    Args:
        program: One programme.
    """
    structure, A = program.structure, _A(program)
    m, n = structure.m, structure.n
    P = sp.block_diag([sp.csc_array((n, n)), sp.eye_array(m)], format="csc")
    found = _solve(
        P, np.zeros(n + m), sp.hstack([A, -sp.eye_array(m)], format="csc"), program.b.numpy(), structure.cone
    )
    return None if found is None else found[n:]


def ray_of_descent(program: ConeProgram) -> np.ndarray | None:
    """The projection d of -q on the rays along which all feasible points stay feasible, shape (n,); None if unknown.

    Rays have -Ad in K and Pd = 0; d is not zero where the objective falls along one of them.

    Args:
        program: One programme.
    """
    structure, q = program.structure, program.q.numpy()
    P, n = _P(program), structure.n
    A, cone = sp.csc_array(sp.vstack([P, _A(program)])), ProductCone([Zero(n), *structure.cone.cones])
    return _solve(sp.csc_array(sp.eye_array(n)), q, A, np.zeros(n + structure.m), cone)


def _solve(P: Any, q: np.ndarray, A: Any, b: np.ndarray, cone: ProductCone) -> np.ndarray | None:
    """The solution x of one programme; None if there is none."""
    A.sum_duplicates()
    A.sort_indices()
    structure = ConeStructure.from_matrices(P, A, cone)
    upper = sp.csc_array(sp.triu(P))
    upper.sort_indices()
    values = (torch.as_tensor(np.asarray(v, dtype=np.float64)) for v in (upper.data, q, A.data, b))
    program = ConeProgram(structure, *values)
    solution = solve_and_polish(program, default_backend(structure))
    return solution.x.numpy() if bool(solution.has_solution) else None


def _A(program: ConeProgram) -> sp.csc_array:
    s = program.structure
    return sp.csc_array((program.A.numpy(), s.A_indices, s.A_indptr), shape=(s.m, s.n))


def _P(program: ConeProgram) -> sp.csc_array:
    s = program.structure
    upper = sp.csc_array((program.P.numpy(), s.P_indices, s.P_indptr), shape=(s.n, s.n))
    return sp.csc_array(upper + sp.triu(upper, 1).T)

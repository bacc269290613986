"""diffcp: the reference backend, with a derivative of its own to compare with."""

from __future__ import annotations

import dataclasses
import threading
import warnings
from typing import ClassVar, Literal

import diffcp
import numpy as np
import scipy.sparse as sp
import torch
from diffcp.cone_program import solve_internal
from torch import Tensor

from conelayers.backends.base import Backend, Solver, check_positive
from conelayers.backends.items import Item, Point, WorkerPool, solve_items
from conelayers.backends.rows import RowMap
from conelayers.backends.scaling import ALMOST_EXACT, InOwnUnits
from conelayers.backends.scs import row_map, scs_cones, scs_status
from conelayers.backends.trivial import solve_trivial
from conelayers.cones import (
    Cone,
    DualExponential,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    SecondOrder,
    Zero,
)
from conelayers.errors import InvalidArgument, UnsupportedError
from conelayers.program import ConeProgram, ConeSolution, ConeStructure

__all__ = ["Diffcp"]

_POOL = WorkerPool()
_WARNINGS = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Diffcp(Backend):
    """diffcp (Agrawal, Barratt, Boyd, Busseti & Moursi 2019) with SCS, slow and kept for comparison.

    With Clarabel as its solver diffcp 1.1.9 has wrong gradients where a semidefinite cone is present, so SCS it is. It
    differentiates linear objectives only, and no power cones; what it returns for dual exponential cones disagrees with
    differences of its own solutions, so `adjoint` refuses them.

    Attributes:
        tol: SCS's absolute and relative tolerance.
        max_iter: Limit on SCS's iterations.
        mode: How diffcp solves for the derivative. "dense" squares the condition number; "lsqr" and "lsmr" stop early.
        verbose: Print SCS's log.
        tol_infeas: SCS's tolerance of certificates of infeasibility.
    """

    tol: float = 1e-10
    max_iter: int = 200_000
    mode: Literal["dense", "lsqr", "lsmr"] = "dense"
    verbose: bool = False
    tol_infeas: float = 1e-9

    name: ClassVar[str] = "DIFFCP"
    cones: ClassVar[frozenset[type[Cone]]] = frozenset(
        {Zero, Nonnegative, SecondOrder, PositiveSemidefinite, Exponential, DualExponential}
    )
    quadratic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(tol=self.tol, tol_infeas=self.tol_infeas, max_iter=self.max_iter)
        if self.mode not in ("dense", "lsqr", "lsmr"):
            raise InvalidArgument(f"mode is {self.mode!r}; it must be 'dense', 'lsqr' or 'lsmr'.")

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`."""
        structure = program.structure
        self.check(structure)
        rows = row_map(structure)
        make = lambda: _Worker(structure, rows, self)  # noqa: E731
        # One at a time: Python's filters of warnings are not for threads.
        return solve_items(program, self, _POOL, make, rows, 1, warm_start, self._again())

    def _again(self) -> Solver | None:
        """A second way: in other units, and without belief in certificates that are not all but exact."""
        if self.tol_infeas <= ALMOST_EXACT:
            return None
        return InOwnUnits(dataclasses.replace(self, tol_infeas=ALMOST_EXACT))

    def adjoint(
        self, program: ConeProgram, solution: ConeSolution, gx: Tensor, gy: Tensor, gs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient with respect to q, A and b by diffcp's own derivative.

        It is taken at the point to which SCS comes from `solution`. For cotangents below 1e-8 diffcp returns zeros.

        Args:
            program: The programmes.
            solution: Their solution.
            gx: Cotangent of x, shape (*batch, n).
            gy: Cotangent of y, shape (*batch, m).
            gs: Cotangent of s, shape (*batch, m).

        Returns:
            Gradients per item, double precision: of q (*batch, n), of A's values (*batch, A_nnz), of b (*batch, m).

        Raises:
            UnsupportedError: If diffcp cannot differentiate such a programme.
            diffcp.SolverError: If diffcp does not solve it.
        """
        structure, batch = program.structure, program.batch_shape
        self.check(structure)
        if any(isinstance(cone, DualExponential) for cone in structure.cone.cones):
            raise UnsupportedError(
                "The programme has dual exponential cones, whose derivative in diffcp is wrong; use another backend."
            )
        rows, cones = row_map(structure), scs_cones(structure)
        values = (program.q, program.A, program.b, solution.x, solution.y, solution.s, gx, gy, gs)
        flat = [v.detach().expand(*batch, v.shape[-1]).reshape(-1, v.shape[-1]).double().cpu().numpy() for v in values]
        gradients = [self._adjoint_item(structure, rows, cones, *item) for item in zip(*flat, strict=True)]
        parts = [np.stack(part) for part in zip(*gradients, strict=True)]
        dq, dA, db = (torch.from_numpy(part).reshape(*batch, part.shape[-1]) for part in parts)
        return dq, dA, db

    def options(self) -> dict:
        """Options for SCS."""
        tolerances = {"eps_abs": self.tol, "eps_rel": self.tol, "eps_infeas": self.tol_infeas}
        return {**tolerances, "max_iters": self.max_iter, "verbose": self.verbose}

    def _adjoint_item(self, structure: ConeStructure, rows: RowMap, cones: dict, q, A, b, x, y, s, gx, gy, gs):
        # Not rows.T @ A: a product would drop the explicit zeros of A, which have gradients too.
        shape = (structure.m, structure.n)
        matrix = sp.csc_matrix((rows.A(A[None])[0].copy(), rows.indices.copy(), rows.indptr.copy()), shape=shape)
        y, s = rows.to_solver(y, s)
        gy, gs = rows.to_solver(gy, gs)  # T is a permutation here, so cotangents move as points do
        _, _, _, _, transpose = diffcp.solve_and_derivative(
            matrix, rows.T @ b, q.copy(), cones, warm_start=(x.copy(), y, s), mode=self.mode, **self.options()
        )
        dA, db, dq = transpose(gx, gy, gs)
        dense = sp.csr_array(rows.T_inverse @ dA)
        dA = np.asarray(dense[structure.A_indices, structure.A_columns]).ravel()
        return dq, dA, rows.T_inverse @ db


class _Worker:
    """diffcp's own forward pass, on copies: it rewrites the matrix it is given."""

    def __init__(self, structure: ConeStructure, rows: RowMap, backend: Diffcp) -> None:
        self.shape = (structure.m, structure.n)
        self.P_pattern = (structure.P_indices, structure.P_indptr)
        self.rows, self.backend = rows, backend
        self.cone, self.cones = structure.cone, scs_cones(structure)

    def solve(self, item: Item) -> Point:
        """One programme."""
        if 0 in self.shape:
            return solve_trivial(item, self.rows, self.P_pattern, self.cone)
        A = sp.csc_matrix((item.A.copy(), self.rows.indices.copy(), self.rows.indptr.copy()), shape=self.shape)
        start = None
        if item.warm_start is not None:
            x, y, s = item.warm_start
            start = (x.copy(), *self.rows.to_solver(y, s))
        with _WARNINGS, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of inaccurate solutions, which the status tells too
            found = solve_internal(
                *(A, item.b.copy(), item.q.copy(), self.cones),
                solve_method="SCS",
                warm_start=start,
                raise_on_error=False,
                **self.backend.options(),
            )
        y, s = self.rows.from_solver(found["y"], found["s"])
        return Point(scs_status(found["info"]["status_val"]), found["info"]["iter"], found["x"], y, s)

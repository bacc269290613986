"""Clarabel: an interior-point method on the homogeneous embedding with a native quadratic objective."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import clarabel as _clarabel
import numpy as np
import scipy.sparse as sp

from conelayers.backends.base import Backend, Solver, check_positive
from conelayers.backends.items import QUICK, Item, Point, WorkerPool, solve_items
from conelayers.backends.outcomes import best_of, promoted
from conelayers.backends.rows import (
    SOLVER_CONES,
    RowMap,
    dual_exponential_block,
    dual_power_block,
    per_structure,
    upper_triangle_block,
)
from conelayers.backends.scaling import ALMOST_EXACT, InOwnUnits
from conelayers.cones import (
    Cone,
    DualExponential,
    DualPower,
    Exponential,
    Nonnegative,
    PositiveSemidefinite,
    Power,
    SecondOrder,
    Zero,
)
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status

__all__ = ["Clarabel"]

clarabel: Any = _clarabel  # its compiled classes come without type information
_POOL = WorkerPool()

# From this many unknowns and rows on, the supernodal multithreaded factorization pays off; and from this order of a
# semidefinite block on, which makes a dense part of order^2 / 2 rows, that one and splitting blocks.
_LARGE, _WIDE = 5_000, 25

_STATUS = {
    "Solved": Status.SOLVED,
    "AlmostSolved": Status.INACCURATE,
    "PrimalInfeasible": Status.PRIMAL_INFEASIBLE,
    "AlmostPrimalInfeasible": Status.PRIMAL_INFEASIBLE,
    "DualInfeasible": Status.DUAL_INFEASIBLE,
    "AlmostDualInfeasible": Status.DUAL_INFEASIBLE,
    "MaxIterations": Status.ITERATION_LIMIT,
    "MaxTime": Status.ITERATION_LIMIT,
}


@dataclasses.dataclass(frozen=True)
class Clarabel(Backend):
    """Clarabel (Goulart & Chen 2024), one solver object per thread and structure, kept and updated with new data.

    An updated solver keeps the equilibration of the first programme it saw; an item that it does not solve that way is
    solved again by a new solver. Warm starts are ignored: an interior-point method has no use for them.

    Programmes with large semidefinite blocks are solved by a new solver each, which may split blocks whose entries are
    mostly free (chordal decomposition) and then takes no new data.

    Attributes:
        tol: Relative and absolute tolerance of residuals and gap.
        max_iter: Limit on interior-point iterations.
        threads: Programmes solved at a time; None for one per core.
        verbose: Print Clarabel's log.
        direct_solve_method: "qdldl", "faer" (supernodal, multithreaded), "auto" (by size), or another name that
            Clarabel knows.
        tol_infeas: Tolerance of certificates of infeasibility; None for `tol`.
        chordal_decomposition: Split semidefinite blocks whose entries are mostly free; None to do so from order 25 on,
            and where an item is not solved, or its completed dual is not accurate, the other way.
    """

    tol: float = 1e-8
    max_iter: int = 200
    threads: int | None = None
    verbose: bool = False
    direct_solve_method: str = "auto"
    tol_infeas: float | None = None
    chordal_decomposition: bool | None = None

    name: ClassVar[str] = "CLARABEL"
    cones: ClassVar[frozenset[type[Cone]]] = SOLVER_CONES

    def __post_init__(self) -> None:
        check_positive(tol=self.tol, max_iter=self.max_iter, tol_infeas=self._tol_infeas)

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`."""
        structure = program.structure
        self.check(structure)
        rows = row_map(structure)
        settings = self._settings(structure)
        make = lambda: _Worker(structure, rows, settings)  # noqa: E731
        found = solve_items(program, self, _POOL, make, rows, self.threads, again=self.closer(structure))
        return promoted(best_of(program, found, self._other_ways(structure)), self.tol)

    def closer(self, structure: ConeStructure) -> Solver | None:
        """The same in the programme's own units, at a tolerance that lets it go on for as long as it can."""
        # Heirs may have a way of their own; and a large semidefinite block costs too much to be solved twice.
        if self.tol <= ALMOST_EXACT or type(self).solve is not Clarabel.solve or _is_wide(structure):
            return None
        return InOwnUnits(dataclasses.replace(self, tol=ALMOST_EXACT, tol_infeas=ALMOST_EXACT))

    def _other_ways(self, structure: ConeStructure) -> list[Solver]:
        """Ways that may do where the first one did not: semidefinite blocks in other pieces, other units."""
        if self.chordal_decomposition is not None or type(self).solve is not Clarabel.solve:
            return []
        wide = _is_wide(structure)
        same, other = (dataclasses.replace(self, chordal_decomposition=split) for split in (wide, not wide))
        semidefinite = any(isinstance(cone, PositiveSemidefinite) for cone in structure.cone.cones)
        return [other, InOwnUnits(same), InOwnUnits(other)] if semidefinite else [InOwnUnits(same)]

    @property
    def _tol_infeas(self) -> float:
        return self.tol if self.tol_infeas is None else self.tol_infeas

    def _settings(self, structure: ConeStructure) -> Any:
        settings = clarabel.DefaultSettings()
        settings.verbose, settings.max_iter = self.verbose, self.max_iter
        # With either of these two on, Clarabel refuses data updates.
        settings.presolve_enable = False
        wide = _is_wide(structure)
        split = wide if self.chordal_decomposition is None else self.chordal_decomposition
        settings.chordal_decomposition_enable = split
        settings.input_sparse_dropzeros = False
        for name in ("tol_feas", "tol_gap_abs", "tol_gap_rel"):
            setattr(settings, name, self.tol)
        settings.tol_infeas_abs = settings.tol_infeas_rel = self._tol_infeas
        method = self.direct_solve_method
        if method == "auto":
            method = "faer" if wide or structure.n + structure.m >= _LARGE else "qdldl"
        settings.direct_solve_method = method
        settings.max_threads = 1 if method == "qdldl" else self.threads or 0
        return settings


class _Worker:
    """One Clarabel solver, made with the first programme and updated with the following ones."""

    def __init__(self, structure: ConeStructure, rows: RowMap, settings: Any) -> None:
        self.P_pattern = (structure.P_indices, structure.P_indptr)
        self.shape = (structure.m, structure.n)
        self.rows, self.settings = rows, settings
        self.cones = _clarabel_cones(structure)
        self.solver: Any = None  # clarabel.DefaultSolver once the first programme is there

    def solve(self, item: Item) -> Point:
        fresh = self.settings.chordal_decomposition_enable or not self.solver
        if fresh:
            self._build(item)
        else:
            self._update(item)
        solution = self._run(item)
        if str(solution.status) != "Solved" and not fresh:
            self._build(item)
            solution = self._run(item)
        status = _STATUS.get(str(solution.status), Status.FAILED)
        y, s = self.rows.from_solver(np.array(solution.z), np.array(solution.s))
        return Point(status, solution.iterations, np.array(solution.x), y, s)

    def _run(self, item: Item) -> Any:
        if sum(self.shape) >= QUICK:
            self.solver.set_termination_callback(lambda _: item.ended())
        return self.solver.solve()

    def _build(self, item: Item) -> None:
        m, n = self.shape
        P = sp.csc_matrix((item.P, *self.P_pattern), shape=(n, n))
        A = sp.csc_matrix((item.A, self.rows.indices, self.rows.indptr), shape=(m, n))
        self.solver = clarabel.DefaultSolver(P, item.q, A, item.b, self.cones, self.settings)

    def _update(self, item: Item) -> None:
        data = {"q": item.q, "b": item.b}
        # Values that all items share are the same as in this call's first item.
        if len(item.P) and (item.first or not item.shared_P):
            data["P"] = item.P
        if len(item.A) and (item.first or not item.shared_A):
            data["A"] = item.A
        self.solver.update(**{name: values for name, values in data.items() if len(values)})


@per_structure
def row_map(structure: ConeStructure) -> RowMap:
    """Clarabel's rows: cones in their own order, upper triangles, dual cones by their primal ones."""
    blocks = []
    for cone in structure.cone.cones:
        match cone:
            case PositiveSemidefinite():
                blocks.append(upper_triangle_block(cone.order) if cone.order > 1 else None)
            case DualExponential():
                blocks.append(dual_exponential_block())
            case DualPower():
                blocks.append(dual_power_block(cone.alpha))
            case _:
                blocks.append(None)
    return RowMap(structure, range(len(blocks)), blocks)


def _is_wide(structure: ConeStructure) -> bool:
    return any(isinstance(cone, PositiveSemidefinite) and cone.order >= _WIDE for cone in structure.cone.cones)


def _clarabel_cones(structure: ConeStructure) -> list:
    cones = []
    for cone in structure.cone.cones:
        match cone:
            case _ if cone.dim == 0:
                continue
            case Zero():
                cones.append(clarabel.ZeroConeT(cone.dim))
            case Nonnegative():
                cones.append(clarabel.NonnegativeConeT(cone.dim))
            case SecondOrder():
                one = cone.dim == 1
                cones.append(clarabel.NonnegativeConeT(1) if one else clarabel.SecondOrderConeT(cone.dim))
            case PositiveSemidefinite():
                cones.append(clarabel.PSDTriangleConeT(cone.order))
            case Exponential() | DualExponential():
                cones.append(clarabel.ExponentialConeT())
            case Power() | DualPower():
                cones.append(clarabel.PowerConeT(cone.alpha))
    return cones

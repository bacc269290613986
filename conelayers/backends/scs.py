"""SCS: operator splitting on the homogeneous embedding, with warm starts."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import scipy.sparse as sp
import scs

from conelayers.backends.base import Backend, Solver, check_positive
from conelayers.backends.items import Item, Point, WorkerPool, solve_items
from conelayers.backends.rows import SOLVER_CONES, RowMap, per_structure
from conelayers.backends.scaling import ALMOST_EXACT, InOwnUnits
from conelayers.backends.trivial import solve_trivial
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

__all__ = ["SCS", "scs_cones", "scs_order", "scs_status"]

_POOL = WorkerPool()
_CLOSE, _INTERRUPTED = 1e-12, -5

# The order of cones that SCS demands; its triangle order is this package's own.
_ORDER = (Zero, Nonnegative, SecondOrder, PositiveSemidefinite, Exponential, DualExponential, Power, DualPower)

_STATUS = {
    1: Status.SOLVED,
    2: Status.ITERATION_LIMIT,  # "inaccurate": the residuals decide whether it still counts as a solution
    -1: Status.DUAL_INFEASIBLE,
    -2: Status.PRIMAL_INFEASIBLE,
    -6: Status.DUAL_INFEASIBLE,
    -7: Status.PRIMAL_INFEASIBLE,
}


@dataclasses.dataclass(frozen=True)
class SCS(Backend):
    """The splitting conic solver (O'Donoghue 2021), quadratic objective included.

    A first-order method: each iteration is cheap, high accuracy takes many. Where P and A are shared by a batch, one
    factorization per thread serves all its items.

    Attributes:
        tol: Absolute and relative tolerance of residuals and gap; far below SCS's own 1e-4, because derivatives
            multiply errors.
        tol_infeas: Tolerance of certificates of infeasibility.
        max_iter: Limit on iterations.
        threads: Programmes solved at a time; None for one per core.
        acceleration_lookback: Memory of Anderson acceleration; 0 turns it off.
        verbose: Print SCS's log.
    """

    tol: float = 1e-9
    tol_infeas: float = 1e-9
    max_iter: int = 100_000
    threads: int | None = None
    acceleration_lookback: int = 10
    verbose: bool = False

    name: ClassVar[str] = "SCS"
    cones: ClassVar[frozenset[type[Cone]]] = SOLVER_CONES

    def __post_init__(self) -> None:
        check_positive(tol=self.tol, tol_infeas=self.tol_infeas, max_iter=self.max_iter)

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`."""
        structure = program.structure
        self.check(structure)
        rows = row_map(structure)
        make = lambda: _Worker(structure, rows, self._settings())  # noqa: E731
        return solve_items(program, self, _POOL, make, rows, self.threads, warm_start, self._again())

    def closer(self, structure: ConeStructure) -> Solver | None:
        """The same at a tolerance that leaves Newton steps little to do."""
        if self.tol <= _CLOSE or type(self).solve is not SCS.solve:  # heirs may have a way of their own
            return None
        return dataclasses.replace(self, tol=_CLOSE)

    def _again(self) -> Solver | None:
        """A second way: in other units, and without belief in certificates that are not all but exact."""
        if self.tol_infeas <= ALMOST_EXACT or type(self).solve is not SCS.solve:
            return None
        return InOwnUnits(dataclasses.replace(self, tol_infeas=ALMOST_EXACT))

    def _settings(self) -> dict:
        return {
            "eps_abs": self.tol,
            "eps_rel": self.tol,
            "eps_infeas": self.tol_infeas,
            "max_iters": self.max_iter,
            "acceleration_lookback": self.acceleration_lookback,
            "verbose": self.verbose,
        }


class _Worker:
    """SCS workspaces; one is kept from item to item of a call as long as P and A stay the same."""

    def __init__(self, structure: ConeStructure, rows: RowMap, settings: dict) -> None:
        self.P_pattern = (structure.P_indices, structure.P_indptr)
        self.shape = (structure.m, structure.n)
        self.rows, self.settings = rows, settings
        self.cone, self.cones = structure.cone, scs_cones(structure)
        self.workspace: Any = None  # scs.SCS once the first programme is there

    def solve(self, item: Item) -> Point:
        if 0 in self.shape:
            return solve_trivial(item, self.rows, self.P_pattern, self.cone)
        workspace = self.workspace
        if workspace is None or item.first or not (item.shared_P and item.shared_A):
            try:
                workspace = self.workspace = self._build(item)
            except ValueError as error:
                if "allocation" not in str(error):  # a setting that SCS does not take
                    raise
                self.workspace = None  # SCS factors here, and refuses a P that is not semidefinite by these words
                return Point(Status.FAILED, 0)
        else:
            workspace.update(b=item.b, c=item.q)
        if item.warm_start is None:
            result = workspace.solve(warm_start=False)
        else:
            x, y, s = item.warm_start
            y, s = self.rows.to_solver(y, s)
            result = workspace.solve(warm_start=True, x=x.copy(), y=y.copy(), s=s.copy())
        status = scs_status(result["info"]["status_val"])
        y, s = self.rows.from_solver(result["y"], result["s"])
        return Point(status, result["info"]["iter"], result["x"], y, s)

    def _build(self, item: Item) -> Any:
        m, n = self.shape
        data = {
            "A": sp.csc_matrix((item.A.copy(), self.rows.indices.copy(), self.rows.indptr.copy()), shape=(m, n)),
            "b": item.b.copy(),
            "c": item.q.copy(),
        }
        if len(item.P):
            indices, indptr = self.P_pattern
            data["P"] = sp.csc_matrix((item.P.copy(), indices.copy(), indptr.copy()), shape=(n, n))
        return scs.SCS(data, self.cones, **self.settings)


@per_structure
def row_map(structure: ConeStructure) -> RowMap:
    """SCS's rows: cones sorted by kind, nothing else changed."""
    return RowMap(structure, scs_order(structure), [None] * len(structure.cone.cones))


def scs_status(code: int) -> Status:
    """What SCS's number for an outcome means.

    Raises:
        KeyboardInterrupt: If SCS, which listens for interrupts while it runs, was ended by one.
    """
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    return _STATUS.get(code, Status.FAILED)


def scs_order(structure: ConeStructure) -> list[int]:
    """Positions of the cones in SCS's order of kinds."""
    cones = structure.cone.cones
    return sorted(range(len(cones)), key=lambda k: _ORDER.index(type(cones[k])))


def scs_cones(structure: ConeStructure) -> dict:
    """SCS's description of the cones, in its own order."""
    cones = [structure.cone.cones[k] for k in scs_order(structure)]

    def sizes(kind: type[Cone]) -> list[int]:
        return [cone.dim for cone in cones if isinstance(cone, kind)]

    power = [cone.alpha for cone in cones if isinstance(cone, Power)]
    dual_power = [-cone.alpha for cone in cones if isinstance(cone, DualPower)]
    described = {
        "z": sum(sizes(Zero)),
        "l": sum(sizes(Nonnegative)),
        "q": sizes(SecondOrder),
        "s": [cone.order for cone in cones if isinstance(cone, PositiveSemidefinite)],
        "ep": len(sizes(Exponential)),
        "ed": len(sizes(DualExponential)),
        "p": power + dual_power,
    }
    return {kind: value for kind, value in described.items() if value}

"""Programmes with large semidefinite blocks, by an interior-point method that never forms the blocks densely."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch

from conelayers.backends.base import Backend, check_positive
from conelayers.backends.clarabel import Clarabel
from conelayers.backends.items import Point, assemble
from conelayers.backends.outcomes import report
from conelayers.backends.scs import SCS
from conelayers.cones import Cone, Nonnegative, PositiveSemidefinite, Zero
from conelayers.errors import UnsupportedError
from conelayers.program import ConeProgram, ConeSolution, ConeStructure, Status
from conelayers.semidefinite import SemidefiniteKernels, interior_point, semidefinite_form
from conelayers.semidefinite.item import Item, Unsuited

__all__ = ["Semidefinite"]

# Accuracy of the interior-point method: Newton steps bring what it leaves to machine precision. Where they do not (a
# singular Jacobian), it goes on to this part of the tolerance. And the residual up to which they are tried.
_ROUGH, _FINE, _HOPEFUL = 1e-7, 0.1, 1e-2
_NEWTON_STEPS, _NEWTON_TARGET = 8, 1e-12

# Blocks up to this order that are not solved here go to Clarabel, larger ones to SCS, whose steps stay cheap.
_CLARABEL_ORDER = 60


@dataclasses.dataclass(frozen=True)
class Semidefinite(Backend):
    """Semidefinite blocks of orders from 25 to a few hundred, beside equalities, inequalities and smaller blocks.

    Each step eliminates the blocks' entries in the eigenbasis of their scaling, as SDPA, CSDP and DSDP do, and
    factors a matrix of the size of the other rows and columns; Newton steps on the optimality conditions, eliminated
    the same way, end at machine precision. Items that are not solved so (infeasible ones among them) are handed to
    `Clarabel` or, with blocks of order above 60, to `SCS`.

    Attributes:
        tol: Relative residuals and gap at which an item counts as solved.
        max_iter: Limit on interior-point steps.
        verbose: Print the number of items, steps and outcomes of each call.
    """

    tol: float = 1e-8
    max_iter: int = 60
    verbose: bool = False

    name: ClassVar[str] = "SEMIDEFINITE"
    cones: ClassVar[frozenset[type[Cone]]] = frozenset({Zero, Nonnegative, PositiveSemidefinite})

    def __post_init__(self) -> None:
        check_positive(tol=self.tol, max_iter=self.max_iter)

    @staticmethod
    def suits(structure: ConeStructure) -> bool:
        """Whether programmes of this structure have large blocks of a form that this method takes."""
        form = semidefinite_form(structure)
        return form is not None and interior_point.knows(form)

    def polishes(self, structure: ConeStructure) -> bool:
        """Its solutions come from Newton steps."""
        return True

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`. A start is not used."""
        structure = program.structure
        self.check(structure)
        if not self.suits(structure):
            raise UnsupportedError(
                f"Backend {self.name} takes programmes with a semidefinite block of order above 24 that is a matrix "
                "variable or a matrix inequality in few variables; this one has none. Let the layer choose its solver."
            )
        batch, flat = program.batch_shape, program.detach().flatten()
        flat = ConeProgram(structure, *(v.to("cpu", torch.float64) for v in (flat.P, flat.q, flat.A, flat.b)))
        points = [self._solve_item(structure, *_item(flat, i)) for i in range(batch.numel())]
        solution = assemble(flat, points)
        left = torch.nonzero(solution.status_code != int(Status.SOLVED))[:, 0]
        if len(left):
            solution = self._handed_over(flat, solution, left)
        if self.verbose:
            report(self.name, solution.status_code.numpy(), solution.iterations.numpy())
        return solution.reshape(batch)

    def _solve_item(self, structure: ConeStructure, P, q, A, b) -> Point:
        """One programme: interior-point steps, then Newton steps."""
        form = semidefinite_form(structure)
        assert form is not None
        if not all(np.isfinite(part).all() for part in (P, q, A, b)):
            return Point(Status.FAILED, 0)
        try:
            item = Item(structure, form, P, A)
        except Unsuited:
            return Point(Status.FAILED, 0)
        kernels, best, steps = SemidefiniteKernels(structure, form), None, 0
        for accuracy in (max(self.tol, _ROUGH), _FINE * self.tol):
            found = interior_point.solve(item, q, b, accuracy, self.max_iter)
            steps += found.iterations
            if not found.error <= _HOPEFUL:
                break
            data = (torch.from_numpy(part)[None] for part in (P, q, A, b, found.x, found.z, found.s))
            x, y, s, worst, _ = kernels.polish(*data, steps=_NEWTON_STEPS, target=_NEWTON_TARGET)
            # Beside a kink the projections of y - s lose digits that Newton steps do not win back.
            polished = float(worst), *(part[0].numpy() for part in (x, y, s))
            candidates = [polished, (found.error, found.x, found.z, found.s), *([] if best is None else [best])]
            best = min(candidates, key=lambda candidate: candidate[0])
            if best[0] <= self.tol:
                return Point(Status.SOLVED, steps, *best[1:])
        return Point(Status.FAILED, steps)

    def _handed_over(self, program: ConeProgram, first: ConeSolution, items: torch.Tensor) -> ConeSolution:
        """The solution with these items solved by another method."""
        orders = [cone.order for cone in program.structure.cone.cones if isinstance(cone, PositiveSemidefinite)]
        other = Clarabel(self.tol) if max(orders) <= _CLARABEL_ORDER else SCS()
        data = (program.P, program.q, program.A, program.b)
        part = ConeProgram(program.structure, *(v if len(v) == 1 else v[items] for v in data))
        again = other.solve(part)
        merged = first.map(torch.clone)
        for value, new in zip(merged.tensors, again.tensors, strict=True):
            value[items] = new
        return merged


def _item(program: ConeProgram, i: int) -> tuple[np.ndarray, ...]:
    return tuple(v[min(i, len(v) - 1)].numpy() for v in (program.P, program.q, program.A, program.b))

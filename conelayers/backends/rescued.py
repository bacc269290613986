"""The default backend: the compiled engine, with a second solver for the few programmes that it gives up on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from conelayers.backends.batched import Batched
from conelayers.backends.clarabel import Clarabel
from conelayers.backends.outcomes import part_of, put
from conelayers.program import ConeProgram, ConeSolution, Status

if TYPE_CHECKING:
    from conelayers.native import EngineSolution

__all__ = ["Rescued"]

_GIVEN_UP = int(Status.ITERATION_LIMIT)  # this and what comes after it: neither a solution nor a certificate


@dataclasses.dataclass(frozen=True)
class Rescued(Batched):
    """`Batched`; items that end without an accurate solution or a certificate are solved again by `Clarabel`.

    Of an inaccurate solution and what Clarabel makes of the programme, the latter is taken if it is a certificate or a
    better solution: where an unbounded programme falls along the border of a cone, the engine follows far and takes the
    end for a solution. Clarabel's limit on iterations is the larger of the default ones unless another one than the
    default is set.
    """

    def conclude(self, program: ConeProgram, result: EngineSolution) -> ConeSolution:
        """The solution; see `Batched.conclude`."""
        first = super().conclude(program, result)
        if result["worst"] < np.inf:
            return first
        doubtful = (first.status_code == int(Status.INACCURATE)) | (first.status_code >= _GIVEN_UP)
        items = torch.nonzero(doubtful)[:, 0]
        if not items.numel():
            return first
        limit = Clarabel.max_iter if self.max_iter == Batched.max_iter else self.max_iter
        second = Clarabel(tol=self.tol, max_iter=limit, threads=self.threads, verbose=self.verbose)
        again = second.solve(part_of(program, items))
        better = _improves(again, first.map(lambda value: value[items]))
        return put(again.map(lambda value: value[better]), items[better], first)


def _improves(again: ConeSolution, first: ConeSolution) -> Tensor:
    """Items, one batch axis, whose second outcome counts: all that were given up, and inaccurate ones as said above."""
    certificate = ~again.has_solution & (again.status_code < _GIVEN_UP)
    return (first.status_code >= _GIVEN_UP) | certificate | (again.has_solution & (again.worst < first.worst))

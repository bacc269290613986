"""The default backend: the compiled engine, with a second solver for the few programmes that it gives up on."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from conelayers.backends.batched import Batched
from conelayers.backends.clarabel import Clarabel
from conelayers.program import ConeProgram, ConeSolution, Status

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

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`."""
        solution = super().solve(program, warm_start)
        if not solution.status_code.numpy().any():
            return solution
        batch_shape = program.batch_shape
        first, data = solution.reshape(torch.Size([batch_shape.numel()])), program.flatten()
        doubtful = (first.status_code == int(Status.INACCURATE)) | (first.status_code >= _GIVEN_UP)
        items = torch.nonzero(doubtful)[:, 0]
        if not items.numel():
            return solution
        values = (value if value.shape[0] == 1 else value[items] for value in (data.P, data.q, data.A, data.b))
        limit = Clarabel.max_iter if self.max_iter == Batched.max_iter else self.max_iter
        second = Clarabel(self.tol, limit, self.threads, self.verbose)
        again = second.solve(ConeProgram(program.structure, *values))
        better = _improves(again, first.map(lambda value: value[items]))
        merged = first.map(torch.clone)
        for value, other in zip(merged.tensors, again.tensors, strict=True):
            value[items[better]] = other[better]
        return merged.reshape(batch_shape)


def _improves(again: ConeSolution, first: ConeSolution) -> Tensor:
    """Items, one batch axis, whose second outcome counts: all that were given up, and inaccurate ones as said above."""
    certificate = ~again.has_solution & (again.status_code < _GIVEN_UP)
    return (first.status_code >= _GIVEN_UP) | certificate | (again.has_solution & (again.worst < first.worst))

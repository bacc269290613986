"""The default backend: the compiled engine, with a second solver for the few programmes that it gives up on."""

from __future__ import annotations

import dataclasses

import torch

from conelayers.backends.batched import Batched
from conelayers.backends.clarabel import Clarabel
from conelayers.program import ConeProgram, ConeSolution, Status

__all__ = ["Rescued"]

_GIVEN_UP = int(Status.ITERATION_LIMIT)  # this and what comes after it: neither a solution nor a certificate


@dataclasses.dataclass(frozen=True)
class Rescued(Batched):
    """`Batched`; items that end without a solution or a certificate are solved again by `Clarabel`.

    Its limit on iterations is the larger of the default ones unless another one than the default is set.
    """

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`."""
        solution = super().solve(program, warm_start)
        if solution.status_code.numpy().max(initial=0) < _GIVEN_UP:
            return solution
        batch_shape = program.batch_shape
        first, data = solution.reshape(torch.Size([batch_shape.numel()])), program.flatten()
        items = torch.nonzero(first.status_code >= _GIVEN_UP)[:, 0].to(program.q.device)
        values = (value if value.shape[0] == 1 else value[items] for value in (data.P, data.q, data.A, data.b))
        limit = Clarabel.max_iter if self.max_iter == Batched.max_iter else self.max_iter
        second = Clarabel(self.tol, limit, self.threads, self.verbose)
        again = second.solve(ConeProgram(program.structure, *values))
        fields = [field.name for field in dataclasses.fields(first)]
        merged = {name: getattr(first, name).clone() for name in fields}
        for name, value in merged.items():
            value[items.cpu()] = getattr(again, name)
        return ConeSolution(**merged).reshape(batch_shape)

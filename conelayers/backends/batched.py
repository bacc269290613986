"""The compiled engine as a backend: a whole batch at once, one programme per SIMD lane."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from conelayers.backends.base import Backend
from conelayers.backends.cuda import Cuda
from conelayers.backends.outcomes import proven, report, without_certificates
from conelayers.backends.scaling import ALMOST_EXACT
from conelayers.cones import Cone
from conelayers.errors import InvalidArgument
from conelayers.program import ConeProgram, ConeSolution, ConeStructure
from conelayers.program.codes import CODES
from conelayers.program.compiled import compiled_differentiator, engine, rows

if TYPE_CHECKING:
    from conelayers.native import EngineSolution

__all__ = ["Batched", "engine_solution"]


@dataclasses.dataclass(frozen=True)
class Batched(Backend):
    """The compiled batched interior-point method, for small and medium programmes; by `Cuda` where they are on a GPU.

    Items that share a structure are solved 8 at a time (AVX-512; 4 otherwise), the symbolic analysis is done once per
    structure, and packs of items run on several threads. From a rough interior point on, Newton steps on the optimality
    conditions are tried first, so that solutions come polished. From a warm start they are tried at once: an item that
    they solve has no use for an interior point, and any other is solved as if there had been no start.

    Attributes:
        tol: Relative and absolute tolerance of residuals, gap and certificates.
        max_iter: Limit on interior-point iterations.
        threads: Threads over packs of items; None for `torch.get_num_threads()`.
        verbose: Print the number of items, iterations and outcomes of each call.
        device: "cpu" to solve programmes on a GPU by the CPU all the same (for a few of them that is faster), or None.
    """

    tol: float = 1e-8
    max_iter: int = 100
    threads: int | None = None
    verbose: bool = False
    device: str | None = None

    name: ClassVar[str] = "BATCHED"
    cones: ClassVar[frozenset[type[Cone]]] = frozenset(CODES)

    def __post_init__(self) -> None:
        if not self.tol > 0:
            raise InvalidArgument(f"tol is {self.tol}; it must be positive.")
        if self.max_iter < 1:
            raise InvalidArgument(f"max_iter is {self.max_iter}; it must be at least 1.")
        if self.threads is not None and self.threads < 1:
            raise InvalidArgument(f"threads is {self.threads}; it must be at least 1, or None.")
        if self.device not in (None, "cpu"):
            raise InvalidArgument(f"device is {self.device!r}; it must be 'cpu' or None.")

    def on(self, device: torch.device) -> Backend:
        """The same method on a GPU, where it can run there."""
        if device.type == "cpu":
            return self
        on_device = Cuda(self.tol, self.max_iter, self.verbose)
        return self if self.device == "cpu" or on_device.unavailable(device) is not None else on_device

    def unavailable(self, device: torch.device) -> str | None:
        """Why programmes on a device are not solved there."""
        if device.type == "cpu":
            return None
        return "device='cpu' was asked for" if self.device == "cpu" else Cuda().unavailable(device)

    def polishes(self, structure: ConeStructure) -> bool:
        """True where the derivative kernels, which make the Newton steps, suit the cones."""
        return compiled_differentiator(structure) is not None

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every programme of a batch; see `Backend.solve`."""
        structure = program.structure
        self.check(structure)
        batch_shape, flat = program.batch_shape, program.flatten()
        start = () if warm_start is None else _point(warm_start, batch_shape)
        result = self.run(structure, [_rows(v) for v in (flat.P, flat.q, flat.A, flat.b)], batch_shape.numel(), *start)
        return self.conclude(flat, result).reshape(batch_shape)

    def run(
        self,
        structure: ConeStructure,
        data: Sequence[np.ndarray],
        items: int,
        *start: np.ndarray,
        tol_infeas: float | None = None,
    ) -> EngineSolution:
        """The compiled engine's work alone.

        Args:
            structure: Patterns and cones, all of which the engine takes.
            data: P, q, A and b, shape (items or 1, size), float64, contiguous.
            items: How many programmes.
            *start: x, y and s to start from, as the data, or nothing.
            tol_infeas: Tolerance of certificates; None for `tol`.
        """
        P, q, A, b = data
        x, y, s = start or (None,) * 3
        return engine(structure).solve(
            *(P, q, A, b, items),
            differentiator=compiled_differentiator(structure),
            threads=self.threads or torch.get_num_threads(),
            tol=self.tol,
            tol_infeasible=tol_infeas,
            max_iter=self.max_iter,
            x=x,
            y=y,
            s=s,
        )

    def conclude(self, program: ConeProgram, result: EngineSolution) -> ConeSolution:
        """The solution, and what is to be said of it and done about items without one.

        Args:
            program: The programmes, one batch axis at most.
            result: What `run` made of them.
        """
        if self.verbose:
            report(self.name, result["status"], result["iterations"])
        solution = engine_solution(result)
        if result["worst"] < np.inf:
            return solution
        return without_certificates(proven(program, solution, self._without_claims))

    def _without_claims(self, program: ConeProgram) -> ConeSolution:
        """A second way: only certificates that are all but exact end an item."""
        data = [_rows(value) for value in (program.P, program.q, program.A, program.b)]
        result = self.run(program.structure, data, program.batch_shape.numel(), tol_infeas=ALMOST_EXACT)
        return proven(program, engine_solution(result))


def engine_solution(result: EngineSolution) -> ConeSolution:
    """The engine's results as tensors."""
    return ConeSolution(*(torch.from_numpy(result[name]) for name in _RESULTS))


# The engine's results in the order of a solution's attributes.
_RESULTS = ("x", "y", "s", "status", "iterations", "primal_residual", "dual_residual", "gap")


def _point(solution: ConeSolution, batch_shape: torch.Size) -> list[np.ndarray]:
    """x, y and s of each item, shape (items, size); not a number where there is no solution."""
    there = solution.has_solution[..., None]
    values = (torch.where(there, value, torch.nan) for value in (solution.x, solution.y, solution.s))
    return [_rows(v.expand(*batch_shape, v.shape[-1]).reshape(batch_shape.numel(), v.shape[-1])) for v in values]


def _rows(values: Tensor) -> np.ndarray:
    """(rows, size) float64 on the CPU; no copy where the tensor is that already."""
    ready = values.is_cpu and values.dtype is torch.float64
    return rows(values if ready else values.to(device="cpu", dtype=torch.float64))

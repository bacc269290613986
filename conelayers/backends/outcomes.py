"""What backends say of their items: claims that are proven, a second try where they are not, zeros without a point."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from conelayers.backends.base import Solver
from conelayers.backends.certificates import EXACT, ROUGH, proven_status
from conelayers.program import ConeProgram, ConeSolution, Status

__all__ = ["best_of", "part_of", "promoted", "proven", "put", "report", "without_certificates"]


def proven(
    program: ConeProgram,
    solution: ConeSolution,
    again: Callable[[ConeProgram], ConeSolution] | None = None,
    failures: bool = False,
) -> ConeSolution:
    """The solution, with certificates that hold in the data of the programmes and no others.

    A claim of infeasibility or unboundedness that does not hold is withdrawn, and the item solved again.

    Args:
        program: The programmes, one batch axis at most.
        solution: Their outcomes; items without a solution hold their rays, or where the solver stopped.
        again: Solves programmes another way, without such claims; its outcome counts. None: this was the other way, and
            certificates need not be as exact.
        failures: Solve items that failed again as well.
    """
    code = proven_status(program, solution, ROUGH if again is None else EXACT)
    lost = (code == int(Status.FAILED)) & (failures | (solution.status_code != int(Status.FAILED)))
    solution = dataclasses.replace(solution, status_code=code)
    items = torch.nonzero(lost)[:, 0]
    if again is None or not len(items):
        return solution
    return put(again(part_of(program, items)), items, solution)


# Residuals, and distances to the cones, up to which a solution needs no second opinion.
_GOOD = 1e-5


def best_of(program: ConeProgram, found: ConeSolution, ways: Sequence[Solver]) -> ConeSolution:
    """Solve items that are not solved well in other ways, one after another, until one does; the best outcome counts.

    Args:
        program: The programmes, any batch axes.
        found: What a first way made of them.
        ways: The others.
    """
    batch = found.status_code.shape
    best, flat = found.reshape(torch.Size([batch.numel()])), program.flatten()
    for way in ways:
        good = (best.status_code == int(Status.SOLVED)) & (_doubt(program, best) <= _GOOD)
        failed = best.status_code == int(Status.FAILED)
        items = torch.nonzero(~good & (failed | best.has_solution))[:, 0]
        if not len(items):
            break
        before = best.map(lambda value, items=items: value[items])
        again = way.solve(part_of(flat, items))
        better = (_doubt(program, again) < _doubt(program, before)) | (~before.has_solution & ~again.has_solution)
        best = put(again.map(lambda value, better=better: value[better]), items[better], best)
    return best.reshape(batch)


def promoted(solution: ConeSolution, tol: float) -> ConeSolution:
    """Inaccurate solutions of a closer way that are within the tolerance asked for are solutions."""
    close = (solution.status_code == int(Status.INACCURATE)) & (solution.worst <= tol)
    code = torch.where(close, int(Status.SOLVED), solution.status_code).to(torch.int8)
    return dataclasses.replace(solution, status_code=code)


def _doubt(program: ConeProgram, solution: ConeSolution) -> Tensor:
    """The largest residual or distance to a cone, each relative; ten times that of inaccurate solutions."""
    cone = program.structure.cone
    y, s = solution.y, solution.s
    outside = [(cone.project_dual(y) - y).abs(), (cone.project(s) - s).abs()]
    worst = solution.worst
    for distance, point in zip(outside, (y, s), strict=True):
        if point.shape[-1]:
            worst = torch.maximum(worst, distance.amax(-1) / torch.clamp(point.abs().amax(-1), min=1.0))
    worst = torch.where(solution.status_code == int(Status.INACCURATE), 10 * worst, worst)
    return torch.where(solution.has_solution, worst, torch.inf)


def part_of(program: ConeProgram, items: Tensor) -> ConeProgram:
    """Some of the programmes of a batch with one axis."""
    data = (program.P, program.q, program.A, program.b)
    return ConeProgram(program.structure, *(value if value.shape[0] == 1 else value[items] for value in data))


def put(part: ConeSolution, items: Tensor, into: ConeSolution) -> ConeSolution:
    """The solution with some items, one batch axis, replaced."""
    merged = into.map(torch.clone)
    for value, other in zip(merged.tensors, part.tensors, strict=True):
        value[items] = other.to(value.dtype)
    return merged


def without_certificates(solution: ConeSolution) -> ConeSolution:
    """Zeros, and infinite residuals, in the items that have no point; one batch axis.

    Those that were stopped by a limit keep their last iterate and its residuals.
    """
    there = solution.has_solution | (solution.status_code == int(Status.ITERATION_LIMIT))
    points = {name: torch.where(there[:, None], getattr(solution, name), 0.0) for name in ("x", "y", "s")}
    residuals: dict[str, Tensor] = {
        name: torch.where(there, getattr(solution, name), torch.inf)
        for name in ("primal_residual", "dual_residual", "gap")
    }
    return dataclasses.replace(solution, **points, **residuals)


def report(name: str, status: np.ndarray, iterations: np.ndarray) -> None:
    """Print the number of items, iterations and outcomes of a call."""
    outcomes = ", ".join(f"{int((status == code).sum())} {code.name}" for code in Status if (status == code).any())
    print(f"{name}: {len(status)} items, at most {iterations.max(initial=0)} iterations; {outcomes}")

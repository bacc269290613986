"""One solve of a batch of programmes: a backend's solution, finished by Newton steps on the optimality conditions."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Protocol

import torch
from torch import Tensor

from conelayers.errors import InvalidArgument
from conelayers.program import (
    AbsentRows,
    ConeProgram,
    ConeSolution,
    ConeStructure,
    Status,
    residuals,
    without_absent_rows,
)
from conelayers.residual.compiled import compiled_kernels
from conelayers.residual.polish import polish

__all__ = ["FINISHED", "Backend", "fitted_start", "polished", "solve_and_polish"]

# Newton steps at most, the relative residual at which they stop, and the one from which on the result is doubted.
_STEPS, _TARGET, _DOUBTFUL = 6, 1e-12, 1e-10

FINISHED = 1e-9
"""Largest residual at which a backend that polishes is believed to have done it."""

# Largest residual, or multiple of the backend's tolerance, at which a polished point is believed to be a solution; and
# how many times that an inaccurate one may have: small rows are measured by their own terms.
_BELIEVED, _SLACK, _INACCURATE = 1e-5, 1e2, 1e2

_ROUGH = 10.0  # multiple of the tolerance beyond which a point is called inaccurate, as by the engine


class Backend(Protocol):
    """Anything that solves a batch of cone programmes."""

    def solve(self, program: ConeProgram, warm_start: ConeSolution | None = None) -> ConeSolution:
        """Solve every item of the batch; failures are statuses, never exceptions."""
        ...


def solve_and_polish(program: ConeProgram, backend: Backend, warm_start: ConeSolution | None = None) -> ConeSolution:
    """Solve and polish, without autograd: on the programme's device if the backend can, else on the CPU.

    A backend at tolerance 1e-8 leaves errors up to 1e-4 in derivatives; one or two semismooth Newton steps remove them.

    Args:
        program: Any batch axes, any device.
        backend: What solves it.
        warm_start: A previous solution with the same number of items (or one item, used for all), or None.

    Returns:
        A solution with the programme's batch axes, on its device.

    Raises:
        InvalidArgument: If the warm start is one of another problem or of another number of items.
    """
    batch_shape, device = program.batch_shape, program.q.device
    flat = program.detach().flatten()
    if batch_shape.numel() == 0:
        return _empty(program)
    backend = _on(backend, device)
    if device.type == "cpu":
        flat, absent = without_absent_rows(flat)
        solution = _solved(flat, backend, _start(warm_start, flat, absent))
    else:  # a GPU is not asked in advance
        solution, absent = _solved(flat, backend, _start(warm_start, flat, None)), None
        if not solution.all_solved:
            flat, absent = without_absent_rows(flat)
            solution = solution if absent is None else _solved(flat, backend, None)
    solution = solution.to(device)
    return (solution if absent is None else absent.restore(solution)).reshape(batch_shape)


def _start(start: ConeSolution | None, program: ConeProgram, absent: AbsentRows | None) -> ConeSolution | None:
    """The starting point, fitted to the programmes."""
    fitted = None if start is None else fitted_start(start, program)
    return fitted if fitted is None or absent is None else absent.inside(fitted)


def _solved(flat: ConeProgram, backend: Backend, start: ConeSolution | None) -> ConeSolution:
    """The solution of programmes with one batch axis."""
    device = flat.q.device
    if device.type not in ("cpu", *getattr(backend, "devices", ())):
        _warn_about_device(device, backend)
        flat = ConeProgram(flat.structure, flat.P.cpu(), flat.q.cpu(), flat.A.cpu(), flat.b.cpu())
    solution = backend.solve(flat, start)
    if not (_polishes(backend, flat.structure) and float(solution.worst.max()) <= FINISHED):
        solution = polished(flat, backend, solution)
    return solution


def polished(program: ConeProgram, backend: Backend, solution: ConeSolution) -> ConeSolution:
    """A backend's solution after Newton steps, without what is none.

    Args:
        program: One batch axis at most, on the solution's device.
        backend: What has solved it.
        solution: Its solution, one batch axis.
    """
    tol = getattr(backend, "tol", 1e-8)
    found = _after_newton(program, solution, tol)
    closer = backend.closer(program.structure) if hasattr(backend, "closer") else None  # type: ignore[attr-defined]
    if closer is not None and compiled_kernels(program.structure, program.q.device) is not None:
        found = _from_closer(program, found, closer, tol)
    return _as_accurate_as_claimed(_believed(found, max(_BELIEVED, _SLACK * tol)), _ROUGH * tol)


def _from_closer(program: ConeProgram, found: ConeSolution, closer: Backend, tol: float) -> ConeSolution:
    """Items from which Newton steps did not get to the solution, from a closer start where that leads nearer to it.

    Where multipliers are not unique the Jacobian is singular at all of them; steps from inside their set stay there.
    """
    items = torch.nonzero(found.has_solution & ~(found.worst <= _DOUBTFUL))[:, 0]
    if not len(items):
        return found
    part, before = _part(program, items), found.map(lambda value: value[items])
    again = _after_newton(part, closer.solve(part, before), tol)
    nearer = again.has_solution & (again.worst < before.worst) & (again.status_code <= before.status_code)
    merged = found.map(torch.clone)
    for value, other in zip(merged.tensors, again.tensors, strict=True):
        value[items[nearer]] = other[nearer]
    return merged


def _part(program: ConeProgram, items: Tensor) -> ConeProgram:
    """Some of the programmes of a batch with one axis."""
    data = (program.P, program.q, program.A, program.b)
    return ConeProgram(program.structure, *(v if v.shape[0] == 1 else v[items] for v in data))


def _after_newton(program: ConeProgram, solution: ConeSolution, tol: float) -> ConeSolution:
    """Newton steps for the items that have a solution; an inaccurate one that reaches `tol` this way is solved."""
    kernels = compiled_kernels(program.structure, program.q.device)
    if kernels is None:
        return polish(program, solution)
    data = (program.P, program.q, program.A, program.b, solution.x, solution.y, solution.s)
    x, y, s, _, relative = kernels.polish(*data, steps=_STEPS, target=_TARGET)
    primal, dual, gap = relative.unbind(-1)
    polished = ConeSolution(x, y, s, solution.status_code, solution.iterations, primal, dual, gap)
    usable = solution.has_solution & _no_worse(program, solution, relative.amax(-1))
    if not bool(usable.all()):
        polished = _choose(usable, polished, solution)
    inaccurate = solution.status_code == int(Status.INACCURATE)
    if bool(inaccurate.any()):
        reached = inaccurate & (relative.amax(-1) <= tol)
        codes = torch.where(reached, int(Status.SOLVED), solution.status_code).to(torch.int8)
        polished = dataclasses.replace(polished, status_code=codes)
    return polished


def _believed(solution: ConeSolution, limit: float) -> ConeSolution:
    """What is called a solution and has a residual beyond the limit is an inaccurate one, or none: zeros are its point.

    Solvers divide residuals by the norm of x or y as well. On programmes that are all but infeasible those grow without
    bound, and any residual passes.
    """
    doubtful = solution.has_solution & ~(solution.worst <= limit)
    if not bool(doubtful.any()):
        return solution
    wrong = doubtful & ~(solution.worst <= _INACCURATE * limit)
    points = {name: torch.where(wrong[:, None], 0.0, getattr(solution, name)) for name in ("x", "y", "s")}
    codes = torch.where(doubtful, int(Status.INACCURATE), solution.status_code)
    codes = torch.where(wrong, int(Status.FAILED), codes).to(torch.int8)
    return dataclasses.replace(solution, status_code=codes, **points)


def _as_accurate_as_claimed(solution: ConeSolution, limit: float) -> ConeSolution:
    """What is called solved and has a residual beyond the limit, row by row, is inaccurate."""
    rough = (solution.status_code == int(Status.SOLVED)) & ~(solution.worst <= limit)
    if not bool(rough.any()):
        return solution
    codes = torch.where(rough, int(Status.INACCURATE), solution.status_code).to(torch.int8)
    return dataclasses.replace(solution, status_code=codes)


def _no_worse(program: ConeProgram, solution: ConeSolution, polished: Tensor) -> Tensor:
    """Items whose polished residual is no larger than that of the backend's point, bool, shape (B,).

    The polish starts from v = y - s, whose projections differ from y and s by about the gap over |v|: beside a kink
    that can cost digits which its steps do not win back. Only items with residuals worth a comparison are measured.
    """
    doubtful = torch.nonzero(~(polished <= _DOUBTFUL) & solution.has_solution)[:, 0]
    keep = torch.ones(polished.shape, dtype=torch.bool, device=polished.device)
    if len(doubtful):
        part = _part(program, doubtful)
        before = residuals(part, *(value[doubtful] for value in (solution.x, solution.y, solution.s))).worst
        keep[doubtful] = polished[doubtful] <= before
    return keep


def _choose(where: Tensor, first: ConeSolution, second: ConeSolution) -> ConeSolution:
    """Items of `first` where the mask holds, of `second` elsewhere."""
    fields = {}
    for field in dataclasses.fields(first):
        value = getattr(first, field.name)
        mask = where[:, None] if value.dim() == 2 else where
        fields[field.name] = torch.where(mask, value, getattr(second, field.name))
    return ConeSolution(**fields)


def fitted_start(start: ConeSolution, program: ConeProgram) -> ConeSolution:
    """A starting point with the programmes' batch axes, on their device.

    Raises:
        InvalidArgument: If it is one of another problem, or neither of one item nor of as many as the programmes are.
    """
    structure, batch = program.structure, program.batch_shape
    sizes, expected = tuple(v.shape[-1] for v in (start.x, start.y, start.s)), (structure.n, structure.m, structure.m)
    if sizes != expected:
        raise InvalidArgument(
            f"warm_start has x, y and s of sizes {sizes}, this problem {expected}; pass a solution of the same problem."
        )
    count = start.status_code.numel()
    if count not in (1, batch.numel()):
        raise InvalidArgument(
            f"warm_start is a solution of {count} items, the batch has {batch.numel()}; pass one of as many items, or "
            "of a single item, from which all start."
        )
    flat = start.detach().reshape(torch.Size([count])).to(program.q.device)
    return flat.map(lambda value: value.expand(batch.numel(), *value.shape[1:])).reshape(batch)


def _empty(program: ConeProgram) -> ConeSolution:
    """The solution of a batch without items."""
    batch, q = program.batch_shape, program.q
    x, rows, numbers = (
        q.new_zeros((*batch, q.shape[-1])),
        q.new_zeros((*batch, program.structure.m)),
        q.new_zeros(batch),
    )
    codes = torch.zeros(batch, dtype=torch.int8, device=q.device)
    return ConeSolution(x, rows, rows.clone(), codes, codes.long(), numbers, numbers.clone(), numbers.clone())


def _on(backend: Backend, device: torch.device) -> Backend:
    """What the backend says to use on a device, if it says anything."""
    return backend.on(device) if hasattr(backend, "on") else backend  # type: ignore[attr-defined]


def _polishes(backend: Backend, structure: ConeStructure) -> bool:
    """Whether nothing is left to do after the backend; backends need not say."""
    return hasattr(backend, "polishes") and backend.polishes(structure)  # type: ignore[attr-defined]


_warned_about_device = False


def _warn_about_device(device: torch.device, backend: Backend) -> None:
    global _warned_about_device
    if not _warned_about_device:
        _warned_about_device = True
        name = getattr(backend, "name", type(backend).__name__)
        explain = getattr(backend, "unavailable", lambda _: f"{name} solves on the CPU")
        warnings.warn(
            f"Programmes on {device} are solved by {name} on the CPU; inputs and results are copied, derivatives stay "
            f"there. The reason: {explain(device)}.",
            stacklevel=4,
        )

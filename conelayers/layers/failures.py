"""What an error says of items without a solution: one sentence per cause, with what to do about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from conelayers.canonicalize import ParametricProgram
from conelayers.layers.directions import least_shift, ray_of_descent
from conelayers.program import ConeProgram, ConeSolution, Status

__all__ = ["explain_failures"]

# Items that are looked into, entries of a vector that count, and curvature below which a form is called not convex.
_MOST, _COUNTS, _CURVED = 4, 1e-5, -1e-9


@dataclasses.dataclass(frozen=True)
class _Item:
    """One failed item: its number in the batch, its programme, its parameters and what became of it."""

    program: ConeProgram
    params: tuple[Tensor, ...]
    status: Status
    worst: float


def explain_failures(
    parametric: ParametricProgram, params: Sequence[Tensor], cone: ConeSolution, batch: torch.Size
) -> str:
    """The message of a `SolveError`.

    Args:
        parametric: The problem.
        params: The parameters.
        cone: Its solution, with `Status` per item and residuals.
        batch: Batch axes of the parameters.
    """
    depth = cone.status_code.dim()
    shape = (*(1,) * (len(batch) - depth), *cone.status_code.shape)
    codes = cone.status_code.reshape(shape).expand(batch).cpu().numpy()
    worst = cone.worst.reshape(shape).expand(batch).cpu().numpy()
    program = parametric.values(*(value.detach() for value in params))
    places = [tuple(int(i) for i in place) for place in np.argwhere(codes > int(Status.INACCURATE))]
    causes: dict[str, list[tuple[int, ...]]] = {}
    for place in places[:_MOST]:
        item = _Item(
            _at_item(program, batch, place),
            tuple(_at(v, len(batch), place, s) for v, s in zip(params, parametric.layout.shapes, strict=True)),
            Status(int(codes[place])),
            float(worst[place]),
        )
        causes.setdefault(_cause(parametric, item), []).append(place)
    rest = [f"{_name(place)}: {Status(int(codes[place])).name}" for place in places[_MOST:8]]
    lines = [f"The problem has no solution in {_where(places, codes)}."]
    lines += [f"{_subject(found, codes.ndim)}{text}" for text, found in causes.items()]
    if rest:
        more = f" and {len(places) - 8} more" if len(places) > 8 else ""
        lines.append(f"Not looked into: {', '.join(rest)}{more}.")
    return " ".join(
        [*lines, "(layer.solve(...) returns without an error; on_failure='nan' keeps the other items of a batch.)"]
    )


def _cause(parametric: ParametricProgram, item: _Item) -> str:
    """The first of the possible causes that holds, the user's data first."""
    for look in (_not_finite, _outside, _not_convex):
        text = look(parametric, item)
        if text is not None:
            return text
    return _BY_STATUS[item.status](parametric, item)


def _not_finite(parametric: ParametricProgram, item: _Item) -> str | None:
    names = [
        f"{_label(parametric, index)} ({'NaN' if bool(value.isnan().any()) else 'infinite'})"
        for index, value in enumerate(item.params)
        if not bool(value.isfinite().all())
    ]
    if names:
        return (
            f"not all entries of {_and(names)} are finite. Look at what computes them: a division by zero or a "
            "diverged training step upstream."
        )
    owners = parametric.owners
    rows = np.flatnonzero(~np.isfinite(item.program.b.numpy()))
    if len(rows):
        labels = _and([f"'{owners.constraints[i]}'" for i in np.unique(owners.rows[rows])])
        return f"a constant of {labels} is not finite. Leave out a bound that binds nothing."
    parts = (item.program.P, item.program.q, item.program.A)
    if not all(bool(part.isfinite().all()) for part in parts):
        return (
            "the data of the programme are not finite although the parameters are: a parameter is zero or negative "
            "where its logarithm is taken (gp=True), or a constant of the problem is NaN."
        )
    return None


def _outside(parametric: ParametricProgram, item: _Item) -> str | None:
    found = []
    for index, (value, words) in enumerate(zip(item.params, parametric.layout.domains, strict=False)):
        for word in words:
            what = _VIOLATION[word](value)
            if what is not None:
                found.append(f"{_label(parametric, index)} is declared {word}=True and {what}")
    if not found:
        return None
    return (
        f"{_and(found)}. The problem is convex for declared values alone: map the network's output there "
        "(softplus for signs, L @ L.mT for matrices) or change the declaration."
    )


def _not_convex(parametric: ParametricProgram, item: _Item) -> str | None:
    structure = item.program.structure
    if structure.P_nnz == 0:
        return None
    upper = sp.csc_array((item.program.P.numpy(), structure.P_indices, structure.P_indptr), shape=(structure.n,) * 2)
    used = np.unique(np.concatenate([structure.P_indices, structure.P_columns]))
    block = sp.csc_array(upper + sp.triu(upper, 1).T)[used][:, used].toarray()
    values, vectors = np.linalg.eigh(block)
    if values[0] >= _CURVED * max(1.0, values[-1]):
        return None
    columns = parametric.owners.columns[used[np.abs(vectors[:, 0]) > 0.1]]
    names = [f"'{parametric.owners.variables[i]}'" for i in np.unique(columns) if i >= 0]
    entering = [_label(parametric, i) for i in sorted({block.parameter for block in parametric.P.blocks})]
    return (
        f"the objective is not convex at these parameters: its smallest curvature is {values[0]:.2g}, along "
        f"{_and(names) or 'auxiliary variables'}. Pass positive semidefinite values for {_and(entering) or 'P'}, such "
        "as L @ L.mT."
    )


def _infeasible(parametric: ParametricProgram, item: _Item) -> str:
    shift = least_shift(item.program)
    names = _owners(shift, parametric.owners.rows, parametric.owners.constraints)
    if shift is None or not names:
        return "infeasible: no point satisfies all constraints. Relax a constraint."
    together = "cannot hold" if len(names) == 1 else "contradict each other"
    return (
        f"infeasible: {_and(names)} {together} (a shift of their right-hand sides by {np.abs(shift).max():.2g} would "
        "help). Relax one of them, give it a slack variable with a penalty, or solve the closest feasible problem."
    )


def _unbounded(parametric: ParametricProgram, item: _Item) -> str:
    ray = ray_of_descent(item.program)
    names = _owners(ray, parametric.owners.columns, parametric.owners.variables)
    along = f" along {_and(names)}" if names else ""
    return (
        f"unbounded: the objective improves without limit{along}. Bound these variables, or add a quadratic term such "
        "as 1e-3 * sum_squares(x)."
    )


def _stopped(parametric: ParametricProgram, item: _Item) -> str:
    return (
        f"stopped at the limit of iterations, at a relative residual of {item.worst:.1g}. Raise max_iters or tol in "
        "solver_args; on_failure='keep' returns the last iterate."
    )


def _broken(parametric: ParametricProgram, item: _Item) -> str:
    return (
        "the solver broke down numerically. Scale the data so that their entries are near one, bound the variables, or "
        "try solver='CLARABEL'."
    )


_BY_STATUS: dict[Status, Callable[[ParametricProgram, _Item], str]] = {
    Status.PRIMAL_INFEASIBLE: _infeasible,
    Status.DUAL_INFEASIBLE: _unbounded,
    Status.ITERATION_LIMIT: _stopped,
    Status.FAILED: _broken,
}


def _sign(wrong: Callable[[Tensor], Tensor], word: str) -> Callable[[Tensor], str | None]:
    def look(value: Tensor) -> str | None:
        bad = wrong(value)
        return f"has an entry {value[bad].flatten()[0].item():.3g}" if bool(bad.any()) else None

    look.__doc__ = word
    return look


def _eigenvalue(sign: float) -> Callable[[Tensor], str | None]:
    def look(value: Tensor) -> str | None:
        matrix = value.to(torch.complex128 if value.is_complex() else torch.float64)
        spectrum = torch.linalg.eigvalsh((matrix + matrix.mH) / 2)
        least = float((sign * spectrum).min())
        wrong = least < -1e-9 * max(1.0, float(spectrum.abs().max()))
        return f"has the eigenvalue {sign * least:.3g}" if wrong else None

    return look


_VIOLATION: dict[str, Callable[[Tensor], str | None]] = {
    "nonneg": _sign(lambda v: v < 0, "nonneg"),
    "nonpos": _sign(lambda v: v > 0, "nonpos"),
    "pos": _sign(lambda v: v <= 0, "pos"),
    "neg": _sign(lambda v: v >= 0, "neg"),
    "PSD": _eigenvalue(1.0),
    "NSD": _eigenvalue(-1.0),
}


def _owners(vector: np.ndarray | None, owner: np.ndarray, names: Sequence[str]) -> list[str]:
    """Names of the owners of the entries that are not zero, in quotes; none if nothing is known."""
    if vector is None or not vector.size or not np.abs(vector).max() > 0:
        return []
    own = owner[np.abs(vector) > _COUNTS * np.abs(vector).max()]
    return [f"'{names[i]}'" for i in np.unique(own) if i >= 0]


def _at_item(program: ConeProgram, batch: torch.Size, place: tuple[int, ...]) -> ConeProgram:
    parts = (_at(part, len(batch), place, part.shape[-1:]) for part in (program.P, program.q, program.A, program.b))
    return ConeProgram(program.structure, *parts)


def _at(value: Tensor, rank: int, place: tuple[int, ...], shape: Sequence[int]) -> Tensor:
    """The item of a tensor that has all batch axes, some of size 1, or the last of them or none."""
    axes = value.dim() - len(shape)
    where = place[rank - axes :] if axes else ()
    return value.detach().cpu()[tuple(0 if size == 1 else i for i, size in zip(where, value.shape, strict=False))]


def _label(parametric: ParametricProgram, index: int) -> str:
    return f"parameter {index} ({parametric.layout.names[index]})"


def _name(place: tuple[int, ...]) -> str:
    return str(place[0] if len(place) == 1 else place)


def _subject(places: list[tuple[int, ...]], axes: int) -> str:
    """Whom a sentence is about."""
    if axes == 0:
        return "Cause: "
    return f"Item{'s' if len(places) > 1 else ''} {', '.join(map(_name, places))}: "


def _where(places: list[tuple[int, ...]], codes: np.ndarray) -> str:
    if codes.ndim == 0:
        return f"this call ({Status(int(codes)).name})"
    shown = ", ".join(f"{_name(place)}: {Status(int(codes[place])).name}" for place in places[:8])
    more = f" and {len(places) - 8} more" if len(places) > 8 else ""
    return f"{len(places)} of {codes.size} batch items ({shown}{more})"


def _and(names: Sequence[str]) -> str:
    shown = list(names[:6]) + ([f"{len(names) - 6} more"] if len(names) > 6 else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + f" and {shown[-1]}" if shown else ""

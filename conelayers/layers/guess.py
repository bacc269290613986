"""A starting point from a user's own guess of some variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conelayers.canonicalize import Output, ParametricProgram
from conelayers.cones import Zero
from conelayers.errors import InvalidArgument
from conelayers.program import ConeProgram, ConeSolution, Status

__all__ = ["point_from_guess"]

# Slack, relative to its row, below which a constraint is taken to be active at the guess.
_TIGHT = 1e-3


def point_from_guess(
    parametric: ParametricProgram, guess: Mapping[Any, Any], params: Sequence[Tensor], batch: torch.Size
) -> ConeSolution:
    """A primal-dual point near the guess: slacks from the constraints, multipliers from stationarity.

    Variables without a value are zero; those that CVXPY introduced follow from the equalities. With the rows that are
    active at x, y is the least-squares solution of Px + q + A'y = 0, projected onto the dual cone.

    Args:
        parametric: The problem.
        guess: Values by variable or by its name, shape (*batch, *shape) or (*shape).
        params: The parameters.
        batch: Their batch axes.

    Raises:
        InvalidArgument: If a key is no variable of the problem, or a value has another shape.
    """
    program = parametric.values(*(value.detach() for value in params))
    x = _primal(parametric, guess, batch)
    flat = ConeProgram(program.structure, *(_rows(v, batch) for v in (program.P, program.q, program.A, program.b)))
    x = x.reshape(-1, x.shape[-1])
    x = torch.stack([_completed(flat, i, x[i], parametric.owners.columns < 0) for i in range(len(x))])
    slack = flat.b - flat.A_times(x)
    s = program.structure.cone.project(slack)
    scale = 1 + flat.b.abs()
    y = torch.stack([_multipliers(flat, i, x[i], (s[i] <= _TIGHT * scale[i]).numpy()) for i in range(len(x))])
    y = program.structure.cone.project_dual(y)
    count = torch.zeros(len(x))
    codes = torch.full((len(x),), int(Status.SOLVED), dtype=torch.int8)
    return ConeSolution(x, y, s, codes, count.long(), *(count.double(),) * 3).reshape(batch)


def _primal(parametric: ParametricProgram, guess: Mapping[Any, Any], batch: torch.Size) -> Tensor:
    """The unknowns x at the guess, shape (*batch, n)."""
    known = {output.name: output for output in parametric.provenance.variables}
    x = torch.zeros(*batch, parametric.structure.n, dtype=torch.float64)
    for key, value in guess.items():
        name = key if isinstance(key, str) else key.name() if hasattr(key, "name") else repr(key)
        if name not in known:
            raise InvalidArgument(f"warm_start has {name!r}; the problem's variables are {', '.join(known)}.")
        x = x + _entries(known[name], value, batch, parametric.objective.exponentiate)
    return x


def _entries(output: Output, value: Any, batch: torch.Size, logarithm: bool) -> Tensor:
    """The entries of x that a variable is read from: least squares, as a symmetric one is read twice."""
    given = torch.as_tensor(value).detach().cpu().to(torch.float64)
    try:
        given = given.expand(*batch, *output.shape)
    except RuntimeError:
        raise InvalidArgument(
            f"warm_start[{output.name!r}] has shape {tuple(given.shape)}; expected {output.shape} or "
            f"{(*batch, *output.shape)}."
        ) from None
    flat = given.reshape(batch.numel(), output.matrix.shape[0]).numpy()  # type: ignore[index]
    flat = np.log(flat) if logarithm else flat
    matrix: Any = output.matrix
    weights = np.asarray(matrix.power(2).sum(axis=0)).ravel()
    found = (matrix.T @ flat.T).T / np.where(weights > 0, weights, 1.0)
    return torch.from_numpy(found).reshape(*batch, -1)


def _completed(program: ConeProgram, item: int, x: Tensor, auxiliary: np.ndarray) -> Tensor:
    """The point of one item with auxiliary variables that fit the equalities best."""
    cone = program.structure.cone
    zero = np.repeat([isinstance(block, Zero) for block in cone.cones], np.diff(cone.offsets))
    if not auxiliary.any() or not zero.any():
        return x
    A, found = _matrix(program, item)[zero], x.numpy().copy()
    gap = program.b[item].numpy()[zero] - A @ found
    found[auxiliary] += np.linalg.lstsq(A[:, auxiliary], gap, rcond=None)[0]
    return torch.from_numpy(found)


def _matrix(program: ConeProgram, item: int) -> np.ndarray:
    """A of one item, dense."""
    structure = program.structure
    A = np.zeros((structure.m, structure.n))
    A[structure.A_indices, structure.A_columns] = program.A[item].numpy()
    return A


def _multipliers(program: ConeProgram, item: int, x: Tensor, tight: np.ndarray) -> Tensor:
    """The y of one item, zero off the active rows."""
    structure = program.structure
    gradient = (ConeProgram(structure, *(v[item] for v in (program.P, program.q, program.A, program.b)))).P_times(x)
    gradient = (gradient + program.q[item]).numpy()
    A, y = _matrix(program, item), np.zeros(structure.m)
    if tight.any():
        y[tight] = np.linalg.lstsq(A[tight].T, -gradient, rcond=None)[0]
    return torch.from_numpy(y)


def _rows(value: Tensor, batch: torch.Size) -> Tensor:
    return value.detach().cpu().expand(*batch, value.shape[-1]).reshape(batch.numel(), value.shape[-1])

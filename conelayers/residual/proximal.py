"""The pullback of `LagrangianProximal`: one more solve of the programme, with the loss in its objective."""

from __future__ import annotations

import dataclasses
import weakref
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from conelayers.implicit import implicit
from conelayers.implicit.perturbed import LagrangianProximal
from conelayers.program import ConeStructure
from conelayers.program.products import A_transpose_times, outer, symmetric_outer

if TYPE_CHECKING:
    from conelayers.residual.conic import ConicConditions

__all__ = ["proximal_pullback"]


def proximal_pullback(
    conditions: ConicConditions,
    inputs: tuple[Tensor, ...],
    point: tuple[Tensor, Tensor],
    cotangents: tuple[Tensor, Tensor, Tensor],
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """Cotangents of P, q, A and b.

    The saddle point of L + t (g_x'x + g_y'y) is the solution with q + t g_x in place of q and b - t g_y in place of b;
    then

        dq = (x_t - x) / t,   db = -(y_t - y) / t,   dP = (x_t x_t' - x x') / 2t,   dA = (y_t x_t' - y x') / t,

    on the patterns. A cotangent g_s of s = b - Ax adds -A'g_s to g_x, g_s to db and -g_s x' to dA.

    Args:
        conditions: The equation, whose mode is `LagrangianProximal`.
        inputs: P, q, A and b.
        point: x and y of the solution.
        cotangents: g_x, g_y and g_s.
        needed: Which of the four are used.
    """
    mode, structure = conditions.mode, conditions.structure
    assert isinstance(mode, LagrangianProximal)
    P, q, A, b = inputs
    x, y = point
    gx, gy, gs = cotangents
    pull = gx - A_transpose_times(structure, A, gs)
    perturbed, P_moved, q_moved = _with_proximal_term(conditions, P, q, x, mode.rho)
    total: list[Tensor] | None = None
    for step in mode.steps:
        x_t, y_t = implicit(perturbed, P_moved, q_moved + step * pull, A, b - step * gy)[:2]
        parts = [
            (symmetric_outer(structure, x_t, x_t) - symmetric_outer(structure, x, x)) / (2 * step),
            (x_t - x) / step,
            (outer(structure, y_t, x_t) - outer(structure, y, x)) / step,
            (y - y_t) / step,
        ]
        total = parts if total is None else [a + c for a, c in zip(total, parts, strict=True)]
    assert total is not None
    dP, dq, dA, db = (part / len(mode.steps) for part in total)
    dA, db = dA - outer(structure, gs, x), db + gs
    return tuple(value if use else None for value, use in zip((dP, dq, dA, db), needed, strict=True))


def _with_proximal_term(
    conditions: ConicConditions, P: Tensor, q: Tensor, x: Tensor, rho: float
) -> tuple[ConicConditions, Tensor, Tensor]:
    """The equation and its P and q with (rho / 2) |x - x*|^2 added to the objective."""
    conditions = dataclasses.replace(conditions, inspect=None, warm_start=None)
    if rho == 0:
        return conditions, P, q
    structure, places, diagonal = _with_diagonal(conditions.structure)
    widened = P.new_zeros((*P.shape[:-1], structure.P_nnz)).index_add(-1, places.to(P.device), P)
    shift = torch.zeros(structure.P_nnz, dtype=P.dtype, device=P.device)
    shift[diagonal.to(P.device)] = rho
    return dataclasses.replace(conditions, structure=structure), widened + shift, q - rho * x


_widened: weakref.WeakKeyDictionary[ConeStructure, tuple[ConeStructure, Tensor, Tensor]] = weakref.WeakKeyDictionary()


def _with_diagonal(structure: ConeStructure) -> tuple[ConeStructure, Tensor, Tensor]:
    """The structure with P's diagonal in its pattern, the places of P's entries in the new one, and of its diagonal."""
    if structure not in _widened:
        n = structure.n
        old = structure.P_columns * n + structure.P_indices
        diagonal = np.arange(n, dtype=np.int64) * (n + 1)
        new = np.union1d(old, diagonal)
        indptr = np.searchsorted(new, np.arange(n + 1, dtype=np.int64) * n)
        widened = dataclasses.replace(structure, P_indptr=indptr.astype(np.int64), P_indices=new % max(n, 1))
        places, places_of_diagonal = (torch.as_tensor(np.searchsorted(new, entries)) for entries in (old, diagonal))
        _widened[structure] = (widened, places, places_of_diagonal)
    return _widened[structure]

"""Gradients from a perturbed programme: one more solve, with the loss in its objective."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from conelayers.program import ConeStructure
from conelayers.program.products import A_transpose_times, outer, symmetric_outer

__all__ = ["Solve", "perturbed_gradients"]

Solve = Callable[[ConeStructure], Callable[..., tuple[Tensor, ...]]]
"""For a structure the map from P, q, A and b to x, y and more, differentiable."""


def perturbed_gradients(
    structure: ConeStructure,
    solve: Solve,
    inputs: tuple[Tensor, ...],
    point: tuple[Tensor, Tensor],
    cotangents: tuple[Tensor, Tensor, Tensor],
    tau: float,
    rho: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cotangents of P, q, A and b, as `LagrangianProximal` defines them.

    The saddle point of L + t (g_x'x + g_y'y) is the solution with q + t g_x in place of q and b - t g_y in place of b;
    then

        dq = (x_t - x) / t,   db = -(y_t - y) / t,   dP = (x_t x_t' - x x') / 2t,   dA = (y_t x_t' - y x') / t,

    on the patterns. A cotangent g_s of s = b - Ax adds -A'g_s to g_x, g_s to db and -g_s x' to dA.

    Args:
        structure: Patterns and cone.
        solve: Solves programmes of a given structure.
        inputs: P, q, A and b.
        point: x and y of the solution.
        cotangents: g_x, g_y and g_s.
        tau: Size t of the perturbation, of either sign.
        rho: Weight of the proximal term (rho / 2) |x - x*|^2.
    """
    P, q, A, b = inputs
    x, y = point
    gx, gy, gs = cotangents
    moved, P_moved, q_moved = _with_proximal_term(structure, P, q, x, rho)
    pull = gx - A_transpose_times(structure, A, gs)
    x_t, y_t = solve(moved)(P_moved, q_moved + tau * pull, A, b - tau * gy)[:2]
    return (
        (symmetric_outer(structure, x_t, x_t) - symmetric_outer(structure, x, x)) / (2 * tau),
        (x_t - x) / tau,
        (outer(structure, y_t, x_t) - outer(structure, y, x)) / tau - outer(structure, gs, x),
        (y - y_t) / tau + gs,
    )


def _with_proximal_term(
    structure: ConeStructure, P: Tensor, q: Tensor, x: Tensor, rho: float
) -> tuple[ConeStructure, Tensor, Tensor]:
    """The structure, P and q with (rho / 2) |x - x*|^2 added to the objective."""
    if rho == 0:
        return structure, P, q
    widened, places, diagonal = _with_diagonal(structure)
    spread = P.new_zeros((*P.shape[:-1], widened.P_nnz)).index_add(-1, places.to(P.device), P)
    shift = torch.zeros(widened.P_nnz, dtype=P.dtype, device=P.device)
    shift[diagonal.to(P.device)] = rho
    return widened, spread + shift, q - rho * x


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

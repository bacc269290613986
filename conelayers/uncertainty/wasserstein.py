"""The worst mean over all distributions within a transport distance of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp
import numpy as np

from conelayers.errors import InvalidArgument
from conelayers.settings import check_kind
from conelayers.uncertainty._expressions import as_expression, as_parameters_only, has_parameters, lifted
from conelayers.uncertainty.sets import UncertaintySet

__all__ = ["worst_case_mean"]


def worst_case_mean(
    pieces: Sequence[tuple[Any, Any]], samples: Any, moves: UncertaintySet, outcomes: UncertaintySet | None = None
) -> cp.Expression:
    """Return sup E max_k (a_k'xi + b_k) over the distributions of xi near a sample, as one convex expression.

    Near means: within 1 of the sample in the Wasserstein distance of order 1 whose cost of moving by d is the gauge of
    `moves`, the least t >= 0 with d in t moves. A ball of radius r around 0 gives the usual ambiguity set of radius r:
    `Ellipsoid(zeros, r)` for the Euclidean norm, `Box` and `CrossPolytope` for max and sum. With the support
    functions sigma of the two sets it is (Mohajerin Esfahani & Kuhn 2018, theorem 4.2 and corollary 5.1)

        inf over g_ik of  1/N sum_i max_k [b_k + (a_k - g_ik)'xi_i + sigma_outcomes(g_ik)]
                          + max_ik sigma_moves(a_k - g_ik)

    and g = 0 if outcomes are not restricted.

    Args:
        pieces: Pairs (a_k, b_k), affine, a_k of shape (n,) or the number 0, b_k a scalar.
        samples: Shape (N, n), an array or affine in parameters.
        moves: A set around 0, so that a larger one allows more.
        outcomes: A set that holds every possible outcome, and the samples; None for all vectors.

    Returns:
        A scalar expression.

    Raises:
        InvalidArgument: If sizes do not fit, or 0 is not in a constant `moves`.
    """
    samples = as_parameters_only("samples", samples)
    if samples.ndim != 2 or samples.shape[0] == 0:
        raise InvalidArgument(f"samples must be a matrix (N, n) with N >= 1, got shape {samples.shape}.")
    count, n = samples.shape
    _check_sets(samples, moves, outcomes)
    if not pieces:
        raise InvalidArgument("pieces must hold at least one pair (a, b), got none.")
    values, slopes = [], []
    for k, (a, b) in enumerate(pieces):
        slope, offset, equal = _piece(k, a, b, n, has_parameters(samples) or moves.parametric)
        if slope is None:
            values.append(offset * np.ones(count))
            continue
        row = cp.reshape(slope, (1, n), order="C")
        if outcomes is None:
            values.append(samples @ slope + offset + equal)
            slopes.append(moves.support(slope))
            continue
        kept = cp.Variable((count, n))  # g_ik, the part of the slope that the bounds on outcomes pay for
        rest = np.ones((count, 1)) @ row - kept
        values.append(offset + cp.sum(cp.multiply(samples, rest), axis=1) + outcomes.support(kept) + equal)
        slopes.append(cp.max(moves.support(rest)))
    mean = cp.sum(_maximum(values)) / count
    return mean + _maximum(slopes) if slopes else mean


def _maximum(expressions: list[Any]) -> cp.Expression:
    return cp.maximum(*expressions) if len(expressions) > 1 else expressions[0]


def _check_sets(samples: cp.Expression, moves: UncertaintySet, outcomes: UncertaintySet | None) -> None:
    n = samples.shape[1]
    check_kind("moves", moves, UncertaintySet)
    if outcomes is not None:
        check_kind("outcomes", outcomes, UncertaintySet)
    for role, chosen in (("moves", moves), ("outcomes", outcomes)):
        if chosen is not None and chosen.dim != n:
            raise InvalidArgument(f"{role}: {chosen.name} must have the dimension of the samples, {n}.")
    if not moves.parametric and not moves.holds(np.zeros((1, n))):
        raise InvalidArgument(f"moves: {moves.name} must contain 0, the move that changes nothing.")
    if outcomes is not None and not (outcomes.parametric or has_parameters(samples)):
        if not outcomes.holds(np.asarray(samples.value)):
            raise InvalidArgument(
                f"outcomes: {outcomes.name} must hold all samples, which are possible outcomes themselves."
            )


def _piece(k: int, a: Any, b: Any, n: int, lift: bool) -> tuple[cp.Expression | None, cp.Expression, Any]:
    """The slope (None if 0), the offset, and what ties a lifted slope to a."""
    slope, offset = as_expression(f"pieces[{k}]: a", a), as_expression(f"pieces[{k}]: b", b)
    if offset.ndim != 0 or not offset.is_affine():
        raise InvalidArgument(f"pieces[{k}]: b must be an affine scalar, got shape {offset.shape}.")
    if slope.ndim == 0 and isinstance(slope, cp.Constant) and slope.value == 0:
        return None, offset, 0.0
    if slope.shape != (n,) or not slope.is_affine():
        raise InvalidArgument(f"pieces[{k}]: a must be affine of shape ({n},) or the number 0, got {slope.shape}.")
    if lift and has_parameters(slope):
        # A product of parameters of the slope with those of samples or moves is not DPP: a variable takes its place.
        free, equal = lifted(slope, f"slope of pieces[{k}]")
        return free, offset, equal
    return slope, offset, 0.0

"""Coordinate descent on a small quadratic with a separable term, compiled by numba and cached on disk."""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["descend"]


@numba.njit(cache=True, fastmath=False)
def descend(Q, gradient, w, linear, l1, l2, lower, upper, epochs, target):
    """Minimise w'Qw/2 - q'w + sum_j linear_j w_j + l1_j |w_j| + l2_j w_j^2 / 2 over lower <= w <= upper, in place.

    Args:
        Q: Symmetric, shape (k, k), C-contiguous.
        gradient: Q w - q at the starting point; updated.
        w: Starting point; updated.
        linear: Shape (k,); so are l1, l2, lower, upper.
        l1: Thresholds.
        l2: Curvatures.
        lower: Lower bounds.
        upper: Upper bounds.
        epochs: Most sweeps.
        target: Stop when no coordinate's step, times its curvature, exceeds this in a sweep.

    Returns:
        Number of sweeps made.
    """
    k = w.shape[0]
    for epoch in range(epochs):
        worst = 0.0
        for j in range(k):
            curvature = Q[j, j] + l2[j]
            if curvature <= 0.0:
                continue
            old = w[j]
            z = Q[j, j] * old - gradient[j] - linear[j]
            if z > l1[j]:
                new = (z - l1[j]) / curvature
            elif z < -l1[j]:
                new = (z + l1[j]) / curvature
            else:
                new = 0.0
            new = min(max(new, lower[j]), upper[j])
            step = new - old
            if step != 0.0:
                w[j] = new
                for i in range(k):
                    gradient[i] += step * Q[j, i]
                worst = max(worst, abs(step) * curvature)
        if worst <= target:
            return epoch + 1
    return epochs


def warm_up() -> None:
    """Compile, or load from the cache, before anything is timed."""
    one = np.ones(1)
    descend(np.ones((1, 1)), -one, 0 * one, 0 * one, 0 * one, 0 * one, -one, one, 1, 0.0)

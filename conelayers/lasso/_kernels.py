"""Kernels on dense and sparse columns, compiled by numba and cached on disk.

The model is (Xw)'H(Xw)/2 over steps from a starting point, H = diag(h), plus linear, l1 and l2 parts and bounds.
Two forms: on a Gram matrix, entry by entry or group by group, and on the columns of a sparse design, where a step costs
the entries of its column.
"""

from __future__ import annotations

import numba
import numpy as np

__all__ = ["conjugate_gradient", "descend_columns", "descend_gram", "descend_groups"]


@numba.njit(cache=True, inline="always")
def _update(w, slope, own, linear, l1, l2, lower, upper):
    # exact minimiser in one coordinate, from its slope and curvatures
    curvature = own + l2
    if curvature <= 0.0:
        return w
    z = own * w - slope - linear
    if z > l1:
        new = (z - l1) / curvature
    elif z < -l1:
        new = (z + l1) / curvature
    else:
        new = 0.0
    return min(max(new, lower), upper)


@numba.njit(cache=True)
def _newton_direction(M, b):
    """Overwrite b by a solution of M x = b, the upper triangle of M by its factor; zero in entries that others span."""
    s, kept = b.shape[0], np.ones(b.shape[0], dtype=np.bool_)
    first = np.diag(M).copy()
    for j in range(s):
        if M[j, j] <= 1e-10 * first[j]:
            kept[j] = False
            continue
        own = np.sqrt(M[j, j])
        for a in range(j, s):
            M[j, a] /= own
        for i in range(j + 1, s):
            share = M[j, i]
            for a in range(i, s):
                M[i, a] -= share * M[j, a]
    for j in range(s):
        b[j] = b[j] / M[j, j] if kept[j] else 0.0
        if kept[j]:
            for a in range(j + 1, s):
                b[a] -= M[j, a] * b[j]
    for j in range(s - 1, -1, -1):
        if kept[j]:
            for a in range(j + 1, s):
                b[j] -= M[j, a] * b[a]
            b[j] /= M[j, j]


@numba.njit(cache=True)
def _jump(Q, gradient, w, linear, l1, l2, lower, upper):
    """Newton's step in the entries off their kinks and bounds, where those that would leave stop; never uphill."""
    k, free = w.shape[0], np.flatnonzero(((w != 0.0) | (l1 == 0.0)) & (w > lower) & (w < upper))
    s = free.shape[0]
    M, slope, d = np.empty((s, s)), np.empty(s), np.empty(s)
    for a in range(s):
        i = free[a]
        slope[a] = gradient[i] + linear[i] + l2[i] * w[i] + l1[i] * np.sign(w[i])
        for b in range(a, s):
            M[a, b] = Q[i, free[b]]
        M[a, a] += l2[i]
    d[:] = -slope
    _newton_direction(M, d)
    step, change, moved = 1.0, np.empty(s), np.empty(k)
    for _ in range(2):
        gain, first = 0.0, 1.0
        moved[:] = 0.0
        for a in range(s):
            i = free[a]
            low = 0.0 if l1[i] > 0.0 and w[i] > 0.0 else lower[i]
            high = 0.0 if l1[i] > 0.0 and w[i] < 0.0 else upper[i]
            change[a] = min(max(w[i] + step * d[a], low), high) - w[i]
            if abs(change[a]) < abs(d[a]):
                first = min(first, change[a] / d[a])
            for j in range(k):
                moved[j] += change[a] * Q[i, j]
        for a in range(s):
            gain += change[a] * (slope[a] + 0.5 * moved[free[a]] + 0.5 * l2[free[a]] * change[a])
        if gain < 0.0:
            gradient += moved
            for a in range(s):
                w[free[a]] += change[a]
            return
        step = first  # downhill as far as the first entry that leaves


@numba.njit(cache=True)
def descend_gram(Q, gradient, w, linear, l1, l2, lower, upper, epochs, target):
    """Minimise with the Gram matrix in memory, in place, by sweeps and an occasional Newton step.

    Args:
        Q: X'HX, shape (k, k), C-contiguous.
        gradient: Slope of the quadratic at the starting point, shape (k,); updated.
        w: Starting point, shape (k,); updated.
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
            old = w[j]
            new = _update(old, gradient[j], Q[j, j], linear[j], l1[j], l2[j], lower[j], upper[j])
            step = new - old
            if step != 0.0:
                w[j] = new
                for i in range(k):
                    gradient[i] += step * Q[j, i]
                worst = max(worst, abs(step) * (Q[j, j] + l2[j]))
        if worst <= target:
            return epoch + 1
        # a jump costs a factorization: after as many sweeps as cost the same, at least five
        used = np.count_nonzero(w)
        if epoch % (5 + used * used // (12 * k)) == 4:
            _jump(Q, gradient, w, linear, l1, l2, lower, upper)
    return epochs


@numba.njit(cache=True)
def descend_groups(Q, gradient, w, scale, l1, members, offsets, epochs, target):
    """Minimise with the Gram matrix in memory and norms of groups of rows as the term, in place.

    Each group takes a proximal step of length 1 / L, L a bound of the norm of its block of Q (its largest row sum).

    Args:
        Q: Curvature of every column of w, shape (m, m), C-contiguous.
        gradient: Slope of the quadratic at the starting point, shape (m, r); updated.
        w: Starting point, shape (m, r); updated.
        scale: Weight of each group's norm, shape (groups,).
        l1: Thresholds inside the groups, shape (m, r).
        members: Rows of the groups, one group after the other, shape (m,).
        offsets: Where each group begins in `members`, and the end, shape (groups + 1,).
        epochs: Most sweeps.
        target: Stop when no entry's step, times L, exceeds this in a sweep.

    Returns:
        Number of sweeps made.
    """
    m, r = w.shape
    bound = np.zeros(scale.shape[0])
    for g in range(scale.shape[0]):
        for a in range(offsets[g], offsets[g + 1]):
            total = 0.0
            for b in range(offsets[g], offsets[g + 1]):
                total += abs(Q[members[a], members[b]])
            bound[g] = max(bound[g], total)
    new = np.empty((m, r))
    for epoch in range(epochs):
        worst = 0.0
        for g in range(scale.shape[0]):
            size, square = bound[g], 0.0
            if size <= 0.0:
                continue
            for a in range(offsets[g], offsets[g + 1]):
                i = members[a]
                for c in range(r):
                    z, cut = w[i, c] - gradient[i, c] / size, l1[i, c] / size
                    z = z - min(max(z, -cut), cut)
                    new[a, c] = z
                    square += z * z
            norm, cut = np.sqrt(square), scale[g] / size
            shrink = 1.0 - cut / norm if norm > cut else 0.0
            for a in range(offsets[g], offsets[g + 1]):
                i = members[a]
                for c in range(r):
                    step = shrink * new[a, c] - w[i, c]
                    if step != 0.0:
                        w[i, c] += step
                        for b in range(m):
                            gradient[b, c] += step * Q[i, b]
                        worst = max(worst, abs(step) * size)
        if worst <= target:
            return epoch + 1
    return epochs


@numba.njit(cache=True)
def descend_columns(indptr, indices, data, h, r, fit_intercept, w, linear, l1, l2, lower, upper, epochs, target):
    """Minimise with the slope in the predictions in memory, in place.

    The intercept is minimised over together with each coordinate: columns of large mean are collinear with it, and
    taking turns would make no progress. That is coordinate descent on centred columns, which are never formed.

    Args:
        indptr: Columns of X, compressed.
        indices: Rows of the entries.
        data: The entries.
        h: Curvature of the model in each prediction, shape (n,).
        r: Slope of the model in each prediction, shape (n,); overwritten.
        fit_intercept: Whether an intercept is minimised over as well.
        w: Starting point, shape (k,); updated.
        linear: Shape (k,); so are l1, l2, lower, upper.
        l1: Thresholds.
        l2: Curvatures.
        lower: Lower bounds.
        upper: Upper bounds.
        epochs: Most full sweeps (each followed by sweeps over the nonzero coordinates).
        target: Stop when no coordinate's step, times its curvature, exceeds this in a full sweep.

    Returns:
        Change of the intercept.
    """
    k, total = w.shape[0], h.sum()
    centred = fit_intercept and total > 0.0
    own, border = np.zeros(k), np.zeros(k)
    for j in range(k):
        for a in range(indptr[j], indptr[j + 1]):
            own[j] += h[indices[a]] * data[a] * data[a]
            border[j] += h[indices[a]] * data[a]
        if centred:  # of a constant column rounding is left
            own[j] = max(own[j] - border[j] * border[j] / total, 1e-12 * own[j])
    shift = -r.sum() / total if centred else 0.0  # the slope is r + shift h
    for _ in range(epochs):
        first = 0.0
        for sweep in range(10):
            worst = 0.0
            for j in range(k):
                old = w[j]
                if sweep > 0 and old == 0.0:
                    continue
                slope = shift * border[j]
                for a in range(indptr[j], indptr[j + 1]):
                    slope += r[indices[a]] * data[a]
                new = _update(old, slope, own[j], linear[j], l1[j], l2[j], lower[j], upper[j])
                step = new - old
                if step != 0.0:
                    w[j] = new
                    for a in range(indptr[j], indptr[j + 1]):
                        r[indices[a]] += step * h[indices[a]] * data[a]
                    if centred:
                        shift -= step * border[j] / total
                    worst = max(worst, abs(step) * (own[j] + l2[j]))
            if sweep == 0:
                first = worst
            if worst <= max(0.1 * first, target):
                break
        if first <= target:
            break
    return shift


@numba.njit(cache=True)
def conjugate_gradient(indptr, indices, data, h, curvature, rhs, fit_intercept, rtol, most):
    """Solve J u = rhs for J = [[X'HX + diag(curvature), X'h], [h'X, sum h]], the diagonal as preconditioner.

    Args:
        indptr: Columns of X, compressed.
        indices: Rows of the entries.
        data: The entries.
        h: Diagonal of H, shape (n,).
        curvature: Shape (k,).
        rhs: Shape (k,), or (k + 1,) with an intercept.
        fit_intercept: Whether the last row and column are present.
        rtol: Relative residual in the norm of the preconditioner at which to stop.
        most: Most iterations.

    Returns:
        u, and whether it reached the accuracy.
    """
    k, n = curvature.shape[0], h.shape[0]
    diagonal = np.empty(rhs.shape[0])
    for j in range(k):
        own = curvature[j]
        for a in range(indptr[j], indptr[j + 1]):
            own += h[indices[a]] * data[a] * data[a]
        diagonal[j] = own
    if fit_intercept:
        diagonal[k] = h.sum()
    if diagonal.min() <= 0.0:
        return rhs, False
    u, r, eta, moved = np.zeros_like(rhs), rhs.copy(), np.empty(n), np.empty_like(rhs)
    z = r / diagonal
    direction, rz = z.copy(), r @ z
    goal = rtol * rtol * rz
    for _ in range(most):
        if rz <= goal:
            return u, True
        eta[:] = direction[k] if fit_intercept else 0.0
        for j in range(k):
            for a in range(indptr[j], indptr[j + 1]):
                eta[indices[a]] += data[a] * direction[j]
        eta *= h
        for j in range(k):
            total = curvature[j] * direction[j]
            for a in range(indptr[j], indptr[j + 1]):
                total += data[a] * eta[indices[a]]
            moved[j] = total
        if fit_intercept:
            moved[k] = eta.sum()
        bend = direction @ moved
        if bend <= 0.0:
            return u, False
        step = rz / bend
        u += step * direction
        r -= step * moved
        z = r / diagonal
        previous = rz
        rz = r @ z
        direction = z + (rz / previous) * direction
    return u, rz <= goal

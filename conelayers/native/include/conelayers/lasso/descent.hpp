// Coordinate descent on the model w'Qw/2 + gradient'w plus linear, l1 and l2 parts and bounds, Q = X'HX in memory.
//
// Sweeps over the coordinates, and now and then a Newton step in those off their kinks and bounds: strongly coupled
// coordinates would otherwise take thousands of sweeps. All memory is the caller's.
#pragma once

#include <algorithm>
#include <cmath>

#include "conelayers/pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// The parts of a separable term, one number per coordinate each.
struct SeparableParts {
    const double *linear, *l1, *l2, *lower, *upper;
};

// Exact minimiser in one coordinate, from its slope and curvature.
inline double coordinate_minimum(double w, double slope, double own, const SeparableParts& term, long long j) {
    const double curvature = own + term.l2[j];
    if (!(curvature > 0.0)) return w;
    const double z = own * w - slope - term.linear[j], cut = term.l1[j];
    const double moved = z > cut ? z - cut : (z < -cut ? z + cut : 0.0);
    return std::min(std::max(moved / curvature, term.lower[j]), term.upper[j]);
}

// y += a x.
inline void add_multiple(long long count, double a, const double* __restrict x, double* __restrict y) {
    for (long long i = 0; i < count; ++i) y[i] += a * x[i];
}

// Overwrite b by a solution of M x = b, the upper triangle of M by its factor; zero in entries that others span.
// M: s x s, row-major; first: s numbers of work.
inline void newton_direction(long long s, double* M, double* b, double* first) {
    for (long long j = 0; j < s; ++j) first[j] = M[j * s + j];
    for (long long j = 0; j < s; ++j) {
        double* row = M + j * s;
        if (row[j] <= 1e-10 * first[j]) {
            first[j] = -1.0;  // spanned by those before it
            continue;
        }
        const double inverse = 1.0 / std::sqrt(row[j]);
        for (long long a = j; a < s; ++a) row[a] *= inverse;
        for (long long i = j + 1; i < s; ++i) add_multiple(s - i, -row[i], row + i, M + i * s + i);
    }
    for (long long j = 0; j < s; ++j) {
        const double* row = M + j * s;
        if (first[j] < 0.0) {
            b[j] = 0.0;
            continue;
        }
        b[j] /= row[j];
        add_multiple(s - j - 1, -b[j], row + j + 1, b + j + 1);
    }
    for (long long j = s - 1; j >= 0; --j) {
        if (first[j] < 0.0) continue;
        const double* row = M + j * s;
        double sum = b[j];
        for (long long a = j + 1; a < s; ++a) sum -= row[a] * b[a];
        b[j] = sum / row[j];
    }
}

// Numbers of work that `newton_jump` needs beside the s x s matrix, for k coordinates.
inline long long jump_work(long long k) { return 5 * k; }

// Newton's step in the entries off their kinks and bounds (`free`, s of them), where those that would leave stop;
// never uphill.
inline void newton_jump(long long k, const double* Q, double* gradient, double* w, const SeparableParts& term,
                        const long long* free, long long s, double* M, double* work) {
    double *slope = work, *d = slope + k, *change = d + k, *moved = change + k, *first = moved + k;
    for (long long a = 0; a < s; ++a) {
        const long long i = free[a];
        const double sign = w[i] > 0.0 ? 1.0 : (w[i] < 0.0 ? -1.0 : 0.0);
        slope[a] = gradient[i] + term.linear[i] + term.l2[i] * w[i] + term.l1[i] * sign;
        for (long long b = a; b < s; ++b) M[a * s + b] = Q[i * k + free[b]];
        M[a * s + a] += term.l2[i];
        d[a] = -slope[a];
    }
    newton_direction(s, M, d, first);
    double step = 1.0;
    for (int attempt = 0; attempt < 2; ++attempt) {
        double gain = 0.0, leaves = 1.0;
        std::fill(moved, moved + k, 0.0);
        for (long long a = 0; a < s; ++a) {
            const long long i = free[a];
            const double low = term.l1[i] > 0.0 && w[i] > 0.0 ? 0.0 : term.lower[i];
            const double high = term.l1[i] > 0.0 && w[i] < 0.0 ? 0.0 : term.upper[i];
            change[a] = std::min(std::max(w[i] + step * d[a], low), high) - w[i];
            if (std::abs(change[a]) < std::abs(d[a])) leaves = std::min(leaves, change[a] / d[a]);
            add_multiple(k, change[a], Q + i * k, moved);
        }
        for (long long a = 0; a < s; ++a)
            gain += change[a] * (slope[a] + 0.5 * moved[free[a]] + 0.5 * term.l2[free[a]] * change[a]);
        if (gain < 0.0) {
            add_multiple(k, 1.0, moved, gradient);
            for (long long a = 0; a < s; ++a) w[free[a]] += change[a];
            return;
        }
        step = leaves;  // downhill as far as the first entry that leaves
    }
}

// The entries off their kinks and bounds; returns how many.
inline long long free_entries(long long k, const double* w, const SeparableParts& term, long long* free) {
    long long s = 0;
    for (long long i = 0; i < k; ++i)
        if ((w[i] != 0.0 || term.l1[i] == 0.0) && w[i] > term.lower[i] && w[i] < term.upper[i]) free[s++] = i;
    return s;
}

// One sweep; returns the largest step times its curvature.
inline double gram_sweep(long long k, const double* Q, double* gradient, double* w, const SeparableParts& term) {
    double worst = 0.0;
    for (long long j = 0; j < k; ++j) {
        const double own = Q[j * k + j], step = coordinate_minimum(w[j], gradient[j], own, term, j) - w[j];
        if (step != 0.0) {
            w[j] += step;
            add_multiple(k, step, Q + j * k, gradient);
            worst = std::max(worst, std::abs(step) * (own + term.l2[j]));
        }
    }
    return worst;
}

// Groups of rows of w (m x r, row-major) with the term scale ||w_G|| + sum l1 |w|; each takes a proximal step of length
// 1 / L, L a bound of the norm of its block of Q (its largest row sum).
struct RowGroups {
    long long count;
    const long long *members, *offsets;  // rows of the groups, one group after the other; where each begins, and the end
    const double *scale, *l1;
};

// bound: L of every group.
inline void group_bounds(long long m, const double* Q, const RowGroups& groups, double* bound) {
    for (long long g = 0; g < groups.count; ++g) {
        bound[g] = 0.0;
        for (long long a = groups.offsets[g]; a < groups.offsets[g + 1]; ++a) {
            double total = 0.0;
            for (long long b = groups.offsets[g]; b < groups.offsets[g + 1]; ++b)
                total += std::abs(Q[groups.members[a] * m + groups.members[b]]);
            bound[g] = std::max(bound[g], total);
        }
    }
}

// One sweep; fresh: m r numbers of work. Returns the largest step times L.
inline double group_sweep(long long m, long long r, const double* Q, double* gradient, double* w,
                          const RowGroups& groups, const double* bound, double* fresh) {
    double worst = 0.0;
    for (long long g = 0; g < groups.count; ++g) {
        const double size = bound[g];
        if (!(size > 0.0)) continue;
        double square = 0.0;
        for (long long a = groups.offsets[g]; a < groups.offsets[g + 1]; ++a) {
            const long long i = groups.members[a];
            for (long long c = 0; c < r; ++c) {
                const double z = w[i * r + c] - gradient[i * r + c] / size, cut = groups.l1[i * r + c] / size;
                const double kept = z - std::min(std::max(z, -cut), cut);
                fresh[a * r + c] = kept;
                square += kept * kept;
            }
        }
        const double norm = std::sqrt(square), cut = groups.scale[g] / size;
        const double shrink = norm > cut ? 1.0 - cut / norm : 0.0;
        for (long long a = groups.offsets[g]; a < groups.offsets[g + 1]; ++a) {
            const long long i = groups.members[a];
            for (long long c = 0; c < r; ++c) {
                const double step = shrink * fresh[a * r + c] - w[i * r + c];
                if (step == 0.0) continue;
                w[i * r + c] += step;
                if (r == 1) add_multiple(m, step, Q + i * m, gradient);
                else for (long long b = 0; b < m; ++b) gradient[b * r + c] += step * Q[i * m + b];
                worst = std::max(worst, std::abs(step) * size);
            }
        }
    }
    return worst;
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

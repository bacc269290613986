// Compressed columns of a sparse design, read in the types that they are stored in: products, coordinate descent, and
// conjugate gradients. All memory is the caller's.
#pragma once

#include <algorithm>
#include <cmath>

#include "conelayers/lasso/descent.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Value, class Index>
struct Columns {
    const Index *start, *row;
    const Value* value;

    double dot(long long j, const double* x) const {
        double sum = 0.0;
        for (Index a = start[j]; a < start[j + 1]; ++a) sum += x[row[a]] * static_cast<double>(value[a]);
        return sum;
    }
    // y += c x_j.
    void add_to(long long j, double c, double* y) const {
        for (Index a = start[j]; a < start[j + 1]; ++a) y[row[a]] += c * static_cast<double>(value[a]);
    }
    // x_j' diag(h) x_j.
    double square(long long j, const double* h) const {
        double sum = 0.0;
        for (Index a = start[j]; a < start[j + 1]; ++a) {
            const double v = static_cast<double>(value[a]);
            sum += h[row[a]] * v * v;
        }
        return sum;
    }
};

// out (n x K, row-major) += X w for w (p x K), columns with zeros only left out.
template <class Value, class Index>
void columns_times(const Columns<Value, Index>& X, long long p, long long K, const double* w, double* out) {
    for (long long j = 0; j < p; ++j) {
        const double* own = w + j * K;
        if (K == 1) {
            if (own[0] != 0.0) X.add_to(j, own[0], out);
            continue;
        }
        if (std::all_of(own, own + K, [](double v) { return v == 0.0; })) continue;
        for (Index a = X.start[j]; a < X.start[j + 1]; ++a)
            add_multiple(K, static_cast<double>(X.value[a]), own, out + X.row[a] * K);
    }
}

// Rows [first, last) of out (p x K) = X' r for r (n x K).
template <class Value, class Index>
void columns_transposed(const Columns<Value, Index>& X, long long first, long long last, long long K, const double* r,
                        double* out) {
    for (long long j = first; j < last; ++j) {
        if (K == 1) {
            out[j] = X.dot(j, r);
            continue;
        }
        std::fill(out + j * K, out + (j + 1) * K, 0.0);
        for (Index a = X.start[j]; a < X.start[j + 1]; ++a)
            add_multiple(K, static_cast<double>(X.value[a]), r + X.row[a] * K, out + j * K);
    }
}

// The quadratic model on columns, with its slope in the predictions, `r`, in memory. An intercept is minimised over
// together with each coordinate: columns of large mean are collinear with it, and taking turns would make no progress.
// That is coordinate descent on centred columns, which are never formed.
template <class Value, class Index>
struct ColumnDescent {
    Columns<Value, Index> X;
    long long k;
    const double* h;          // curvature of the model in each prediction
    double* r;                // slope of the model in each prediction, without shift h
    double *w, *own, *border; // coordinates; their curvatures; their products with h
    SeparableParts term;
    double total;             // sum of h where an intercept is minimised over, else zero
    double shift;             // change of the intercept

    // The best intercept at the starting point, n predictions.
    void best_shift(long long n) {
        double sum = 0.0;
        for (long long i = 0; i < n; ++i) sum += r[i];
        shift = total > 0.0 ? -sum / total : 0.0;
    }

    void begin() {
        for (long long j = 0; j < k; ++j) {
            own[j] = X.square(j, h);
            border[j] = X.dot(j, h);
            // of a constant column rounding is left
            if (total > 0.0) own[j] = std::max(own[j] - border[j] * border[j] / total, 1e-12 * own[j]);
        }
    }

    // Over all coordinates, or over the nonzero ones; returns the largest step times its curvature.
    double sweep(bool all) {
        double worst = 0.0;
        for (long long j = 0; j < k; ++j) {
            const double old = w[j];
            if (!all && old == 0.0) continue;
            const double slope = shift * border[j] + X.dot(j, r);
            const double step = coordinate_minimum(old, slope, own[j], term, j) - old;
            if (step == 0.0) continue;
            w[j] = old + step;
            for (Index a = X.start[j]; a < X.start[j + 1]; ++a)
                r[X.row[a]] += step * h[X.row[a]] * static_cast<double>(X.value[a]);
            if (total > 0.0) shift -= step * border[j] / total;
            worst = std::max(worst, std::abs(step) * (own[j] + term.l2[j]));
        }
        return worst;
    }

    // Full sweeps, each followed by sweeps over the nonzero coordinates, until none steps further than `target`.
    void run(int epochs, double target) {
        begin();
        for (int epoch = 0; epoch < epochs; ++epoch) {
            double first = 0.0;
            for (int i = 0; i < 10; ++i) {
                const double worst = sweep(i == 0);
                if (i == 0) first = worst;
                if (worst <= std::max(0.1 * first, target)) break;
            }
            if (first <= target) break;
        }
    }
};

// J u = rhs for J = [[X'HX + diag(curvature), X'h], [h'X, sum h]], the diagonal as preconditioner; the last row and
// column only with an intercept. work: n + 4 (k + 1) numbers. Returns whether the accuracy was reached.
template <class Value, class Index>
bool conjugate_gradient(const Columns<Value, Index>& X, long long n, long long k, const double* h,
                        const double* curvature, const double* rhs, bool intercept, double rtol, int most, double* u,
                        double* work) {
    const long long size = k + (intercept ? 1 : 0);
    double *eta = work, *diagonal = eta + n, *r = diagonal + size, *direction = r + size, *moved = direction + size;
    double total = 0.0;
    for (long long i = 0; i < n; ++i) total += h[i];
    for (long long j = 0; j < k; ++j) diagonal[j] = curvature[j] + X.square(j, h);
    if (intercept) diagonal[k] = total;
    double rz = 0.0;
    for (long long j = 0; j < size; ++j) {
        if (!(diagonal[j] > 0.0)) return false;
        u[j] = 0.0;
        r[j] = rhs[j];
        direction[j] = r[j] / diagonal[j];
        rz += r[j] * direction[j];
    }
    const double goal = rtol * rtol * rz;
    for (int iteration = 0; iteration < most; ++iteration) {
        if (rz <= goal) return true;
        std::fill(eta, eta + n, intercept ? direction[k] : 0.0);
        for (long long j = 0; j < k; ++j) X.add_to(j, direction[j], eta);
        double sum = 0.0, bend = 0.0;
        for (long long i = 0; i < n; ++i) sum += eta[i] *= h[i];
        for (long long j = 0; j < k; ++j) moved[j] = curvature[j] * direction[j] + X.dot(j, eta);
        if (intercept) moved[k] = sum;
        for (long long j = 0; j < size; ++j) bend += direction[j] * moved[j];
        if (!(bend > 0.0)) return false;
        const double step = rz / bend, previous = rz;
        rz = 0.0;
        for (long long j = 0; j < size; ++j) {
            u[j] += step * direction[j];
            r[j] -= step * moved[j];
            rz += r[j] * r[j] / diagonal[j];
        }
        for (long long j = 0; j < size; ++j) direction[j] = r[j] / diagonal[j] + rz / previous * direction[j];
    }
    return rz <= goal;
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

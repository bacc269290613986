// Products with some rows of a dense design, read where they lie and in the type that they are stored in.
#pragma once

#include <algorithm>

#include "conelayers/lasso/descent.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// n rows of p features each, of a row-major matrix.
template <class Value>
struct DenseRows {
    const Value* value;
    long long stride;        // of the matrix's rows
    const long long* index;  // which rows, or null: the first n
    long long p;

    const Value* row(long long i) const { return value + stride * (index != nullptr ? index[i] : i); }
};

// Sixteen partial sums: as many as the registers of any instruction set take.
template <class Value>
double row_dot(long long p, const Value* x, const double* b) {
    double part[16] = {};
    long long j = 0;
    for (; j + 16 <= p; j += 16)
        for (int l = 0; l < 16; ++l) part[l] += static_cast<double>(x[j + l]) * b[j + l];
    double sum = 0.0;
    for (; j < p; ++j) sum += static_cast<double>(x[j]) * b[j];
    for (int l = 0; l < 16; ++l) sum += part[l];
    return sum;
}

// Rows [first, last) of out (n x K, row-major) = X B for B (K x p, row-major). With `used`, so many features, B is
// K x used and the others are zero.
template <class Value>
void rows_times(const DenseRows<Value>& X, long long first, long long last, long long K, const double* B,
                const long long* features, long long used, double* out) {
    for (long long i = first; i < last; ++i) {
        const Value* x = X.row(i);
        for (long long c = 0; c < K; ++c) {
            if (features == nullptr) {
                out[i * K + c] = row_dot(X.p, x, B + c * X.p);
                continue;
            }
            double sum = 0.0;
            for (long long a = 0; a < used; ++a) sum += static_cast<double>(x[features[a]]) * B[c * used + a];
            out[i * K + c] = sum;
        }
    }
}

// Columns [first, last) of out (K x p, row-major) = R X for R (K x n, row-major). Four rows at a time, so that `out` is
// read and written once for all of them.
template <class Value>
void rows_transposed(const DenseRows<Value>& X, long long n, long long first, long long last, long long K,
                     const double* R, double* out) {
    const long long width = last - first;
    for (long long c = 0; c < K; ++c) std::fill(out + c * X.p + first, out + c * X.p + last, 0.0);
    long long i = 0;
    for (; i + 4 <= n; i += 4) {
        const Value *x0 = X.row(i) + first, *x1 = X.row(i + 1) + first, *x2 = X.row(i + 2) + first,
                    *x3 = X.row(i + 3) + first;
        for (long long c = 0; c < K; ++c) {
            const double *r = R + c * n + i, r0 = r[0], r1 = r[1], r2 = r[2], r3 = r[3];
            double* __restrict o = out + c * X.p + first;
            for (long long j = 0; j < width; ++j)
                o[j] += r0 * static_cast<double>(x0[j]) + r1 * static_cast<double>(x1[j]) +
                        r2 * static_cast<double>(x2[j]) + r3 * static_cast<double>(x3[j]);
        }
    }
    for (; i < n; ++i) {
        const Value* x = X.row(i) + first;
        for (long long c = 0; c < K; ++c) {
            const double r = R[c * n + i];
            double* __restrict o = out + c * X.p + first;
            for (long long j = 0; j < width; ++j) o[j] += r * static_cast<double>(x[j]);
        }
    }
}

// Rows [first, last) of out (n x count, row-major): some features of the rows, in double precision.
template <class Value>
void rows_chosen(const DenseRows<Value>& X, long long first, long long last, const long long* features,
                 long long count, double* out) {
    for (long long i = first; i < last; ++i) {
        const Value* x = X.row(i);
        for (long long a = 0; a < count; ++a) out[i * count + a] = static_cast<double>(x[features[a]]);
    }
}

// out_j = sum_i weight_i x_ij^2 for columns [first, last).
template <class Value>
void rows_squared(const DenseRows<Value>& X, long long n, long long first, long long last, const double* weight,
                  double* out) {
    std::fill(out + first, out + last, 0.0);
    for (long long i = 0; i < n; ++i) {
        const Value* x = X.row(i);
        for (long long j = first; j < last; ++j) {
            const double v = static_cast<double>(x[j]);
            out[j] += weight[i] * v * v;
        }
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

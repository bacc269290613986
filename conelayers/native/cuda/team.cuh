// One problem per warp. Every thread of the warp runs the method on the same numbers, in step: values in registers agree,
// and a store to an array of the problem writes one value to one place. Here are the functions that share their work out
// instead, which are nearly all of it: factorization, triangular solves, products with P and A, long sums.
//
// In a shared part, threads write to different places, and `meet` makes them visible to all; outside, control flow is the
// same for all threads. Sums over threads are exchanged by a butterfly, so that all hold the same bits.
#pragma once

#include "conelayers/interior_point.hpp"
#include "conelayers/polish.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

#if CL_TEAM > 1
CL_INLINE double sum_of_all(double a) {
    for (int distance = kTeam / 2; distance > 0; distance /= 2) a += __shfl_xor_sync(0xffffffffu, a, distance);
    return a;
}
CL_INLINE double max_of_all(double a) {
    for (int distance = kTeam / 2; distance > 0; distance /= 2)
        a = max(a, __shfl_xor_sync(0xffffffffu, a, distance));
    return a;
}
#else
CL_INLINE double sum_of_all(double a) { return a; }
CL_INLINE double max_of_all(double a) { return a; }
#endif

// ---- vectors ----------------------------------------------------------------------------------------------------

template <>
CL_HD inline double dot<double>(int count, Arr<double> a, Arr<double> b) {
    double r = 0.0;
    for (int i = member(); i < count; i += kTeam) r += a[i] * b[i];
    return sum_of_all(r);
}

template <>
CL_HD inline double norm_inf<double>(Arr<double> u, int count) {
    double r = 0.0;
    for (int i = member(); i < count; i += kTeam) r = max(r, abs(u[i]));
    return max_of_all(r);
}

// ---- LDL' -------------------------------------------------------------------------------------------------------

template <>
CL_HD inline void ldlt_clear<double>(const LdltView& view, Arr<double> factor) {
    for (long long i = member(); i < view.factor_size; i += kTeam) factor[i] = 0.0;
    meet();
}

namespace ldlt_detail {

// A tile of rows for each thread.
template <int C>
CL_HD inline void share_block(Arr<double> panel, int ld, int base, int column, int rows, int pivots,
                              Arr<double> source_diagonal, Arr<double> scaled, const Target<double>& target,
                              const int* relative) {
    for (int k = member(); k < pivots; k += kTeam)
        scale_rows<double, C>(panel + (long long)k * ld, ld, base + column, 1, source_diagonal + k, scaled + k * C);
    meet();
    const int tiles = (rows - column) / kTile;
    for (int t = member(); t < tiles; t += kTeam)
        subtract_tile<double, kTile, C>(panel, ld, base, column + t * kTile, column, pivots, scaled, target, relative);
    for (int row = column + tiles * kTile + member(); row < rows; row += kTeam)
        subtract_tile<double, 1, C>(panel, ld, base, row, column, pivots, scaled, target, relative);
    meet();
}

// The triangle of the block by every thread, the rows below it shared.
template <int C>
CL_HD inline void share_columns(Arr<double> panel, int ld, int first, int rows, Arr<double> diagonal,
                                Arr<double> inverse, const int* permutation, const signed char* signs,
                                const PivotRule& rule) {
    double lower[C][C], d[C], dinv[C];
    CL_UNROLL
    for (int c = 0; c < C; ++c) {
        double pivot = diagonal[first + c];
        CL_UNROLL
        for (int k = 0; k < c; ++k) pivot -= lower[c][k] * lower[c][k] * d[k];
        d[c] = safe_pivot(pivot, double(signs[permutation[first + c]]), rule);
        dinv[c] = 1.0 / d[c];
        CL_UNROLL
        for (int r = c + 1; r < C; ++r) {
            double a = panel[(long long)(first + c) * ld + first + r];
            CL_UNROLL
            for (int k = 0; k < c; ++k) a -= lower[r][k] * d[k] * lower[c][k];
            lower[r][c] = a * dinv[c];
        }
    }
    meet();  // all have read what one overwrites
    if (member() == 0)
        for (int c = 0; c < C; ++c) {
            diagonal[first + c] = d[c];
            inverse[first + c] = dinv[c];
            for (int r = c + 1; r < C; ++r) panel[(long long)(first + c) * ld + first + r] = lower[r][c];
        }
    for (int r = first + C + member(); r < rows; r += kTeam) {
        double x[C];
        CL_UNROLL
        for (int c = 0; c < C; ++c) {
            double a = panel[(long long)(first + c) * ld + r];
            CL_UNROLL
            for (int k = 0; k < c; ++k) a -= x[k] * lower[c][k];
            x[c] = a;
        }
        CL_UNROLL
        for (int c = 0; c < C; ++c) panel[(long long)(first + c) * ld + r] = x[c] * dinv[c];
    }
    meet();
}

#define CL_SHARED(C)                                                                                                   \
    template <>                                                                                                        \
    CL_HD inline void subtract_block<double, C>(Arr<double> panel, int ld, int base, int column, int rows, int pivots, \
                                                Arr<double> source_diagonal, Arr<double> scaled,                       \
                                                const Target<double>& target, const int* relative) {                   \
        share_block<C>(panel, ld, base, column, rows, pivots, source_diagonal, scaled, target, relative);              \
    }                                                                                                                  \
    template <>                                                                                                        \
    CL_HD inline void factor_columns<double, C>(Arr<double> panel, int ld, int first, int rows, Arr<double> diagonal,  \
                                                Arr<double> inverse, const int* permutation, const signed char* signs, \
                                                const PivotRule& rule) {                                               \
        share_columns<C>(panel, ld, first, rows, diagonal, inverse, permutation, signs, rule);                         \
    }
CL_SHARED(1)
CL_SHARED(2)
CL_SHARED(3)
CL_SHARED(4)
#undef CL_SHARED

// Independent pivots: a column for each thread.
template <>
CL_HD inline void factor_group<double>(const LdltView& view, const Supernode& s, Arr<double> factor,
                                       Arr<double> inverse, const signed char* signs, const PivotRule& rule) {
    for (int k = member(); k < s.width; k += kTeam) {
        const int pivot = s.first + k;
        const double d = safe_pivot(factor[view.panel_size + pivot], double(signs[view.permutation[pivot]]), rule);
        const double dinv = 1.0 / d;
        factor[view.panel_size + pivot] = d;
        inverse[pivot] = dinv;
        Arr<double> column = factor + (s.panel + (long long)k * s.ld);
        for (int r = 0; r < s.below; ++r) column[r] *= dinv;
    }
    meet();
}

template <int N>
CL_HD inline void share_forward(Arr<double> column, int ld, int columns, int count, const int* rows, int pivot,
                                Arr<double> x, int n) {
    for (int r = member(); r < count; r += kTeam)
        for (int q = 0; q < N; ++q) {
            double a = x[q * n + rows[r]];
            for (int c = 0; c < columns; ++c) a -= column[(long long)c * ld + r] * x[q * n + pivot + c];
            x[q * n + rows[r]] = a;
        }
    meet();
}

template <int N>
CL_HD inline void share_backward(Arr<double> column, int ld, int columns, int count, const int* rows, int pivot,
                                 Arr<double> x, int n) {
    for (int q = 0; q < N; ++q) {
        double sum[4] = {0.0, 0.0, 0.0, 0.0};
        for (int r = member(); r < count; r += kTeam) {
            const double xr = x[q * n + rows[r]];
            CL_UNROLL
            for (int c = 0; c < 4; ++c)
                if (c < columns) sum[c] += column[(long long)c * ld + r] * xr;
        }
        CL_UNROLL
        for (int c = 0; c < 4; ++c) sum[c] = sum_of_all(sum[c]);
        if (member() == 0)
            for (int c = 0; c < columns; ++c) x[q * n + pivot + c] -= sum[c];
    }
    meet();
}

#define CL_SHARED(N)                                                                                          \
    template <>                                                                                               \
    CL_INLINE void apply_columns<double, N, true>(Arr<double> column, int ld, int columns, int count,         \
                                                  const int* rows, int pivot, Arr<double> x, int n) {         \
        share_forward<N>(column, ld, columns, count, rows, pivot, x, n);                                      \
    }                                                                                                         \
    template <>                                                                                               \
    CL_INLINE void apply_columns<double, N, false>(Arr<double> column, int ld, int columns, int count,        \
                                                   const int* rows, int pivot, Arr<double> x, int n) {        \
        share_backward<N>(column, ld, columns, count, rows, pivot, x, n);                                     \
    }
CL_SHARED(1)
CL_SHARED(2)
#undef CL_SHARED

}  // namespace ldlt_detail

// ---- products with P and A: the entries of a column, which lie in different rows, shared --------------------------

template <int N>
CL_HD inline void share_products(const EngineView& view, const Programme<double>& p, Arr<double> x, Arr<double> z,
                                 long long stride, Arr<double> Px, Arr<double> Ax, Arr<double> Atz) {
    for (int k = 0; k < N; ++k) {
        for (int i = member(); i < view.m; i += kTeam) Ax[k * stride + i] = 0.0;
        for (int i = member(); i < view.n; i += kTeam) Px[k * stride + i] = 0.0;
    }
    meet();
    for (int j = 0; j < view.n; ++j) {
        for (int k = 0; k < N; ++k) {
            const double xj = x[k * stride + j];
            double dual = 0.0, quadratic = 0.0;
            for (int e = view.A_column[j] + member(); e < view.A_column[j + 1]; e += kTeam) {
                const int i = view.A_row[e];
                Ax[k * stride + i] += p.A[e] * xj;
                dual += p.A[e] * z[k * stride + i];
            }
            for (int e = view.P_column[j] + member(); e < view.P_column[j + 1]; e += kTeam) {
                const int i = view.P_row[e];
                if (i != j) Px[k * stride + i] += p.P[e] * xj;
                quadratic += p.P[e] * x[k * stride + i];
            }
            dual = sum_of_all(dual), quadratic = sum_of_all(quadratic);
            if (member() == 0) Atz[k * stride + j] = dual, Px[k * stride + j] += quadratic;
        }
        meet();
    }
}

template <>
CL_HD inline void products<double, 1>(const EngineView& view, const Programme<double>& p, Arr<double> x, Arr<double> z,
                                      long long stride, Arr<double> Px, Arr<double> Ax, Arr<double> Atz) {
    share_products<1>(view, p, x, z, stride, Px, Ax, Atz);
}

template <>
CL_HD inline void products<double, 2>(const EngineView& view, const Programme<double>& p, Arr<double> x, Arr<double> z,
                                      long long stride, Arr<double> Px, Arr<double> Ax, Arr<double> Atz) {
    share_products<2>(view, p, x, z, stride, Px, Ax, Atz);
}

template <>
CL_HD inline void jacobian_residual<double>(const DerivativeView& view, const DerivativeWork<double>& w,
                                            Arr<double> rhs, Arr<double> z, Arr<double> out) {
    const int n = view.n, m = view.m;
    Arr<double> dv = z + n;
    projection::apply_derivative<double>(view.cone, w.element, dv, w.image, w.scratch);
    meet();
    for (int j = member(); j < n; j += kTeam) out[j] = rhs[j];
    for (int i = member(); i < m; i += kTeam) out[n + i] = rhs[n + i] + (dv[i] - w.image[i]);
    meet();
    for (int j = 0; j < n; ++j) {
        const double x = z[j];
        double sum = 0.0;
        for (int k = view.a_start[j] + member(); k < view.a_start[j + 1]; k += kTeam) {
            const int i = view.a_row[k];
            out[n + i] -= w.a[k] * x;
            sum += w.a[k] * w.image[i];
        }
        for (int k = view.p_start[j] + member(); k < view.p_start[j + 1]; k += kTeam) {
            const int i = view.p_row[k];
            sum += w.p[k] * z[i];
            if (i != j) out[i] -= w.p[k] * x;
        }
        sum = sum_of_all(sum);
        if (member() == 0) out[j] -= sum;
        meet();
    }
}

template <>
CL_HD inline void regularised_solve<double>(const DerivativeView& view, const DerivativeWork<double>& w, Arr<double> r,
                                            Arr<double> z) {
    const int n = view.n, m = view.m;
    for (int j = member(); j < n; j += kTeam) z[j] = w.column[j] * r[j];
    for (int i = member(); i < m; i += kTeam) z[n + i] = w.row[i] * r[n + i];
    meet();
    ldlt_solve<double, 1>(view.ldlt, w.factor, w.inverse, z, z, w.permuted);
    meet();
    for (int i = member(); i < m; i += kTeam) z[n + i] = w.row[i] * w.active[i] * z[n + i] - r[n + i];
    for (int j = member(); j < n; j += kTeam) z[j] = w.column[j] * z[j];
    meet();
    for (int j = 0; j < n; ++j) {
        const double x = z[j];
        for (int k = view.a_start[j] + member(); k < view.a_start[j + 1]; k += kTeam) z[n + view.a_row[k]] += w.a[k] * x;
        meet();
    }
}

template <>
CL_HD inline void polish_detail::products<double>(const DerivativeView& view, const DerivativeWork<double>& w,
                                                  Arr<double> x, Arr<double> y, Arr<double> image,
                                                  Arr<double> transposed) {
    const int n = view.n, m = view.m;
    for (int k = member(); k < n + m; k += kTeam) image[k] = 0.0;
    meet();
    for (int j = 0; j < n; ++j) {
        double dual = 0.0, quadratic = 0.0;
        for (int k = view.a_start[j] + member(); k < view.a_start[j + 1]; k += kTeam) {
            const int i = view.a_row[k];
            image[n + i] += w.a[k] * x[j];
            dual += w.a[k] * y[i];
        }
        for (int k = view.p_start[j] + member(); k < view.p_start[j + 1]; k += kTeam) {
            const int i = view.p_row[k];
            quadratic += w.p[k] * x[i];
            if (i != j) image[i] += w.p[k] * x[j];
        }
        dual = sum_of_all(dual), quadratic = sum_of_all(quadratic);
        if (member() == 0) transposed[j] = dual, image[j] += quadratic;
        meet();
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// One problem per warp: the functions in which nearly all of the work lies, with it shared out among the threads. Phases and
// what may be done between them: conelayers/team.hpp.
#pragma once

#include "conelayers/interior_point.hpp"
#include "conelayers/polish.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// ---- LDL' -------------------------------------------------------------------------------------------------------

namespace ldlt_detail {

// A tile of rows for each thread.
template <int C>
CL_HD inline void share_block(Arr<double> panel, int ld, int base, int column, int rows, int pivots,
                              Arr<double> source_diagonal, Arr<double> scaled, const Target<double>& target,
                              const int* relative) {
    for (int p : each(pivots))
        scale_rows<double, C>(panel + (long long)p * ld, ld, base + column, 1, source_diagonal + p, scaled + p * C);
    const int tiles = (rows - column) / kTile;
    for (int t : each(tiles))
        subtract_tile<double, kTile, C>(panel, ld, base, column + t * kTile, column, pivots, scaled, target, relative);
    for (int row : each(column + tiles * kTile, rows))
        subtract_tile<double, 1, C>(panel, ld, base, row, column, pivots, scaled, target, relative);
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
    for (int r : each(first + C, rows)) {
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
    alone([&] {  // not before all have read the triangle
        for (int c = 0; c < C; ++c) {
            diagonal[first + c] = d[c];
            inverse[first + c] = dinv[c];
            for (int r = c + 1; r < C; ++r) panel[(long long)(first + c) * ld + first + r] = lower[r][c];
        }
    });
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

template <int N>
CL_HD inline void share_forward(Arr<double> column, int ld, int columns, int count, const int* rows, int pivot,
                                Arr<double> x, int n) {
    for (int r : each(count))
        for (int q = 0; q < N; ++q) {
            double a = x[q * n + rows[r]];
            for (int c = 0; c < columns; ++c) a -= column[(long long)c * ld + r] * x[q * n + pivot + c];
            x[q * n + rows[r]] = a;
        }
}

template <int N>
CL_HD inline void share_backward(Arr<double> column, int ld, int columns, int count, const int* rows, int pivot,
                                 Arr<double> x, int n) {
    double sums[4 * N];
    CL_UNROLL
    for (int k = 0; k < 4 * N; ++k) sums[k] = 0.0;
    for (int r : each(count))
        for (int q = 0; q < N; ++q) {
            const double xr = x[q * n + rows[r]];
            CL_UNROLL
            for (int c = 0; c < 4; ++c)
                if (c < columns) sums[4 * q + c] += column[(long long)c * ld + r] * xr;
        }
    CL_UNROLL
    for (int k = 0; k < 4 * N; ++k) sums[k] = all_sum(sums[k]);
    alone([&] {
        for (int q = 0; q < N; ++q)
            for (int c = 0; c < columns; ++c) x[q * n + pivot + c] -= sums[4 * q + c];
    });
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

// ---- products with P and A --------------------------------------------------------------------------------------

// A matrix by compressed columns.
struct Columns {
    int count;
    const int *start, *row;
    Arr<double> value;
};

// out += factor M x: column after column, its entries, which lie in different rows, shared. Upper: M is the upper triangle
// of P, whose diagonal is left to `transposed_dot`.
template <bool Upper>
CL_HD inline void share_scatter(const Columns& M, double factor, Arr<double> x, Arr<double> out) {
    for (int j = 0; j < M.count; ++j) {
        const int begin = M.start[j], end = M.start[j + 1];
        if (begin == end || (Upper && M.row[begin] == j)) continue;  // nothing above the diagonal
        const double xj = factor * x[j];
        for (int e : each(begin, end))
            if (!Upper || M.row[e] != j) out[M.row[e]] += M.value[e] * xj;
    }
}

// Column j of M times x.
CL_INLINE double transposed_dot(const Columns& M, int j, Arr<double> x) {
    double sum = 0.0;
    for (int e = M.start[j]; e < M.start[j + 1]; ++e) sum += M.value[e] * x[M.row[e]];
    return sum;
}

// Px = P x, Ax = A x and Atz = A' z.
CL_HD inline void share_products(const Columns& P, const Columns& A, int m, Arr<double> x, Arr<double> z, Arr<double> Px,
                                 Arr<double> Ax, Arr<double> Atz) {
    for (int i : each(m)) Ax[i] = 0.0;
    for (int j : each(P.count)) {
        Px[j] = transposed_dot(P, j, x);
        Atz[j] = transposed_dot(A, j, z);
    }
    share_scatter<false>(A, 1.0, x, Ax);
    share_scatter<true>(P, 1.0, x, Px);
}

template <int N>
CL_HD inline void share_products(const EngineView& view, const Programme<double>& p, Arr<double> x, Arr<double> z,
                                 long long stride, Arr<double> Px, Arr<double> Ax, Arr<double> Atz) {
    const Columns P{view.n, view.P_column, view.P_row, p.P}, A{view.n, view.A_column, view.A_row, p.A};
    for (int q = 0; q < N; ++q)
        share_products(P, A, view.m, x + q * stride, z + q * stride, Px + q * stride, Ax + q * stride,
                       Atz + q * stride);
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

CL_INLINE Columns p_columns(const DerivativeView& view, const DerivativeWork<double>& w) {
    return {view.n, view.p_start, view.p_row, w.p};
}
CL_INLINE Columns a_columns(const DerivativeView& view, const DerivativeWork<double>& w) {
    return {view.n, view.a_start, view.a_row, w.a};
}

template <>
CL_HD inline void polish_detail::products<double>(const DerivativeView& view, const DerivativeWork<double>& w,
                                                  Arr<double> x, Arr<double> y, Arr<double> image,
                                                  Arr<double> transposed) {
    share_products(p_columns(view, w), a_columns(view, w), view.m, x, y, image, image + view.n, transposed);
}

template <>
CL_HD inline void jacobian_residual<double>(const DerivativeView& view, const DerivativeWork<double>& w,
                                            Arr<double> rhs, Arr<double> z, Arr<double> out) {
    const int n = view.n, m = view.m;
    const Columns P = p_columns(view, w), A = a_columns(view, w);
    Arr<double> dv = z + n;
    projection::apply_derivative<double>(view.cone, w.element, dv, w.image, w.scratch);
    for (int i : each(m)) out[n + i] = rhs[n + i] + (dv[i] - w.image[i]);
    for (int j : each(n)) out[j] = rhs[j] - (transposed_dot(A, j, w.image) + transposed_dot(P, j, z));
    share_scatter<false>(A, -1.0, z, out + n);
    share_scatter<true>(P, -1.0, z, out);
}

template <>
CL_HD inline void derivative_detail::finish_solve<double>(const DerivativeView& view, const DerivativeWork<double>& w,
                                                          Arr<double> r, Arr<double> z) {
    const int n = view.n, m = view.m;
    for (int i : each(m)) z[n + i] = w.row[i] * w.active[i] * z[n + i] - r[n + i];
    for (int j : each(n)) z[j] = w.column[j] * z[j];
    share_scatter<false>(a_columns(view, w), 1.0, z, z + n);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// One problem per warp. Every thread of the warp runs the method on the same numbers, in step: values in registers agree,
// and a store to an array of the problem writes one value to one place. Here are the functions that share their work out
// instead, which are nearly all of it: factorization, triangular solves, products with P and A, long sums.
#pragma once

#include "conelayers/interior_point.hpp"
#include "conelayers/polish.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// ---- vectors ----------------------------------------------------------------------------------------------------

template <>
CL_HD inline double dot<double>(int count, Arr<double> a, Arr<double> b) {
    double sum[1];
    share_sums(sum, [&](int k, double* part) {
        for (int i = k; i < count; i += kTeam) part[0] += a[i] * b[i];
    });
    return sum[0];
}

template <>
CL_HD inline double norm_inf<double>(Arr<double> u, int count) {
    return share_max([&](int k) {
        double largest = 0.0;
        for (int i = k; i < count; i += kTeam) largest = max(largest, abs(u[i]));
        return largest;
    });
}

// ---- LDL' -------------------------------------------------------------------------------------------------------

template <>
CL_HD inline void ldlt_clear<double>(const LdltView& view, Arr<double> factor) {
    share([&](int k) {
        for (long long i = k; i < view.factor_size; i += kTeam) factor[i] = 0.0;
    });
}

template <>
CL_HD inline void ldlt_copy_varying<double>(const LdltView& view, Arr<double> from, Arr<double> to) {
    share([&](int k) {
        for (int j = 0; j < view.supernodes; ++j) {
            const Supernode& s = view.nodes[j];
            if (!s.varying) continue;
            const long long end = s.panel + (long long)s.ld * s.width, diagonal = view.panel_size + s.first;
            for (long long i = s.panel + k; i < end; i += kTeam) to[i] = from[i];
            for (long long i = diagonal + k; i < diagonal + s.width; i += kTeam) to[i] = from[i];
        }
    });
}

namespace ldlt_detail {

// A tile of rows for each thread.
template <int C>
CL_HD inline void share_block(Arr<double> panel, int ld, int base, int column, int rows, int pivots,
                              Arr<double> source_diagonal, Arr<double> scaled, const Target<double>& target,
                              const int* relative) {
    share([&](int k) {
        for (int p = k; p < pivots; p += kTeam)
            scale_rows<double, C>(panel + (long long)p * ld, ld, base + column, 1, source_diagonal + p, scaled + p * C);
    });
    const int tiles = (rows - column) / kTile;
    share([&](int k) {
        for (int t = k; t < tiles; t += kTeam)
            subtract_tile<double, kTile, C>(panel, ld, base, column + t * kTile, column, pivots, scaled, target,
                                            relative);
        for (int row = column + tiles * kTile + k; row < rows; row += kTeam)
            subtract_tile<double, 1, C>(panel, ld, base, row, column, pivots, scaled, target, relative);
    });
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
    share([&](int k) {  // all have read the triangle, which `single` overwrites
        for (int r = first + C + k; r < rows; r += kTeam) {
            double x[C];
            CL_UNROLL
            for (int c = 0; c < C; ++c) {
                double a = panel[(long long)(first + c) * ld + r];
                CL_UNROLL
                for (int j = 0; j < c; ++j) a -= x[j] * lower[c][j];
                x[c] = a;
            }
            CL_UNROLL
            for (int c = 0; c < C; ++c) panel[(long long)(first + c) * ld + r] = x[c] * dinv[c];
        }
    });
    single([&] {
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

// Independent pivots: a column for each thread.
template <>
CL_HD inline void factor_group<double>(const LdltView& view, const Supernode& s, Arr<double> factor,
                                       Arr<double> inverse, const signed char* signs, const PivotRule& rule) {
    share([&](int member) {
        for (int k = member; k < s.width; k += kTeam) {
            const int pivot = s.first + k;
            const double d = safe_pivot(factor[view.panel_size + pivot], double(signs[view.permutation[pivot]]), rule);
            const double dinv = 1.0 / d;
            factor[view.panel_size + pivot] = d;
            inverse[pivot] = dinv;
            Arr<double> column = factor + (s.panel + (long long)k * s.ld);
            for (int r = 0; r < s.below; ++r) column[r] *= dinv;
        }
    });
}

template <int N>
CL_HD inline void share_forward(Arr<double> column, int ld, int columns, int count, const int* rows, int pivot,
                                Arr<double> x, int n) {
    share([&](int k) {
        for (int r = k; r < count; r += kTeam)
            for (int q = 0; q < N; ++q) {
                double a = x[q * n + rows[r]];
                for (int c = 0; c < columns; ++c) a -= column[(long long)c * ld + r] * x[q * n + pivot + c];
                x[q * n + rows[r]] = a;
            }
    });
}

template <int N>
CL_HD inline void share_backward(Arr<double> column, int ld, int columns, int count, const int* rows, int pivot,
                                 Arr<double> x, int n) {
    double sums[4 * N];
    share_sums(sums, [&](int k, double* part) {
        for (int r = k; r < count; r += kTeam)
            for (int q = 0; q < N; ++q) {
                const double xr = x[q * n + rows[r]];
                CL_UNROLL
                for (int c = 0; c < 4; ++c)
                    if (c < columns) part[4 * q + c] += column[(long long)c * ld + r] * xr;
            }
    });
    single([&] {
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

// ---- products with P and A: the entries of a column, which lie in different rows, shared --------------------------

// A column of A and of the upper triangle of P, as compressed columns have them.
struct SharedColumn {
    int j, A_begin, A_end, P_begin, P_end;
    const int *A_row, *P_row;
};

// Ax += A_j x_j and Px += the column of P times x_j without its diagonal; sums: A_j' z, and the row of P times x.
CL_HD inline void share_column(const SharedColumn& c, Arr<double> A, Arr<double> P, double xj, Arr<double> x,
                               Arr<double> z, Arr<double> Ax, Arr<double> Px, double (&sums)[2]) {
    share_sums(sums, [&](int k, double* part) {
        for (int e = c.A_begin + k; e < c.A_end; e += kTeam) {
            const int i = c.A_row[e];
            Ax[i] += A[e] * xj;
            part[0] += A[e] * z[i];
        }
        for (int e = c.P_begin + k; e < c.P_end; e += kTeam) {
            const int i = c.P_row[e];
            if (i != c.j) Px[i] += P[e] * xj;
            part[1] += P[e] * x[i];
        }
    });
}

CL_HD inline void share_fill(Arr<double> values, int count, double value) {
    share([&](int k) {
        for (int i = k; i < count; i += kTeam) values[i] = value;
    });
}

template <int N>
CL_HD inline void share_products(const EngineView& view, const Programme<double>& p, Arr<double> x, Arr<double> z,
                                 long long stride, Arr<double> Px, Arr<double> Ax, Arr<double> Atz) {
    for (int q = 0; q < N; ++q) {
        share_fill(Ax + q * stride, view.m, 0.0);
        share_fill(Px + q * stride, view.n, 0.0);
        for (int j = 0; j < view.n; ++j) {
            const SharedColumn c{j, view.A_column[j], view.A_column[j + 1], view.P_column[j], view.P_column[j + 1],
                                 view.A_row, view.P_row};
            double sums[2];
            share_column(c, p.A, p.P, x[q * stride + j], x + q * stride, z + q * stride, Ax + q * stride,
                         Px + q * stride, sums);
            single([&] { Atz[q * stride + j] = sums[0], Px[q * stride + j] += sums[1]; });
        }
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

CL_INLINE SharedColumn column_of(const DerivativeView& view, int j) {
    return {j, view.a_start[j], view.a_start[j + 1], view.p_start[j], view.p_start[j + 1], view.a_row, view.p_row};
}

template <>
CL_HD inline void polish_detail::products<double>(const DerivativeView& view, const DerivativeWork<double>& w,
                                                  Arr<double> x, Arr<double> y, Arr<double> image,
                                                  Arr<double> transposed) {
    share_fill(image, view.n + view.m, 0.0);
    for (int j = 0; j < view.n; ++j) {
        double sums[2];
        share_column(column_of(view, j), w.a, w.p, x[j], x, y, image + view.n, image, sums);
        single([&] { transposed[j] = sums[0], image[j] += sums[1]; });
    }
}

template <>
CL_HD inline void jacobian_residual<double>(const DerivativeView& view, const DerivativeWork<double>& w,
                                            Arr<double> rhs, Arr<double> z, Arr<double> out) {
    const int n = view.n, m = view.m;
    Arr<double> dv = z + n;
    projection::apply_derivative<double>(view.cone, w.element, dv, w.image, w.scratch);
    share([&](int k) {
        for (int j = k; j < n; j += kTeam) out[j] = rhs[j];
        for (int i = k; i < m; i += kTeam) out[n + i] = rhs[n + i] + (dv[i] - w.image[i]);
    });
    for (int j = 0; j < n; ++j) {
        double sums[2];
        share_column(column_of(view, j), w.a, w.p, -z[j], z, w.image, out + n, out, sums);
        single([&] { out[j] -= sums[0] + sums[1]; });
    }
}

template <>
CL_HD inline void regularised_solve<double>(const DerivativeView& view, const DerivativeWork<double>& w, Arr<double> r,
                                            Arr<double> z) {
    const int n = view.n, m = view.m;
    share([&](int k) {
        for (int j = k; j < n; j += kTeam) z[j] = w.column[j] * r[j];
        for (int i = k; i < m; i += kTeam) z[n + i] = w.row[i] * r[n + i];
    });
    ldlt_solve<double, 1>(view.ldlt, w.factor, w.inverse, z, z, w.permuted);
    share([&](int k) {
        for (int i = k; i < m; i += kTeam) z[n + i] = w.row[i] * w.active[i] * z[n + i] - r[n + i];
        for (int j = k; j < n; j += kTeam) z[j] = w.column[j] * z[j];
    });
    for (int j = 0; j < n; ++j)
        share([&](int k) {
            for (int e = view.a_start[j] + k; e < view.a_start[j + 1]; e += kTeam)
                z[n + view.a_row[e]] += w.a[e] * z[j];
        });
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

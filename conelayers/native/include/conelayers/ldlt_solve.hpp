// Solves with the factor of ldlt.hpp, for one pack of problems and several right-hand sides.
#pragma once

#include "layout.hpp"
#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

namespace ldlt_detail {

// x[rows] -= L[rows, columns] x[columns] for C columns and N right-hand sides (stride n apart).
template <class Real, int C, int N>
CL_INLINE void forward_columns(Arr<Real> column, int ld, int count, const int* rows, int pivot, Arr<Real> x, int n) {
    Real xs[N][C];
    CL_UNROLL
    for (int q = 0; q < N; ++q) {
        CL_UNROLL
        for (int c = 0; c < C; ++c) xs[q][c] = x[q * n + pivot + c];
    }
    for (int r = 0; r < count; ++r) {
        const int row = rows[r];
        Real l[C];
        CL_UNROLL
        for (int c = 0; c < C; ++c) l[c] = column[(long long)c * ld + r];
        CL_UNROLL
        for (int q = 0; q < N; ++q) {
            Real a = x[q * n + row];
            CL_UNROLL
            for (int c = 0; c < C; ++c) a -= l[c] * xs[q][c];
            x[q * n + row] = a;
        }
    }
}

// x[columns] -= L[rows, columns]^T x[rows].
template <class Real, int C, int N>
CL_INLINE void backward_columns(Arr<Real> column, int ld, int count, const int* rows, int pivot, Arr<Real> x, int n) {
    Real acc[N][C];
    CL_UNROLL
    for (int q = 0; q < N; ++q) {
        CL_UNROLL
        for (int c = 0; c < C; ++c) acc[q][c] = x[q * n + pivot + c];
    }
    for (int r = 0; r < count; ++r) {
        const int row = rows[r];
        Real l[C];
        CL_UNROLL
        for (int c = 0; c < C; ++c) l[c] = column[(long long)c * ld + r];
        CL_UNROLL
        for (int q = 0; q < N; ++q) {
            const Real xr = x[q * n + row];
            CL_UNROLL
            for (int c = 0; c < C; ++c) acc[q][c] -= l[c] * xr;
        }
    }
    CL_UNROLL
    for (int q = 0; q < N; ++q) {
        CL_UNROLL
        for (int c = 0; c < C; ++c) x[q * n + pivot + c] = acc[q][c];
    }
}

// The unit lower triangle of a block of C columns, C <= 4.
template <class Real, int N>
CL_INLINE void triangle_forward(Arr<Real> column, int ld, int count, int pivot, Arr<Real> x, int n) {
    for (int c = 0; c + 1 < count; ++c)
        for (int r = c + 1; r < count; ++r)
            for (int q = 0; q < N; ++q) x[q * n + pivot + r] -= column[(long long)c * ld + r] * x[q * n + pivot + c];
}

template <class Real, int N>
CL_INLINE void triangle_backward(Arr<Real> column, int ld, int count, int pivot, Arr<Real> x, int n) {
    for (int c = count - 2; c >= 0; --c)
        for (int r = c + 1; r < count; ++r)
            for (int q = 0; q < N; ++q) x[q * n + pivot + c] -= column[(long long)c * ld + r] * x[q * n + pivot + r];
}

template <class Real, int N, bool Forward>
CL_INLINE void apply_columns(Arr<Real> column, int ld, int columns, int count, const int* rows, int pivot,
                             Arr<Real> x, int n) {
    if (columns == 4) {
        if (Forward) forward_columns<Real, 4, N>(column, ld, count, rows, pivot, x, n);
        else backward_columns<Real, 4, N>(column, ld, count, rows, pivot, x, n);
        return;
    }
    for (int c = 0; c < columns; ++c) {
        Arr<Real> single = column + (long long)c * ld;
        if (Forward) forward_columns<Real, 1, N>(single, ld, count, rows, pivot + c, x, n);
        else backward_columns<Real, 1, N>(single, ld, count, rows, pivot + c, x, n);
    }
}

template <class Real, int N, bool Forward>
CL_HD inline void apply_block(const LdltView& view, const Supernode& s, int first, Arr<Real> factor, Arr<Real> x) {
    const int columns = s.width - first < 4 ? s.width - first : 4;
    const int pivot = s.first + first, n = view.n;
    Arr<Real> column = factor + (s.panel + (long long)first * s.ld);
    if (s.diagonal) {
        apply_columns<Real, N, Forward>(column, s.ld, columns, s.below, view.rows + s.rows, pivot, x, n);
        return;
    }
    const int next = first + columns;  // rows of the same supernode, then the rows below
    Arr<Real> inside = column + next;
    Arr<Real> below = column + s.width;
    if (Forward) alone([&] { triangle_forward<Real, N>(column + first, s.ld, columns, pivot, x, n); });
    const int* within = view.identity + (s.first + next);
    apply_columns<Real, N, Forward>(inside, s.ld, columns, s.width - next, within, pivot, x, n);
    apply_columns<Real, N, Forward>(below, s.ld, columns, s.below, view.rows + s.rows, pivot, x, n);
    if (!Forward) alone([&] { triangle_backward<Real, N>(column + first, s.ld, columns, pivot, x, n); });
}

}  // namespace ldlt_detail

// Solve in elimination order, in place, for N right-hand sides stored one after the other (view.n packs each).
template <class Real, int N>
CL_HD inline void ldlt_solve_permuted(const LdltView& view, Arr<Real> factor, Arr<Real> inverse, Arr<Real> x) {
    using namespace ldlt_detail;
    for (int j = 0; j < view.supernodes; ++j)
        for (int first = 0; first < view.nodes[j].width; first += 4)
            apply_block<Real, N, true>(view, view.nodes[j], first, factor, x);
    for (int q = 0; q < N; ++q)
        for (int i : each(view.n)) x[q * view.n + i] *= inverse[i];
    for (int j = view.supernodes - 1; j >= 0; --j)
        for (int first = (view.nodes[j].width - 1) / 4 * 4; first >= 0; first -= 4)
            apply_block<Real, N, false>(view, view.nodes[j], first, factor, x);
}

// Solve for N right-hand sides in original order, view.given packs each; solution may be the same array as rhs. work:
// N * view.n packs.
template <class Real, int N>
CL_HD inline void ldlt_solve(const LdltView& view, Arr<Real> factor, Arr<Real> inverse, Arr<Real> rhs,
                             Arr<Real> solution, Arr<Real> work) {
    const int n = view.n, given = view.given;
    for (int q = 0; q < N; ++q)
        for (int i : each(n)) {
            const int k = view.permutation[i];
            work[q * n + i] = k < given ? rhs[q * given + k] : Real(0.0);
        }
    ldlt_solve_permuted<Real, N>(view, factor, inverse, work);
    for (int q = 0; q < N; ++q)
        for (int i : each(n)) {
            const int k = view.permutation[i];
            if (k < given) solution[q * given + k] = work[q * n + i];
        }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

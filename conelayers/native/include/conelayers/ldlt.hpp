// Numeric LDL^T of a symmetric quasidefinite matrix, for one pack of problems. Solves are in ldlt_solve.hpp.
//
// Left-looking over supernodes. Every product of earlier columns goes through one register tile (`subtract_tile`):
// four rows by four columns of packs, so a multiply-add costs half a load. The factor is one array: panels with
// the strictly lower part of L, then the n pivots D; `inverse` holds 1 / D.
//
// Use:  ldlt_clear, write entry e to factor[view.position[e]] (every entry once), ldlt_factor, ldlt_solve.
#pragma once

#include "layout.hpp"
#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Real>
CL_HD inline void ldlt_clear(const LdltView& view, Arr<Real> factor) {
    for (long long i : each(view.factor_size)) factor[i] = Real(0.0);
}

// factor := the matrix with entries `values`, in the order of the input pattern. values: Arr<Real> or any
// indexable (an array of plain doubles shared by all lanes).
template <class Real, class Values>
CL_HD inline void ldlt_scatter(const LdltView& view, const Values& values, Arr<Real> factor) {
    ldlt_clear<Real>(view, factor);
    for (int e = 0; e < view.entries; ++e) factor[view.position[e]] = Real(values[e]);
}

namespace ldlt_detail {

constexpr int kTile = 4;

// scaled[k * C + c] = L[row + c, k] * D[k] for the pivots k of one supernode.
template <class Real, int C>
CL_INLINE void scale_rows(Arr<Real> panel, int ld, int row, int pivots, Arr<Real> diagonal, Arr<Real> scaled) {
    for (int k = 0; k < pivots; ++k) {
        const Real d = diagonal[k];
        CL_UNROLL
        for (int c = 0; c < C; ++c) scaled[k * C + c] = panel[(long long)k * ld + row + c] * d;
    }
}

// acc[c][r] = sum over k of L[row + r, k] * scaled[k][c].
template <class Real, int R, int C>
CL_INLINE void tile_product(Arr<Real> panel, int ld, int row, int pivots, Arr<Real> scaled, Real (&acc)[C][R]) {
    CL_UNROLL
    for (int c = 0; c < C; ++c) {
        CL_UNROLL
        for (int r = 0; r < R; ++r) acc[c][r] = Real(0.0);
    }
    Arr<Real> column = panel + row;
    for (int k = 0; k < pivots; ++k) {
        Real l[R];
        CL_UNROLL
        for (int r = 0; r < R; ++r) l[r] = column[r];
        CL_UNROLL
        for (int c = 0; c < C; ++c) {
            const Real s = scaled[k * C + c];
            CL_UNROLL
            for (int r = 0; r < R; ++r) acc[c][r] += l[r] * s;
        }
        column = column + ld;
    }
}

// Where the update of one column block goes: column c of the block is column `relative[c]` of the target panel,
// row r is its row `relative[r]`; entries on the diagonal go to the pivots.
template <class Real>
struct Target {
    Arr<Real> panel;
    Arr<Real> diagonal;
    int ld;
    bool independent;  // a group: no entries inside the diagonal block
};

template <class Real, int R, int C>
CL_INLINE void subtract_tile(Arr<Real> panel, int ld, int base, int row, int column, int pivots,
                             Arr<Real> scaled, const Target<Real>& target, const int* relative) {
    Real acc[C][R];
    tile_product<Real, R, C>(panel, ld, base + row, pivots, scaled, acc);
    if (row > column + C - 1) {  // strictly below the diagonal
        CL_UNROLL
        for (int c = 0; c < C; ++c) {
            Arr<Real> to = target.panel + (long long)relative[column + c] * target.ld;
            CL_UNROLL
            for (int r = 0; r < R; ++r) to[relative[row + r]] -= acc[c][r];
        }
        return;
    }
    CL_UNROLL
    for (int c = 0; c < C; ++c) {
        Arr<Real> to = target.panel + (long long)relative[column + c] * target.ld;
        CL_UNROLL
        for (int r = 0; r < R; ++r) {
            if (row + r == column + c) target.diagonal[relative[column + c]] -= acc[c][r];
            else if (row + r > column + c) to[relative[row + r]] -= acc[c][r];
        }
    }
}

// Subtract the outer products of `pivots` columns: block columns [column, column + C), rows [column, rows).
template <class Real, int C>
CL_HD inline void subtract_block(Arr<Real> panel, int ld, int base, int column, int rows, int pivots,
                                 Arr<Real> source_diagonal, Arr<Real> scaled, const Target<Real>& target,
                                 const int* relative) {
    scale_rows<Real, C>(panel, ld, base + column, pivots, source_diagonal, scaled);
    int row = column;
    for (; row + kTile <= rows; row += kTile)
        subtract_tile<Real, kTile, C>(panel, ld, base, row, column, pivots, scaled, target, relative);
    for (; row < rows; ++row)
        subtract_tile<Real, 1, C>(panel, ld, base, row, column, pivots, scaled, target, relative);
}

template <class Real>
CL_HD inline void subtract_columns(Arr<Real> panel, int ld, int base, int begin, int end, int rows, int pivots,
                                   Arr<Real> source_diagonal, Arr<Real> scaled, const Target<Real>& target,
                                   const int* relative) {
    int column = begin;
    for (; column + 4 <= end; column += 4)
        subtract_block<Real, 4>(panel, ld, base, column, rows, pivots, source_diagonal, scaled, target, relative);
    if (end - column == 3)
        subtract_block<Real, 3>(panel, ld, base, column, rows, pivots, source_diagonal, scaled, target, relative);
    else if (end - column == 2)
        subtract_block<Real, 2>(panel, ld, base, column, rows, pivots, source_diagonal, scaled, target, relative);
    else if (end - column == 1)
        subtract_block<Real, 1>(panel, ld, base, column, rows, pivots, source_diagonal, scaled, target, relative);
}

// sign 0: unknown, so only pivots near zero are replaced.
template <class Real>
CL_INLINE Real safe_pivot(const Real& d, double sign, const PivotRule& rule) {
    if (sign == 0.0) return select(abs(d) > Real(rule.threshold), d, Real(rule.replacement));
    return select(d * sign > Real(rule.threshold), d, Real(sign * rule.replacement));  // NaN is replaced too
}

// Factor C columns of a dense supernode whose earlier columns have been applied. `first`: local index.
template <class Real, int C>
CL_HD inline void factor_columns(Arr<Real> panel, int ld, int first, int rows, Arr<Real> diagonal,
                                 Arr<Real> inverse, const int* permutation, const signed char* signs,
                                 const PivotRule& rule) {
    Real lower[C][C];  // unit lower triangle of the block
    Real d[C], dinv[C];
    for (int c = 0; c < C; ++c) {
        Real pivot = diagonal[first + c];
        for (int k = 0; k < c; ++k) pivot -= lower[c][k] * lower[c][k] * d[k];
        pivot = safe_pivot(pivot, double(signs[permutation[first + c]]), rule);
        d[c] = pivot;
        dinv[c] = Real(1.0) / pivot;
        diagonal[first + c] = pivot;
        inverse[first + c] = dinv[c];
        for (int r = c + 1; r < C; ++r) {
            Real a = panel[(long long)(first + c) * ld + first + r];
            for (int k = 0; k < c; ++k) a -= lower[r][k] * d[k] * lower[c][k];
            lower[r][c] = a * dinv[c];
            panel[(long long)(first + c) * ld + first + r] = lower[r][c];
        }
    }
    for (int r = first + C; r < rows; ++r) {
        Real x[C];  // row r of L D, then of L
        CL_UNROLL
        for (int c = 0; c < C; ++c) {
            Real a = panel[(long long)(first + c) * ld + r];
            CL_UNROLL
            for (int k = 0; k < c; ++k) a -= x[k] * lower[c][k];
            x[c] = a;
        }
        CL_UNROLL
        for (int c = 0; c < C; ++c) panel[(long long)(first + c) * ld + r] = x[c] * dinv[c];
    }
}

template <class Real>
CL_HD inline void factor_dense(const LdltView& view, const Supernode& s, Arr<Real> factor, Arr<Real> inverse,
                               Arr<Real> work, const signed char* signs, const PivotRule& rule,
                               const int* identity) {
    Arr<Real> panel = factor + s.panel;
    Arr<Real> diagonal = factor + (view.panel_size + s.first);
    const Target<Real> target{panel, diagonal, s.ld, false};
    const int* permutation = view.permutation + s.first;
    for (int first = 0; first < s.width; first += 4) {
        const int count = s.width - first < 4 ? s.width - first : 4;
        subtract_columns<Real>(panel, s.ld, 0, first, first + count, s.ld, first, diagonal, work, target, identity);
        Arr<Real> inv = inverse + s.first;
        if (count == 4)
            factor_columns<Real, 4>(panel, s.ld, first, s.ld, diagonal, inv, permutation, signs, rule);
        else if (count == 3)
            factor_columns<Real, 3>(panel, s.ld, first, s.ld, diagonal, inv, permutation, signs, rule);
        else if (count == 2)
            factor_columns<Real, 2>(panel, s.ld, first, s.ld, diagonal, inv, permutation, signs, rule);
        else
            factor_columns<Real, 1>(panel, s.ld, first, s.ld, diagonal, inv, permutation, signs, rule);
    }
}

template <class Real>
CL_HD inline void factor_group(const LdltView& view, const Supernode& s, Arr<Real> factor, Arr<Real> inverse,
                               const signed char* signs, const PivotRule& rule) {
    for (int k : each(s.width)) {
        const int pivot = s.first + k;
        const Real d = safe_pivot(factor[view.panel_size + pivot], double(signs[view.permutation[pivot]]), rule);
        const Real dinv = Real(1.0) / d;
        factor[view.panel_size + pivot] = d;
        inverse[pivot] = dinv;
        Arr<Real> column = factor + (s.panel + (long long)k * s.ld);
        for (int r = 0; r < s.below; ++r) column[r] *= dinv;
    }
}

}  // namespace ldlt_detail

// Which supernodes to factor. Where many factorizations differ in a few rows only, the fixed part is done once, with what
// it subtracts from the rest; `ldlt_copy_varying` keeps that rest, and gives it back before each varying part.
enum class Part { whole, fixed, varying };

template <class Real>
CL_HD inline void ldlt_copy_varying(const LdltView& view, Arr<Real> from, Arr<Real> to) {
    for (int j = 0; j < view.supernodes; ++j) {
        const Supernode& s = view.nodes[j];
        if (!s.varying) continue;
        const long long end = s.panel + (long long)s.ld * s.width;
        const long long diagonal = view.panel_size + s.first;
        for (long long i : each(s.panel, end)) to[i] = from[i];
        for (long long i : each(diagonal, diagonal + s.width)) to[i] = from[i];
    }
}

// Factor in place. signs: +1, -1 or 0 (unknown) for each row of the matrix, original order. work: view.work packs.
// Afterwards factor holds L and D, inverse holds 1 / D.
template <class Real>
CL_HD inline void ldlt_factor(const LdltView& view, Arr<Real> factor, Arr<Real> inverse, Arr<Real> work,
                              const signed char* signs, const PivotRule& rule, Part part = Part::whole) {
    using namespace ldlt_detail;
    const auto left_out = [part](const Supernode& s) {
        return part != Part::whole && (s.varying != 0) != (part == Part::varying);
    };
    for (int j = 0; j < view.supernodes; ++j) {
        const Supernode& s = view.nodes[j];
        const Target<Real> target{factor + s.panel, factor + (view.panel_size + s.first), s.ld, s.diagonal != 0};
        for (int u = view.update_start[j]; u < view.update_start[j + 1]; ++u) {
            const Update& update = view.updates[u];
            const Supernode& k = view.nodes[update.source];
            if (left_out(k)) continue;
            const int base = (k.diagonal ? 0 : k.width) + update.begin;
            subtract_columns<Real>(factor + k.panel, k.ld, base, 0, update.end - update.begin,
                                   k.below - update.begin, k.width, factor + (view.panel_size + k.first), work,
                                   target, view.relative + update.relative);
        }
        if (left_out(s)) continue;
        if (s.diagonal)
            factor_group<Real>(view, s, factor, inverse, signs, rule);
        else
            factor_dense<Real>(view, s, factor, inverse, work, signs, rule, view.identity);
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

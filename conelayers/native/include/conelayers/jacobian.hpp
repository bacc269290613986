// Linear systems with the Jacobian of the optimality conditions, for one pack of cone programmes.
//
// With y = Pi_{K*}(v), s = y - v and D in the Clarke Jacobian of Pi_{K*} at v, the conditions P x + q + A' y = 0,
// A x + y - v = b have the Jacobian J = [[P, A' D], [A, D - I]] in (x, v). Forward, reverse and second derivatives all solve
// J (dx, dv) = (r1, r2). In (dx, w = D dv) this is the symmetric system [[P, A'], [A, -W]] with W = D^-1 - I. Its
// regularised form, W's eigenvalues cut at `kCeiling` and a shift added to the diagonal blocks, is quasidefinite,
// so LDL' exists; it is the preconditioner of an iterative refinement on the exact J:
//   K (dx, w) = (r1, r2),   dv = A dx + w - r2.
// A singular but consistent J (a variable that nothing determines) comes out right: refinement leaves its null space alone.
// Rows and columns are equilibrated first (Ruiz), with one factor for all rows of a curved cone.
#pragma once

#include "derivative_layout.hpp"
#include "ldlt.hpp"
#include "ldlt_solve.hpp"
#include "projection/product.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// Added to P and to W after equilibration. The shift of P is the same for all of x in x's own units as far as the two bounds
// allow: of the solutions of a singular consistent system the shortest comes out, in the Euclidean norm of dx. A small row shift costs digits where rows are eliminated first: what is below
// 1e-16 / kRowShift in P is lost, so that the product of the two should stay above 1e-16 with room.
constexpr double kColumnShift = 1e-8;
constexpr double kLargestColumnShift = 1e-6;
constexpr double kRowShift = 1e-7;
constexpr double kCeiling = 1e8;
constexpr double kUneven = 1e4;  // sizes as far from one before the second pass, or a later one, ask for another pass,
constexpr int kPasses = 10;      // so many at most
constexpr double kLight = 1e-4;  // a P all of whose entries are smaller than this, against those of A, is light
constexpr int kKrylov = 12;  // directions of the fallback, see krylov.hpp

// The arrays of one thread, all in packs. Construct with counting = true to learn `size` alone.
template <class Real>
struct DerivativeWork {
    Arr<Real> p, a, v, y, element, scratch;           // problem, projection
    Arr<Real> column, row, active;                    // scales of x and of the rows, rows on which D vanishes
    Arr<Real> weight, factor, inverse, ldlt;          // KKT matrix
    Arr<Real> rhs, solution, residual, trial, trial_residual, direct, image, permuted;
    Arr<Real> basis, directions;                      // Krylov fallback
    long long size;

    CL_HD DerivativeWork(const DerivativeView& view, Arr<Real> base, bool counting = false) : size(0) {
        const long long n = view.n, m = view.m, z = n + m;
        const auto take = [&](long long count) {
            const long long offset = size;
            size += count;
            return counting ? base : base + offset;
        };
        p = take(view.p_entries), a = take(view.a_entries);
        v = take(m), y = take(m), element = take(view.cone.element_size), scratch = take(view.cone.scratch);
        column = take(n), row = take(m), active = take(m);
        weight = take(view.cone.weight_size);
        factor = take(view.ldlt.factor_size), inverse = take(view.ldlt.n), ldlt = take(view.ldlt.work);
        rhs = take(z), solution = take(z), residual = take(z), trial = take(z), trial_residual = take(z);
        direct = take(z), image = take(m), permuted = take(view.ldlt.n);
        basis = take((kKrylov + 1) * z), directions = take(kKrylov * z);
    }
};

namespace derivative_detail {

// x / sqrt(largest) with empty rows left alone.
template <class Real>
CL_INLINE Real rescale(const Real& x, const Real& largest) {
    const auto empty = largest <= Real(1e-200);
    return x / sqrt(select(empty, Real(1.0), largest));
}

// Where P is far smaller than A after Ruiz scaling, x in larger units and rows in smaller ones: the entries of A stay as they
// are, and those of P are no longer below the shift.
template <class Real>
CL_HD inline void weigh_objective(const DerivativeView& view, const DerivativeWork<Real>& w) {
    if (view.p_entries == 0) return;
    Real largest(0.0);
    for (int j : each(view.n)) {
        for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k) {
            largest = max(largest, abs(w.p[k]) * w.column[j] * w.column[view.p_row[k]]);
        }
    }
    largest = all_max(largest);
    const Mask<Real> light = mask_and(largest < Real(kLight), largest > Real(1e-200));
    if (!any_lane(light)) return;
    const Real root = sqrt(select(light, largest, Real(1.0))), inverse = Real(1.0) / root;
    for (int j : each(view.n)) w.column[j] = w.column[j] * inverse;
    for (int i : each(view.m)) w.row[i] = w.row[i] * root;
}

// Two passes, which halve the logarithms of all sizes twice; lanes whose sizes lie far apart go on.
template <class Real>
CL_HD inline void equilibrate(const DerivativeView& view, const DerivativeWork<Real>& w) {
    Arr<Real> column_max = w.rhs, row_max = w.rhs + view.n;
    for (int j : each(view.n)) w.column[j] = Real(1.0);
    for (int i : each(view.m)) w.row[i] = Real(1.0);
    Mask<Real> uneven = Real(0.0) < Real(1.0);
    for (int pass = 0; pass < kPasses; ++pass) {
        for (int k : each(view.n + view.m)) column_max[k] = Real(0.0);
        for (int j = 0; j < view.n; ++j) {
            Real largest = Real(0.0);
            for (int k : each(view.p_start[j], view.p_start[j + 1])) {
                const int i = view.p_row[k];
                const Real size = abs(w.p[k]) * w.column[i];
                largest = max(largest, size);
                column_max[i] = max(column_max[i], size * w.column[j]);
            }
            for (int k : each(view.a_start[j], view.a_start[j + 1])) {
                const int i = view.a_row[k];
                const Real size = abs(w.a[k]) * w.row[i];
                largest = max(largest, size);
                row_max[i] = max(row_max[i], size * w.column[j]);
            }
            largest = all_max(largest);
            alone([&] { column_max[j] = max(column_max[j], largest * w.column[j]); });
        }
        for (int b = 0; b < view.cone.blocks; ++b) {
            const ProjectionBlock& block = view.cone.block[b];
            if (is_polyhedral(block.kind)) continue;
            Real largest = Real(0.0);
            for (int i : each(block.dim)) largest = max(largest, row_max[block.first + i]);
            largest = all_max(largest);
            for (int i : each(block.dim)) row_max[block.first + i] = largest;
        }
        Real largest(1.0), smallest(1.0);  // of those that are there
        for (int k : each(view.n + view.m)) {
            largest = max(largest, column_max[k]);
            smallest = min(smallest, select(column_max[k] > Real(1e-200), column_max[k], Real(1.0)));
        }
        largest = all_max(largest), smallest = all_min(smallest);
        for (int j : each(view.n)) w.column[j] = select(uneven, rescale(w.column[j], column_max[j]), w.column[j]);
        for (int i : each(view.m)) w.row[i] = select(uneven, rescale(w.row[i], row_max[i]), w.row[i]);
        if (pass == 0) continue;
        // This pass leaves the square roots.
        uneven = mask_and(uneven, mask_or(largest > Real(kUneven), smallest * Real(kUneven) < Real(1.0)));
        if (!any_lane(uneven)) break;
    }
    weigh_objective(view, w);
}

// The blocks of -W - shift into the factor; `active` on the way.
template <class Real>
CL_HD inline void assemble_weights(const DerivativeView& view, const DerivativeWork<Real>& w) {
    const Real ceiling = Real(kCeiling), shift = Real(kRowShift);
    for (int b = 0; b < view.cone.blocks; ++b) {
        const ProjectionBlock& block = view.cone.block[b];
        const long long* position = view.w_position + block.weight;
        Arr<Real> weight = w.weight + block.weight;
        if (is_polyhedral(block.kind)) {
            projection::block_weight<Real>(block, w.element, Real(1e30), weight, w.scratch);
            for (int i : each(block.dim)) {
                const Real scale = w.row[block.first + i];
                w.active[block.first + i] = projection::block_activity<Real>(block, w.element, i);
                w.factor[position[i]] = -(min(weight[i] * scale * scale, ceiling) + shift);
            }
            continue;
        }
        const Real scale = w.row[block.first], square = scale * scale;
        const Real active = projection::block_activity<Real>(block, w.element, 0);
        if (block.sparse) {
            alone([&] {
                projection::SecondOrder::border<Real>(block.dim, w.element + block.element, square, shift, ceiling,
                                                      weight);
            });
            for (int i : each(block.dim)) w.active[block.first + i] = active;
            for (int e : each(static_cast<int>(border_size(block.dim)))) w.factor[position[e]] = weight[e];
            continue;
        }
        projection::block_weight<Real>(block, w.element, ceiling / square, weight, w.scratch);
        for (int i : each(block.dim)) {
            int entry = i * block.dim - i * (i - 1) / 2;
            w.active[block.first + i] = active;
            w.factor[position[entry]] = -(weight[entry] * square + shift);
            ++entry;
            for (int j = i + 1; j < block.dim; ++j, ++entry) w.factor[position[entry]] = -(weight[entry] * square);
        }
    }
}

template <class Real>
CL_HD inline Real narrowest_column(const DerivativeView& view, const DerivativeWork<Real>& w) {
    Real least = Real(1e300);
    for (int j : each(view.n)) least = min(least, w.column[j]);
    return all_min(least);
}

// The shift of a column after equilibration.
template <class Real>
CL_INLINE Real column_shift(const Real& column, const Real& narrowest) {
    const Real ratio = column / narrowest;
    return min(Real(kColumnShift) * ratio * ratio, Real(kLargestColumnShift));
}

template <class Real>
CL_HD inline void assemble(const DerivativeView& view, const DerivativeWork<Real>& w, double shift) {
    ldlt_clear<Real>(view.ldlt, w.factor);
    assemble_weights(view, w);
    const Real narrowest = narrowest_column(view, w);
    for (int j : each(view.n)) {
        const Real scale = w.column[j];
        w.factor[view.x_diagonal[j]] = Real(shift) * column_shift(scale, narrowest);
        for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k) {
            Real& entry = w.factor[view.p_position[k]];
            entry = entry + w.p[k] * scale * w.column[view.p_row[k]];
        }
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const int i = view.a_row[k];
            w.factor[view.a_position[k]] = w.a[k] * scale * (w.row[i] * w.active[i]);
        }
    }
}

}  // namespace derivative_detail

// Equilibrate; needs w.p and w.a.
template <class Real>
CL_HD inline void derivative_scale(const DerivativeView& view, const DerivativeWork<Real>& w) {
    derivative_detail::equilibrate(view, w);
}

// Factor the KKT matrix; needs w.element besides. shift: multiple of the ordinary one in the columns of x.
template <class Real>
CL_HD inline void derivative_factor(const DerivativeView& view, const DerivativeWork<Real>& w, double shift = 1.0) {
    derivative_detail::assemble(view, w, shift);
    ldlt_factor<Real>(view.ldlt, w.factor, w.inverse, w.ldlt, view.signs, PivotRule{1e-13, kColumnShift});
}

// out = rhs - J z. rhs, z, out: n + m entries; image: m entries of scratch, D z on return.
template <class Real>
CL_HD inline void jacobian_residual(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> rhs,
                                    Arr<Real> z, Arr<Real> out) {
    const int n = view.n, m = view.m;
    Arr<Real> dv = z + n;
    projection::apply_derivative<Real>(view.cone, w.element, dv, w.image, w.scratch);
    for (int j = 0; j < n; ++j) out[j] = rhs[j];
    for (int i = 0; i < m; ++i) out[n + i] = rhs[n + i] + (dv[i] - w.image[i]);
    for (int j = 0; j < n; ++j) {
        const Real x = z[j];
        Real sum = Real(0.0);
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const int i = view.a_row[k];
            out[n + i] = out[n + i] - w.a[k] * x;
            sum = sum + w.a[k] * w.image[i];
        }
        for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k) {
            const int i = view.p_row[k];
            sum = sum + w.p[k] * z[i];
            if (i != j) out[i] = out[i] - w.p[k] * x;
        }
        out[j] = out[j] - sum;
    }
}

namespace derivative_detail {

// z from the solution of the regularised system in equilibrated rows and columns; r: its right-hand side in x's own.
template <class Real>
CL_HD inline void finish_solve(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> r, Arr<Real> z) {
    const int n = view.n, m = view.m;
    for (int i = 0; i < m; ++i) z[n + i] = w.row[i] * w.active[i] * z[n + i] - r[n + i];
    for (int j = 0; j < n; ++j) {
        const Real x = w.column[j] * z[j];
        z[j] = x;
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const int i = view.a_row[k];
            z[n + i] = z[n + i] + w.a[k] * x;
        }
    }
}

}  // namespace derivative_detail

// z = M r, the regularised solve; r and z: n + m entries, not the same array.
template <class Real>
CL_HD inline void regularised_solve(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> r,
                                    Arr<Real> z) {
    for (int j : each(view.n)) z[j] = w.column[j] * r[j];
    for (int i : each(view.m)) z[view.n + i] = w.row[i] * r[view.n + i];
    ldlt_solve<Real, 1>(view.ldlt, w.factor, w.inverse, z, z, w.permuted);
    derivative_detail::finish_solve(view, w, r, z);
}

// `regularised_solve` as the step of an iteration.
struct PlainStep {
    template <class Real>
    CL_HD void operator()(const DerivativeView& view, const DerivativeWork<Real>& w, int) const {
        regularised_solve(view, w, w.residual, w.direct);
    }
};

// Largest entry of a residual in equilibrated rows and columns; NaN if an entry is not finite.
template <class Real>
CL_HD inline Real residual_norm(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> r) {
    Real norm = Real(0.0), poison = Real(0.0);
    for (int j : each(view.n)) {
        norm = max(norm, abs(w.column[j] * r[j]));
        poison = poison + r[j] * Real(0.0);
    }
    for (int i : each(view.m)) {
        norm = max(norm, abs(w.row[i] * r[view.n + i]));
        poison = poison + r[view.n + i] * Real(0.0);
    }
    return all_max(norm) + all_sum(poison);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

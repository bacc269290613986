// Reverse mode, and on its way whether the solution is one where the data's motion along a direction has a derivative.
//
// The linearised conditions follow the data if the right-hand side r of that motion lies in the range of J. A regularised
// solve tells: (K + R) z = r leaves r - K z = R z, which is r's part outside of the range and the rest taken down by the
// shift over its eigenvalue, and so on from R z. These solves read the factor together with those for the cotangents.
#pragma once

#include "least_norm.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

constexpr double kFollows = 1e-6;  // what the linearised conditions may leave of the data's motion, relative

// Sizes of the parts of a right-hand side outside of the Jacobian's range, relative to it.
template <class Real>
struct Outside {
    Real primal, dual;
};

namespace reverse_detail {

template <class Real>
CL_HD inline Outside<Real> sizes(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> r,
                                 const Real& start) {
    Real primal = Real(0.0), dual = Real(0.0);
    for (int j : each(view.n)) primal = max(primal, abs(w.column[j] * r[j]));
    for (int i : each(view.m)) dual = max(dual, abs(w.row[i] * r[view.n + i]));
    const Real inverse = Real(1.0) / select(start > Real(0.0), start, Real(1.0));
    return {all_max(primal) * inverse, all_max(dual) * inverse};
}

// The steps of `derivative_solve` for the cotangents and, beside the first and as long as it is in doubt, those of the file's
// head for a right-hand side: n + m entries of `pair` behind as many free ones. permuted: 2 ldlt.n entries.
template <class Real>
struct StepsBeside {
    Arr<Real> pair, permuted;
    Real& size;
    Outside<Real>& left;

    CL_HD void operator()(const DerivativeView& view, const DerivativeWork<Real>& w, int iteration) const {
        const auto open = iteration > 0 ? doubtful() : Real(0.0) == Real(0.0);
        if (!any_lane(open)) return regularised_solve(view, w, w.residual, w.direct);
        const int n = view.n, entries = n + view.m;
        Arr<Real> beside = pair + entries;
        if (iteration == 0) start(view, w, beside);
        for (int j : each(n)) pair[j] = w.column[j] * w.residual[j];
        for (int i : each(view.m)) pair[n + i] = w.row[i] * w.residual[n + i];
        ldlt_solve<Real, 2>(view.ldlt, w.factor, w.inverse, pair, pair, permuted);
        for (int k : each(entries)) w.direct[k] = pair[k];
        derivative_detail::finish_solve(view, w, w.residual, w.direct);
        const Outside<Real> found = shift(view, w, beside);
        left = {select(open, found.primal, left.primal), select(open, found.dual, left.dual)};
    }

    CL_HD Mask<Real> doubtful() const { return mask_not(max(left.primal, left.dual) <= Real(kFollows)); }

    // The right-hand side in equilibrated rows and columns.
    CL_HD void start(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> r) const {
        const Real norm = residual_norm(view, w, r);
        size = select(norm > Real(0.0), norm, Real(1.0));
        for (int j : each(view.n)) r[j] = w.column[j] * r[j];
        for (int i : each(view.m)) r[view.n + i] = w.row[i] * r[view.n + i];
    }

    // z becomes R z, of the size returned; a row on which D vanishes is part of no null space.
    CL_HD Outside<Real> shift(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> z) const {
        const Real narrowest = derivative_detail::narrowest_column(view, w);
        Real primal = Real(0.0), dual = Real(0.0);
        for (int j : each(view.n)) {
            z[j] = derivative_detail::column_shift(w.column[j], narrowest) * z[j];
            primal = max(primal, abs(z[j]));
        }
        for (int i : each(view.m)) {
            Real& row = z[view.n + i];
            row = Real(-kRowShift) * w.active[i] * row;
            dual = max(dual, abs(row));
        }
        return {all_max(primal) / size, all_max(dual) / size};
    }
};

// r: the right-hand side of J (dx, dv) = -dF for data that move along a direction, of which at(k) are the values of dP, dq, dA
// and db, one after another; at.rests(k): it is zero.
template <class Real, class At>
CL_HD inline void right_hand_side(const DerivativeView& view, Arr<Real> x, Arr<Real> y, const At& at, Arr<Real> r) {
    const int n = view.n, m = view.m;
    const long long dq = view.p_entries, da = dq + n, db = da + view.a_entries;
    for (int i : each(m)) r[n + i] = at(db + i);
    for (int j : each(n)) r[j] = -at(dq + j);
    for (int j = 0; j < n; ++j) {
        const Real xj = x[j];
        Real sum = Real(0.0);
        for (int k : each(view.a_start[j], view.a_start[j + 1])) {
            if (at.rests(da + k)) continue;
            const Real moves = at(da + k);
            const int i = view.a_row[k];
            sum = sum + moves * y[i];
            r[n + i] = r[n + i] - moves * xj;
        }
        for (int k : each(view.p_start[j], view.p_start[j + 1])) {
            if (at.rests(k)) continue;
            const Real moves = at(k);
            const int i = view.p_row[k];
            sum = sum + moves * x[i];
            if (i != j) r[i] = r[i] - moves * xj;
        }
        sum = all_sum(sum);
        alone([&] { r[j] = r[j] - sum; });
    }
}

}  // namespace reverse_detail

// Reverse mode, of least norm where the relative residual stays above kAccepted. w.rhs: cotangents of x and of y (n + m);
// s_cotangent: that of s; w.y is y. Returns the relative residual; w.solution = (lambda, u) with
// J (lambda, u) = (g_x - A' g_s, g_y), and nu = D u + g_s. step: see `derivative_solve`.
template <class Real, class Step = PlainStep>
CL_HD inline Real derivative_pullback(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> s_cotangent,
                                      Arr<Real> nu, const Step& step = Step()) {
    Real largest = Real(0.0);
    for (int i : each(view.m)) largest = largest + abs(s_cotangent[i]);
    if (any_lane(mask_not(all_sum(largest) <= Real(0.0)))) {  // a cotangent of s is rare
        for (int j : each(view.n)) {
            Real sum = w.rhs[j];
            for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) sum = sum - w.a[k] * s_cotangent[view.a_row[k]];
            w.rhs[j] = sum;
        }
    }
    Real residual = derivative_solve(view, w, 0.0, 3, step);
    const auto lost = mask_not(residual <= Real(kAccepted));
    if (any_lane(lost)) {
        derivative_factor_wide(view, w);
        residual = least_norm_solve<Real>(view, w, lost, residual);
    }
    projection::apply_derivative<Real>(view.cone, w.element, w.solution + view.n, nu, w.scratch);
    for (int i : each(view.m)) nu[i] = nu[i] + s_cotangent[i];
    return residual;
}

// The same, and in `outside` what no motion of x, and none of v, makes of the data's motion along a direction, see
// `right_hand_side`.
template <class Real, class At>
CL_HD inline Real derivative_pullback_along(const DerivativeView& view, const DerivativeWork<Real>& w,
                                            Arr<Real> s_cotangent, Arr<Real> nu, Arr<Real> x, Arr<Real> y, const At& at,
                                            Outside<Real>& outside) {
    using namespace reverse_detail;
    Arr<Real> pair = w.basis;  // free until the Krylov fallback
    right_hand_side<Real>(view, x, y, at, pair + (view.n + view.m));
    Real size;
    outside = {Real(0.0), Real(0.0)};
    const StepsBeside<Real> steps{pair, w.directions, size, outside};
    const Real residual = derivative_pullback<Real>(view, w, s_cotangent, nu, steps);
    const auto doubtful = steps.doubtful();
    if (!any_lane(doubtful)) return residual;
    derivative_factor(view, w);  // not the wide one that singular systems leave behind
    right_hand_side<Real>(view, x, y, at, w.residual);
    const Real start = residual_norm(view, w, w.residual);
    least_norm_detail::outside_part(view, w, mask_and(doubtful, start > Real(0.0)), start, kFollows);
    const Outside<Real> exact = sizes(view, w, w.residual, start);
    outside = {select(doubtful, exact.primal, outside.primal), select(doubtful, exact.dual, outside.dual)};
    return residual;
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

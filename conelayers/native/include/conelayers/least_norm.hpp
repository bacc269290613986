// Systems with a singular Jacobian: the solution of smallest norm of what is consistent in the right-hand side.
//
// In (dx, w = D dv) the matrix K = [[P, A'], [A, -W]] is symmetric, and because P and W are semidefinite its null space is a
// product: dx with P dx = 0 that the active rows do not see, and w with A'w = 0 where D has eigenvalue 1. With M = (K + R)^-1,
// R = diag(c, -rho) the shift, E = I - K M leaves R times the null space alone and takes the rest down by the shift over
// its eigenvalue. A few E in a row split the right-hand side in the part outside of the range and the rest, refinement
// solves for the rest, and a few M R in a row take out of the solution what rounding put in the null space. All of it is
// symmetric: forward and reverse mode are each other's transpose. c is the same for all of x in x's own units, as far as its
// bounds allow, so that the norm of dx is the Euclidean one.
#pragma once

#include "derivative.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// The shift of the columns, as a multiple of the ordinary one: the part outside of the range is known to the unit roundoff
// over the shift.
constexpr double kWide = 10.0;
constexpr int kSweeps = 10;
constexpr double kAccepted = 1e-9;  // relative residual above which a system is taken for a singular one

namespace least_norm_detail {

// w.residual becomes its part outside of the range, given its size, in the lanes of `active`. Returns the sweeps that
// it took.
template <class Real>
CL_HD inline int outside_part(const DerivativeView& view, const DerivativeWork<Real>& w, const Mask<Real>& active,
                              const Real& start, double accuracy) {
    const Real small = Real(accuracy) * start;
    auto going = active;
    int sweep = 0;
    while (sweep < kSweeps) {
        regularised_solve(view, w, w.residual, w.direct);
        jacobian_residual(view, w, w.residual, w.direct, w.trial_residual);
        for (int k : each(view.n + view.m)) {
            w.trial[k] = w.trial_residual[k] - w.residual[k];
            w.residual[k] = select(going, w.trial_residual[k], w.residual[k]);
        }
        ++sweep;
        going = mask_and(going, residual_norm(view, w, w.residual) > small);
        if (!any_lane(going)) break;
        going = mask_and(going, residual_norm(view, w, w.trial) > small);
        if (!any_lane(going)) break;
    }
    return sweep;
}

// w.solution without what it has in the null space, in the lanes of `lost`.
template <class Real>
CL_HD inline void take_out_null_space(const DerivativeView& view, const DerivativeWork<Real>& w,
                                      const Mask<Real>& lost, int sweeps) {
    const int n = view.n, m = view.m;
    const Real narrowest = derivative_detail::narrowest_column(view, w);
    for (int k : each(n + m)) w.direct[k] = w.solution[k];
    for (int sweep = 0; sweep < sweeps; ++sweep) {
        projection::apply_derivative<Real>(view.cone, w.element, w.direct + n, w.image, w.scratch);
        for (int j : each(n)) {
            const Real scale = w.column[j];
            w.trial[j] = Real(kWide) * derivative_detail::column_shift(scale, narrowest) / (scale * scale) * w.direct[j];
        }
        for (int i : each(m)) w.trial[n + i] = Real(-kRowShift) / (w.row[i] * w.row[i]) * w.image[i];
        regularised_solve(view, w, w.trial, w.direct);
    }
    for (int k : each(n + m)) w.solution[k] = select(lost, w.solution[k] - w.direct[k], w.solution[k]);
}

}  // namespace least_norm_detail

// Factor the KKT matrix again, with the wide shift: for `least_norm_solve`, and too slow for `derivative_solve`.
template <class Real>
CL_HD inline void derivative_factor_wide(const DerivativeView& view, const DerivativeWork<Real>& w) {
    derivative_factor(view, w, kWide);
}

// In the lanes of `lost`, w.solution becomes the shortest solution for the part of w.rhs in the range, unless the residual of
// that part is no smaller than that of the solution there, `before`; the others keep theirs. Returns the residual. Residuals
// are relative to w.rhs.
template <class Real>
CL_HD inline Real least_norm_solve(const DerivativeView& view, const DerivativeWork<Real>& w, const Mask<Real>& lost,
                                   const Real& before) {
    using namespace least_norm_detail;
    const int size = view.n + view.m;
    const Real start = residual_norm(view, w, w.rhs);
    for (int k : each(size)) w.residual[k] = w.rhs[k];
    const int sweeps = outside_part(view, w, lost, start, 1e-11);
    Arr<Real> inside = w.basis, earlier = w.directions;
    for (int k : each(size)) {
        earlier[k] = w.solution[k];
        inside[k] = w.rhs[k] - w.residual[k];
        w.solution[k] = select(lost, Real(0.0), w.solution[k]);
        w.residual[k] = inside[k];
    }
    const RefinedPoint<Real> point{w.solution, w.residual, w.trial, w.trial_residual};
    Real norm = residual_norm(view, w, inside);
    auto active = mask_and(lost, norm > Real(0.0));
    for (int sweep = 0; sweep < kSweeps && any_lane(active); ++sweep) {
        regularised_solve(view, w, w.residual, w.direct);
        for (int k : each(size)) w.trial[k] = w.solution[k] + w.direct[k];
        jacobian_residual(view, w, inside, w.trial, w.trial_residual);
        active = mask_and(accept_trial<Real>(view, w, point, active, norm), norm > Real(1e-13) * start);
    }
    take_out_null_space(view, w, lost, sweeps);
    const Real after = norm / select(start == Real(0.0), Real(1.0), start);
    const auto kept = mask_not(mask_and(lost, mask_not(after >= before)));
    const Real poison = norm - norm;  // not zero where an input was not finite
    for (int k : each(size)) w.solution[k] = select(kept, earlier[k], w.solution[k] + poison);
    return select(kept, before, after);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

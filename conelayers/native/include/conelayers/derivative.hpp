// Solving with the Jacobian of the optimality conditions: refinement on the exact J, and the reverse mode built on it.
#pragma once

#include "krylov.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// Largest entry of z, measured so that a backward stable solve has a residual of a few ulps of it.
template <class Real>
CL_HD inline Real solution_norm(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> z) {
    Real norm = Real(0.0);
    for (int j : each(view.n)) norm = max(norm, abs(z[j] / w.column[j]));
    for (int i : each(view.m)) norm = max(norm, abs(w.row[i] * z[view.n + i]));
    return all_max(norm);
}

// A solution so far and its residual, and a trial of a better one.
template <class Real>
struct RefinedPoint {
    Arr<Real> solution, residual, trial, trial_residual;
};

// Take the trial and its residual in the active lanes where they are better; returns those that gained at least a factor 2.
template <class Real>
CL_HD inline Mask<Real> accept_trial(const DerivativeView& view, const DerivativeWork<Real>& w,
                                     const RefinedPoint<Real>& point, const Mask<Real>& active, Real& norm) {
    const Real trial_norm = residual_norm(view, w, point.trial_residual);
    const auto better = mask_and(active, trial_norm < norm);
    const auto gained = mask_and(active, trial_norm < Real(0.5) * norm);
    for (int k : each(view.n + view.m)) {
        point.solution[k] = select(better, point.trial[k], point.solution[k]);
        point.residual[k] = select(better, point.trial_residual[k], point.residual[k]);
    }
    norm = select(better, trial_norm, norm);
    return gained;
}

constexpr double kUnmoved = 1e-6;  // relative change of a residual up to which it counts as outside of the range

// Whether the preconditioner leaves w.residual, of the given norm, as it is: then all of it lies outside of the range of a singular
// J, where no further step can lower it.
template <class Real>
CL_HD inline Mask<Real> lies_outside(const DerivativeView& view, const DerivativeWork<Real>& w, const Real& norm) {
    regularised_solve(view, w, w.residual, w.direct);
    jacobian_residual(view, w, w.residual, w.direct, w.trial_residual);
    const Real left = residual_norm(view, w, w.trial_residual);
    return mask_and(left > Real(1.0 - kUnmoved) * norm, left < Real(1.0 + kUnmoved) * norm);
}

// w.solution = J^-1 w.rhs after derivative_factor; returns the residual relative to the right-hand side, per lane. Lanes
// whose data are not finite come out as NaN. accuracy: relative residual at which a lane may stop; 0 for all that double
// precision gives. cycles: rounds of the Krylov fallback, for lanes that refinement leaves far from it. step: makes w.direct of
// w.residual by the regularised solve.
template <class Real, class Step = PlainStep>
CL_HD inline Real derivative_solve(const DerivativeView& view, const DerivativeWork<Real>& w, double accuracy = 0.0,
                                   int cycles = 3, const Step& step = Step()) {
    const int size = view.n + view.m;
    const RefinedPoint<Real> point{w.solution, w.residual, w.trial, w.trial_residual};
    for (int k : each(size)) {
        w.solution[k] = Real(0.0);
        w.residual[k] = w.rhs[k];
    }
    const Real start = residual_norm(view, w, w.rhs);
    Real norm = start, floor = Real(0.0);
    auto active = start > Real(0.0);
    for (int iteration = 0; iteration < 8; ++iteration) {
        step(view, w, iteration);
        for (int k : each(size)) w.trial[k] = w.solution[k] + w.direct[k];
        jacobian_residual(view, w, w.rhs, w.trial, w.trial_residual);
        const auto gained = accept_trial<Real>(view, w, point, active, norm);
        floor = Real(5e-15) * (start + solution_norm(view, w, w.solution));
        active = mask_and(gained, norm > max(floor, Real(accuracy) * start));
        if (!any_lane(active)) break;
    }
    const Real stalled = max(Real(accuracy > 0.0 ? 1e3 * accuracy : 1e-10) * start, floor);
    active = norm > stalled;
    if (cycles > 0 && any_lane(active)) active = mask_and(active, mask_not(lies_outside<Real>(view, w, norm)));
    for (int cycle = 0; cycle < cycles; ++cycle) {
        if (!any_lane(active)) break;
        krylov_correction(view, w);
        jacobian_residual(view, w, w.rhs, w.trial, w.trial_residual);
        const auto gained = accept_trial<Real>(view, w, point, active, norm);
        active = mask_and(gained, norm > stalled);
    }
    const Real poison = norm - norm;  // not zero where an input was not finite
    for (int k : each(size)) w.solution[k] = w.solution[k] + poison;
    return norm / select(start == Real(0.0), Real(1.0), start);
}

// Gradients on the patterns: dA = -(y lambda' + nu x'), dP = -(lambda x' + x lambda') / 2, of which the stored upper triangle
// counts off-diagonal entries twice. They replace w.a and w.p.
template <class Real>
CL_HD inline void pattern_gradients(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> x, Arr<Real> y,
                                    Arr<Real> nu) {
    Arr<Real> lambda = w.solution;
    for (int j : each(view.n)) {
        const Real xj = x[j], lambda_j = lambda[j];
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const int i = view.a_row[k];
            w.a[k] = -(y[i] * lambda_j + nu[i] * xj);
        }
        for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k) {
            const int i = view.p_row[k];
            const Real both = lambda[i] * xj + x[i] * lambda_j;
            w.p[k] = i == j ? Real(-0.5) * both : -both;
        }
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

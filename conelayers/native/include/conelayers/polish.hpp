// Newton polish: semismooth Newton steps on the optimality conditions, from the point an interior-point method left.
//
//   F1 = P x + q + A' y,   F2 = A x + y - v - b,   y = Pi_{K*}(v),   J (dx, dv) = -(F1, F2)
// (Qi & Sun, A nonsmooth version of Newton's method, 1993). A step is kept only where it lowers the residual, lane by lane.
// At a solver's accuracy of 1e-8 one step reaches 1e-13 unless the solution is (nearly) on a kink.
#pragma once

#include "derivative.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// The arrays of the polish besides those of DerivativeWork.
template <class Real>
struct PolishWork {
    Arr<Real> q, b, x, v, f, y_trial, element_trial, image;
    Real dual_size, primal_size;  // what F1 and F2 are measured by
    long long size;

    CL_HD PolishWork(const DerivativeView& view, Arr<Real> base, bool counting = false) : size(0) {
        const long long n = view.n, m = view.m;
        const auto take = [&](long long count) {
            const long long offset = size;
            size += count;
            return counting ? base : base + offset;
        };
        q = take(n), b = take(m), x = take(n), v = take(m), f = take(n + m);
        y_trial = take(m), element_trial = take(view.cone.element_size), image = take(n + m);
        dual_size = primal_size = Real(1.0);
    }
};

namespace polish_detail {

// f = (F1, F2) at (x, v) with y = Pi(v); image = (P x, A x).
template <class Real>
CL_HD inline void conditions(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t,
                             Arr<Real> x, Arr<Real> v, Arr<Real> y, Arr<Real> f) {
    const int n = view.n, m = view.m;
    for (int k = 0; k < n + m; ++k) t.image[k] = Real(0.0);
    for (int j = 0; j < n; ++j) {
        Real dual = Real(0.0), quadratic = Real(0.0);
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const int i = view.a_row[k];
            t.image[n + i] = t.image[n + i] + w.a[k] * x[j];
            dual = dual + w.a[k] * y[i];
        }
        for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k) {
            const int i = view.p_row[k];
            quadratic = quadratic + w.p[k] * x[i];
            if (i != j) t.image[i] = t.image[i] + w.p[k] * x[j];
        }
        t.image[j] = t.image[j] + quadratic;
        f[j] = t.q[j] + dual;
    }
    for (int j = 0; j < n; ++j) f[j] = f[j] + t.image[j];
    for (int i = 0; i < m; ++i) f[n + i] = (t.image[n + i] - t.b[i]) + (y[i] - v[i]);
}

template <class Real>
CL_HD inline Real merit(const DerivativeView& view, const PolishWork<Real>& t, Arr<Real> f) {
    Real dual = Real(0.0), primal = Real(0.0);
    for (int j = 0; j < view.n; ++j) dual = max(abs(f[j]), dual);
    for (int i = 0; i < view.m; ++i) primal = max(abs(f[view.n + i]), primal);
    return max(dual / t.dual_size, primal / t.primal_size);
}

// Sizes of the terms of F1 and F2 at the start, so that the residual is relative.
template <class Real>
CL_HD inline void measure(const DerivativeView& view, const DerivativeWork<Real>& w, PolishWork<Real>& t) {
    Real dual = Real(0.0), primal = Real(0.0);
    for (int j = 0; j < view.n; ++j) {
        const Real rest = t.f[j] - t.image[j] - t.q[j];  // A' y
        dual = max(dual, max(abs(rest), max(abs(t.q[j]), abs(t.image[j]))));
    }
    for (int i = 0; i < view.m; ++i) {
        const Real s = w.y[i] - t.v[i];
        primal = max(primal, max(abs(s), max(abs(t.b[i]), abs(t.image[view.n + i]))));
    }
    t.dual_size = select(dual > Real(0.0), dual, Real(1.0));
    t.primal_size = select(primal > Real(0.0), primal, Real(1.0));
}

}  // namespace polish_detail

// Improve t.x and t.v; needs w.p, w.a, t.q, t.b. On return w.y = Pi(t.v) and w.element is D there; s = y - v.
// Returns the relative residual of the conditions per lane. Lanes below `target` are left as they are.
template <class Real>
CL_HD inline Real polish(const DerivativeView& view, const DerivativeWork<Real>& w, PolishWork<Real>& t, int steps,
                         double target) {
    using namespace polish_detail;
    const int n = view.n, m = view.m;
    projection::project_dual<Real>(view.cone, t.v, 0.0, w.y, w.element, w.scratch);
    conditions(view, w, t, t.x, t.v, w.y, t.f);
    measure(view, w, t);
    Real norm = merit(view, t, t.f);
    if (steps > 0) derivative_scale(view, w);
    for (int step = 0; step < steps; ++step) {
        const auto open = norm > Real(target);
        if (!any_lane(open)) break;
        derivative_factor(view, w);
        for (int k = 0; k < n + m; ++k) w.rhs[k] = -t.f[k];
        derivative_solve(view, w);
        Arr<Real> x = w.trial, v = w.trial + n, f = w.trial_residual;
        for (int j = 0; j < n; ++j) x[j] = t.x[j] + w.solution[j];
        for (int i = 0; i < m; ++i) v[i] = t.v[i] + w.solution[n + i];
        projection::project_dual<Real>(view.cone, v, 0.0, t.y_trial, t.element_trial, w.scratch);
        conditions(view, w, t, x, v, t.y_trial, f);
        const Real trial_norm = merit(view, t, f);
        const auto better = mask_and(open, trial_norm < norm);
        if (!any_lane(better)) break;
        for (int j = 0; j < n; ++j) t.x[j] = select(better, x[j], t.x[j]);
        for (int i = 0; i < m; ++i) {
            t.v[i] = select(better, v[i], t.v[i]);
            w.y[i] = select(better, t.y_trial[i], w.y[i]);
        }
        for (int k = 0; k < n + m; ++k) t.f[k] = select(better, f[k], t.f[k]);
        for (int k = 0; k < view.cone.element_size; ++k)
            w.element[k] = select(better, t.element_trial[k], w.element[k]);
        norm = select(better, trial_norm, norm);
    }
    return norm;
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

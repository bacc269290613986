// Newton polish: semismooth Newton steps on the optimality conditions, from the point an interior-point method left.
//
//   F1 = P x + q + A' y,   F2 = A x + y - v - b,   y = Pi_{K*}(v),   J (dx, dv) = -(F1, F2)
// (Qi & Sun, A nonsmooth version of Newton's method, 1993). Steps may pass over a worse point (a wrong guess of the
// active set is often right one step later); the best point is what remains, lane by lane. From a solver's accuracy of
// 1e-8 one step reaches 1e-13 unless the solution lies on a kink.
#pragma once

#include "block_units.hpp"
#include "derivative.hpp"
#include "membership.hpp"
#include "row_sizes.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// The arrays of the polish besides those of DerivativeWork.
template <class Real>
struct PolishWork {
    Arr<Real> q, b, x, v, s, f, image;
    Arr<Real> best_x, best_v, best_y;
    Arr<Real> factored;  // the Clarke element of the present factor
    Arr<Real> weight;    // one over what each row of F1 and F2 is measured by
    Arr<Real> unit;      // see block_units.hpp
    long long size;

    CL_HD PolishWork(const DerivativeView& view, Arr<Real> base, bool counting = false) : size(0) {
        const long long n = view.n, m = view.m;
        const auto take = [&](long long count) {
            const long long offset = size;
            size += count;
            return counting ? base : base + offset;
        };
        q = take(n), b = take(m), x = take(n), v = take(m), s = take(m);
        f = take(n + m), image = take(n + m);
        best_x = take(n), best_v = take(m), best_y = take(m);
        factored = take(view.cone.element_size), weight = take(n + m), unit = take(m);
    }
};

namespace polish_detail {

// image = (P x, A x) and transposed = A' y.
template <class Real>
CL_HD inline void products(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> x, Arr<Real> y,
                           Arr<Real> image, Arr<Real> transposed) {
    const int n = view.n, m = view.m;
    for (int k = 0; k < n + m; ++k) image[k] = Real(0.0);
    for (int j = 0; j < n; ++j) {
        Real dual = Real(0.0), quadratic = Real(0.0);
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const int i = view.a_row[k];
            image[n + i] = image[n + i] + w.a[k] * x[j];
            dual = dual + w.a[k] * y[i];
        }
        for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k) {
            const int i = view.p_row[k];
            quadratic = quadratic + w.p[k] * x[i];
            if (i != j) image[i] = image[i] + w.p[k] * x[j];
        }
        image[j] = image[j] + quadratic;
        transposed[j] = dual;
    }
}

// t.f = (F1, F2) at (t.x, t.v), with y = Pi(v) and D on the way; t.image = (P x, A x). t.s: near y - v.
template <class Real>
CL_HD inline void conditions(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t) {
    const int n = view.n, m = view.m;
    Arr<Real> v = t.v, y = w.y, f = t.f;
    projection::project_dual<Real>(view.cone, v, t.s, 0.0, y, w.element, w.scratch);
    products(view, w, t.x, y, t.image, f);
    for (int j : each(n)) f[j] = (t.q[j] + f[j]) + t.image[j];
    for (int i : each(m)) f[n + i] = (t.image[n + i] - t.b[i]) + (y[i] - v[i]);
}

// The largest row of f against the size of its own terms.
template <class Real>
CL_HD inline Real merit(const DerivativeView& view, const PolishWork<Real>& t, Arr<Real> f) {
    Real largest = Real(0.0), poison = Real(0.0);
    for (int k : each(view.n + view.m)) {
        largest = max(largest, abs(f[k]) * t.weight[k]);
        poison = poison + f[k] * Real(0.0);
    }
    return all_max(largest) + all_sum(poison);
}

// Sizes of the terms of F1 and F2 at the start, so that the residual is relative, row by row: a huge row does not hide the
// others. Rows whose terms all vanish are measured by one, or by the largest row where that is smaller.
template <class Real>
CL_HD inline void measure(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t) {
    const int n = view.n, m = view.m;
    for (int i : each(m)) t.s[i] = w.y[i] - t.v[i];
    for (int j : each(n)) w.rhs[j] = t.f[j] - t.image[j] - t.q[j];  // A' y
    row_sizes<Real>(view, w, t, t.x, w.y, t.s, w.rhs, t.weight);
    Real dual = Real(0.0), primal = Real(0.0);
    for (int j : each(n)) dual = max(dual, t.weight[j]);
    for (int i : each(m)) primal = max(primal, t.weight[n + i]);
    join_max(dual, primal);
    dual = select(dual > Real(0.0), min(dual, Real(1.0)), Real(1.0));
    primal = select(primal > Real(0.0), min(primal, Real(1.0)), Real(1.0));
    for (int j : each(n)) t.weight[j] = Real(1.0) / max(t.weight[j], dual);
    for (int i : each(m)) t.weight[n + i] = Real(1.0) / max(t.weight[n + i], primal);
}

// The present point becomes the best one where `better` holds.
template <class Real>
CL_HD inline void keep_best(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t,
                            const Mask<Real>& better) {
    for (int j : each(view.n)) t.best_x[j] = select(better, t.x[j], t.best_x[j]);
    for (int i : each(view.m)) {
        t.best_v[i] = select(better, t.v[i], t.best_v[i]);
        t.best_y[i] = select(better, w.y[i], t.best_y[i]);
    }
}

// Factor at the present point, unless no open lane's Clarke element has changed since the last time: on polyhedral cones the
// last steps share one active set.
template <class Real>
CL_HD inline void factor_where_new(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t,
                                   const Mask<Real>& open, bool first) {
    Mask<Real> changed = first ? open : Real(0.0) > Real(1.0);
    for (int k : each(view.cone.element_size)) {
        changed = mask_or(changed, mask_and(open, mask_not(w.element[k] == t.factored[k])));
        t.factored[k] = w.element[k];
    }
    if (any_lane(all_any(changed))) derivative_factor(view, w);
}

}  // namespace polish_detail

constexpr double kSmall = 1e-11;  // relative residual below which rounding may be all that is left

struct PolishRule {
    int steps;        // at most
    double target;    // relative residual at which a lane stops
    double accuracy;  // of each step's linear system, relative: a step leaves about this part of the residual
    int cycles;       // rounds of the Krylov fallback in each step's system
    double start = 1e300;     // no steps from a larger relative residual than this,
    double progress = 1e300;  // nor after two that leave more than this part of it
};

namespace polish_detail {

// t.unit of the rows that are far from one so that what is usual for the slack of each is what is usual for its multiplier: a
// part of a programme is small by itself, beside others that are not.
template <class Real>
CL_HD inline void usual_units(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t) {
    const int n = view.n, m = view.m;
    const Real zero(0.0), one(1.0), far(kFarFromOne);
    products(view, w, t.x, t.v, t.image, t.f);
    Arr<Real> size = w.rhs, usual = w.trial, unknown = w.trial_residual, largest = w.direct;
    row_sizes<Real>(view, w, t, t.x, t.v, t.s, t.f, size);
    usual_sizes<Real>(view, w, size, usual, unknown, largest);
    for (int i : each(m)) {
        const Real slack = max(size[n + i], usual[n + i]), price = max(abs(t.v[i]), unknown[n + i]);
        const auto known = mask_and(slack > zero, price > zero);
        const auto apart = mask_or(t.unit[i] > far, t.unit[i] * far < one);
        t.unit[i] = select(mask_and(apart, known), sqrt(price) / sqrt(select(known, slack, one)), t.unit[i]);
    }
}

}  // namespace polish_detail

// Newton steps in the units at hand, from v = y - s; the result is (t.best_x, t.best_v) and t.best_y = Pi(t.best_v).
template <class Real>
CL_HD inline Real newton_steps(const DerivativeView& view, const DerivativeWork<Real>& w, PolishWork<Real>& t,
                         const Mask<Real>& which, const PolishRule& rule) {
    using namespace polish_detail;
    const int n = view.n, m = view.m;
    for (int j : each(n)) t.best_x[j] = t.x[j];
    conditions(view, w, t);
    for (int i : each(m)) {
        t.best_v[i] = t.v[i];
        t.best_y[i] = w.y[i];
    }
    measure(view, w, t);
    Real norm = merit(view, t, t.f), best = norm, previous = Real(infinity());
    Real last = previous, before_last = previous;  // the best norms before the last step, and before the one before it
    for (int step = 0; step < rule.steps; ++step) {
        // A lane whose residual is small goes on only while steps still lower it.
        const auto falling = mask_or(norm > Real(kSmall), norm < Real(0.25) * previous);
        const auto hopeful = mask_and(best <= Real(rule.start), best <= Real(rule.progress) * before_last);
        const auto open = mask_and(mask_and(which, hopeful), mask_and(norm > Real(rule.target), falling));
        if (!any_lane(open)) break;
        if (step == 0) derivative_scale(view, w);
        factor_where_new(view, w, t, open, step == 0);
        for (int k : each(n + m)) w.rhs[k] = -t.f[k];
        derivative_solve(view, w, rule.accuracy, rule.cycles);
        for (int j : each(n)) t.x[j] = select(open, t.x[j] + w.solution[j], t.x[j]);
        for (int i : each(m)) {
            t.s[i] = w.y[i] - t.v[i];
            t.v[i] = select(open, t.v[i] + w.solution[n + i], t.v[i]);
        }
        conditions(view, w, t);
        previous = norm;
        norm = merit(view, t, t.f);
        const auto better = mask_and(open, norm < best);  // closed lanes are as they were, whatever their company does
        keep_best(view, w, t, better);
        before_last = last, last = best;
        best = select(better, norm, best);
    }
    return best;
}

// Improve the point x = t.x, y = t.v, s = t.s in the lanes of `which`, given w.p, w.a, t.q, t.b and t.unit, the units of rows in
// which the point was found (one: those at hand). The result is t.best_x,
// t.best_y and t.s, of which y and s are the projections of y - s. Returns its relative residual per lane.
template <class Real>
CL_HD inline Real polish(const DerivativeView& view, const DerivativeWork<Real>& w, PolishWork<Real>& t,
                         const Mask<Real>& which, const PolishRule& rule) {
    if (any_lane(all_any(rows_far_from_one<Real>(view, t.unit)))) polish_detail::usual_units<Real>(view, w, t);
    const bool units = any_lane(find_units<Real>(view, t.v, t.s, t.unit));
    if (units) {
        apply_units<Real>(view, w, t.b, t.unit);
        for (int i : each(view.m)) t.v[i] = t.v[i] / t.unit[i], t.s[i] = t.s[i] * t.unit[i];
    }
    for (int i : each(view.m)) t.v[i] = t.v[i] - t.s[i];
    const Real residual = newton_steps<Real>(view, w, t, which, rule);
    for (int i : each(view.m)) t.s[i] = t.best_y[i] - t.best_v[i];
    if (units) {
        for (int i : each(view.m)) {
            t.best_y[i] = t.best_y[i] * t.unit[i], t.s[i] = t.s[i] / t.unit[i];
            t.unit[i] = Real(1.0) / t.unit[i];
        }
        apply_units<Real>(view, w, t.b, t.unit);
    }
    return residual;
}

namespace polish_detail {

// Primal and dual residual and gap of a point whose products are in t.image and t.f, from the sizes of its rows, n + m each.
template <class Real>
CL_HD inline void measured_by(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t,
                              Arr<Real> x, Arr<Real> y, Arr<Real> s, Arr<Real> size, Arr<Real> usual, Arr<Real> usual_y,
                              const RowUnits<Real>& unit, Real* out) {
    const int n = view.n, m = view.m;
    const Real share(kShare), one_x = unit.primal, one_y = unit.dual;
    Real primal(0.0), dual(0.0), sum(0.0), terms(0.0);
    for (int i : each(m)) {
        const Real rest = abs((t.image[n + i] - t.b[i]) + s[i]), bound = t.b[i] * y[i];
        primal = max(primal, rest / max(size[n + i], share * max(usual[n + i], one_x)));
        sum = sum + bound, terms = terms + abs(bound);
    }
    for (int j : each(n)) {
        const Real rest = abs((t.q[j] + t.f[j]) + t.image[j]), quadratic = x[j] * t.image[j], linear = t.q[j] * x[j];
        dual = max(dual, rest / max(size[j], share * max(usual[j], one_y)));
        sum = sum + (quadratic + linear), terms = terms + (abs(quadratic) + abs(linear));
    }
    join_max(primal, dual), join_sum(sum, terms);
    out[0] = primal, out[1] = dual;
    out[2] = max(abs(sum) / max(one_x * one_y, terms), complementarity<Real>(view, y, s, size + n, usual + n, usual_y, unit));
}

}  // namespace polish_detail

// The larger residual of a point, relative to the largest entries of q and b, which do not grow with the point: where a
// programme is unbounded or infeasible along the border of a cone, points grow faster than what is wrong with them. A zero q or
// b counts as one.
template <class Real>
CL_HD inline Real fixed_residual(const DerivativeView& view, const DerivativeWork<Real>& w, const PolishWork<Real>& t,
                                 Arr<Real> x, Arr<Real> y, Arr<Real> s) {
    const Real zero(0.0), one(1.0);
    polish_detail::products(view, w, x, y, t.image, t.f);
    Real primal = zero, dual = zero, q = zero, b = zero;
    for (int j : each(view.n)) dual = max(dual, abs((t.q[j] + t.f[j]) + t.image[j])), q = max(q, abs(t.q[j]));
    for (int i : each(view.m)) {
        primal = max(primal, abs((t.image[view.n + i] - t.b[i]) + s[i])), b = max(b, abs(t.b[i]));
    }
    join_max(primal, dual, q, b);
    return max(primal / select(b > zero, b, one), dual / select(q > zero, q, one));
}

constexpr double kClearlyExact = 1e-11;  // residuals up to this are not worth a look at what is usual

// Relative residuals of (x, y, s): primal, dual, gap. As conelayers.program.residuals defines them, or not much above where
// they are small.
template <class Real>
CL_HD inline void relative_residuals(const DerivativeView& view, const DerivativeWork<Real>& w,
                                     const PolishWork<Real>& t, Arr<Real> x, Arr<Real> y, Arr<Real> s, Real* out) {
    polish_detail::products(view, w, x, y, t.image, t.f);
    Arr<Real> size = w.rhs, usual = w.trial, unknown = w.trial_residual, largest = w.direct;
    row_sizes<Real>(view, w, t, x, y, s, t.f, size);
    const RowUnits<Real> unit = row_units<Real>(view, t, size);
    for (int k : each(view.n + view.m)) usual[k] = Real(0.0);
    polish_detail::measured_by<Real>(view, w, t, x, y, s, size, usual, usual + view.n, unit, out);
    const Mask<Real> outside = outside_cones<Real>(view, w, y, s, size + view.n);
    const Mask<Real> unclear = mask_not(max(out[0], max(out[1], out[2])) <= Real(kClearlyExact));
    out[0] = select(outside, max(out[0], Real(1.0)), out[0]);
    if (!any_lane(unclear)) return;
    Real again[3];
    usual_sizes<Real>(view, w, size, usual, unknown, largest);
    polish_detail::measured_by<Real>(view, w, t, x, y, s, size, usual, unknown + view.n, unit, again);
    again[0] = select(outside, max(again[0], Real(1.0)), again[0]);
    for (int k = 0; k < 3; ++k) out[k] = select(unclear, again[k], out[k]);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

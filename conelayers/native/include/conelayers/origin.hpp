// The origin from which the interior-point method counts, so that huge terms that decide nothing are not in its way.
//
// x is free and so are the multipliers y of equations: for any x0, and y0 on zero cones, (x, s, y) solves (P, q, A, b) if and only if
// (x - x0, s, y - y0) solves (P, q + P x0 + A'y0, A, b - A x0). Two kinds of rows use it:
//
// - An equation with an unknown that is in no other row, as t = w - p of |p - w|^2, defines it. With x0 = its value at p = 0
//   and y0 from its column the size of w is gone from b and from the objective's value.
// - A cost so large that it can only press its unknown to a bound, as of a forbidden edge or a masked score, is in the bound's
//   multiplier alone: y0 > 0 on that row takes all of it but a part that is still large. The multiplier of the solution is
//   larger than that, or the residuals of the whole programme will say so.
#pragma once

#include "engine_layout.hpp"
#include "pack.hpp"
#include "programme.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

constexpr double kOutOfProportion = 1e3;  // times the largest entry of b elsewhere, or one
constexpr double kPressing = 1e6;  // times the usual cost, or the square of it times the least

// The part of each pressing cost beyond a limit goes into y0.
template <class Real>
CL_HD inline void press(const EngineView& view, const Programme<Real>& p, Arr<Real> y0) {
    const Real zero(0.0), one(1.0);
    // The bound's row of column j on which its cost presses: 0 or 1, as masks.
    const auto presses = [&](int j, int k) {
        const int e = view.bound[2 * j + k];
        return e < 0 ? zero > one : p.A[e < 0 ? 0 : e] * p.q[j] < zero;
    };
    Real usual(0.0), least(1e300);
    for (int j : each(view.n)) {
        const Real cost = abs(p.q[j]);
        const Mask<Real> pressed = mask_or(presses(j, 0), presses(j, 1));
        usual = max(usual, select(pressed, zero, cost));
        least = min(least, select(pressed, cost, Real(1e300)));
    }
    for (int e : each(view.P_nnz)) usual = max(usual, abs(p.P[e]));
    usual = all_max(usual), least = all_min(least);
    const Real limit = max(Real(kPressing) * usual, Real(kPressing * kPressing) * least);
    for (int j : each(view.n)) {
        const Real excess = abs(p.q[j]) - limit;
        Mask<Real> open = excess > zero;
        for (int k = 0; k < 2; ++k) {
            const int e = view.bound[2 * j + k];
            if (e < 0) continue;
            const Mask<Real> here = mask_and(open, presses(j, k));
            const int i = view.A_row[e];
            y0[i] = select(here, excess / abs(select(here, p.A[e], one)), y0[i]);
            p.q[j] = select(here, select(p.q[j] > zero, limit, -limit), p.q[j]);
            open = mask_and(open, mask_not(here));
        }
    }
}

// x0 and y0 of unknowns that are defined by an equation, in lanes where what they stand for is out of all proportion.
template <class Real>
CL_HD inline void define(const EngineView& view, const Programme<Real>& p, Arr<Real> x0, Arr<Real> y0, Arr<Real> Px,
                         Arr<Real> Ax, Arr<Real> Atz) {
    const Real zero(0.0), one(1.0);
    Real largest(0.0), others(1.0);
    for (int i : each(view.m)) y0[i] = one;  // for the time being: one in the rows of the others
    for (int j : each(view.n))
        if (view.definition[j] >= 0) y0[view.A_row[view.definition[j]]] = zero;
    for (int i : each(view.m)) {
        const Real size = abs(p.b[i]);
        largest = max(largest, size), others = max(others, size * y0[i]);
    }
    join_max(largest, others);
    const Mask<Real> huge = largest > Real(kOutOfProportion) * others;
    for (int i : each(view.m)) y0[i] = zero;
    if (!any_lane(huge)) return;
    const auto entry = [&](int j) { return p.A[view.definition[j] < 0 ? 0 : view.definition[j]]; };
    const auto defined = [&](int j) { return mask_and(huge, abs(entry(j)) > (view.definition[j] < 0 ? Real(infinity()) : zero)); };
    for (int j : each(view.n)) {
        if (view.definition[j] < 0) continue;
        const Mask<Real> here = defined(j);
        x0[j] = select(here, p.b[view.A_row[view.definition[j]]] / select(here, entry(j), one), zero);
    }
    products<Real, 1>(view, p, x0, y0, 0, Px, Ax, Atz);
    for (int i : each(view.m)) p.b[i] -= Ax[i];
    for (int j : each(view.n)) {
        p.q[j] += Px[j];
        if (view.definition[j] < 0) continue;
        const Mask<Real> here = defined(j);
        const int i = view.A_row[view.definition[j]];
        y0[i] = select(here, -p.q[j] / select(here, entry(j), one), zero);
        p.b[i] = select(here, zero, p.b[i]);
    }
    products<Real, 1>(view, p, x0, y0, 0, Px, Ax, Atz);
    for (int j : each(view.n)) p.q[j] = select(defined(j), zero, p.q[j] + Atz[j]);
}

// p.q and p.b relative to the origin (x0, y0), before any scaling. Px: n packs, Ax: m packs, Atz: n packs of scratch.
template <class Real>
CL_HD inline void choose_origin(const EngineView& view, Programme<Real>& p, Arr<Real> x0, Arr<Real> y0, Arr<Real> Px,
                                Arr<Real> Ax, Arr<Real> Atz) {
    const Real zero(0.0), one(1.0);
    for (int j : each(view.n)) x0[j] = zero;
    for (int i : each(view.m)) y0[i] = zero;
    if (view.definitions > 0) define<Real>(view, p, x0, y0, Px, Ax, Atz);
    if (view.bounds > 0) press<Real>(view, p, y0);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// Power cone K = {(x, y, z): x^a y^(1 - a) >= |z|, x, y >= 0} with 0 < a < 1: projection and its Clarke element.
//
// Hien, Differential properties of Euclidean projection onto power cone (2015): outside K, its polar and z = 0, the
// projection is (X, Y, sign(z) r) with X = (x + S) / 2, S = sqrt(x^2 + 4 a r (|z| - r)), likewise Y with b = 1 - a,
// and r in (0, |z|) the root of X^a Y^b = r. Solved as a log X + b log Y - log r = 0 (the direct form cancels) for
// t = log(r / (|z| - r)), so that r and |z| - r keep their digits at both ends; X of a negative x is
// 2 a r (|z| - r) / (S - x). Curvature of the boundary:
//   theta = m / (m + a b r (|z| - r) |p|^2),   m = X^2 Y^2 + r^2 (a^2 Y^2 + b^2 X^2),   p = (X, Y, r).
#pragma once

#include "three_dimensional.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

struct Power {
    // y = Pi_K(v), element of its Clarke Jacobian: I in K, 0 in the polar cone; on the plane z = 0 with x < 0 < y,
    // diag(0, 1, limit of the difference quotient in z), and likewise with x and y exchanged. On the boundaries of K and
    // of its polar, and at the apex, the largest element or the smallest. guess: a point near Pi_K(v), or zero.
    template <class Real>
    CL_HD static void project(double a, const Real* v, const Real* guess, bool largest_element, Real* y,
                              Real* element) {
        const Real zero = Real(0.0), one = Real(1.0);
        const double b = 1.0 - a;
        const Real largest = max(abs(v[0]), max(abs(v[1]), abs(v[2])));
        const Real inverse = one / select(largest > Real(1e-290), largest, one);
        const Real x0 = v[0] * inverse, y0 = v[1] * inverse, height = abs(v[2]) * inverse;
        const auto apex = largest <= zero;
        const auto inside = largest_element ? mask_or(contains(a, x0, y0, height, true), apex)
                                            : contains(a, x0, y0, height, false);
        const auto polar = contains(a, -x0 * Real(1.0 / a), -y0 * Real(1.0 / b), height, !largest_element);
        const auto level = height <= Real(1e-290);
        const auto smooth = mask_not(mask_or(inside, mask_or(polar, level)));
        Real root[4];
        solve(smooth, a, x0, y0, height, abs(guess[2]) * inverse, root);
        const Real big_x = root[0], big_y = root[1], r = root[2], rest = root[3];
        const auto flat = mask_or(level, r <= Real(1e-150));  // the root may underflow: r / |z| is 0 then

        const auto down = v[2] < zero;
        Real ray[3] = {big_x, big_y, select(down, -r, r)};
        const Real slope = big_x * big_y;
        Real normal[3] = {Real(-a) * r * big_y, Real(-b) * r * big_x, select(down, -slope, slope)};
        const Real length = ThreeDimensional::normalize(ray);
        ThreeDimensional::normalize(normal);
        const Real mix = r * r * (Real(a * a) * big_y * big_y + Real(b * b) * big_x * big_x);
        const Real straight = slope * slope + mix;
        const Real bent = Real(a * b) * r * rest * length * length;
        const Real sum = straight + bent;
        const Real theta = select(sum > zero, straight / select(sum > zero, sum, one), zero);
        ThreeDimensional::set_curved(ray, normal, theta, element);
        y[0] = big_x * largest;
        y[1] = big_y * largest;
        y[2] = ray[2] * length * largest;

        set_flat(flat, level, a, x0, y0, element);
        ThreeDimensional::set_diagonal(polar, zero, zero, zero, element);
        ThreeDimensional::set_diagonal(inside, one, one, one, element);
        y[0] = select(inside, v[0], select(polar, zero, select(flat, max(v[0], zero), y[0])));
        y[1] = select(inside, v[1], select(polar, zero, select(flat, max(v[1], zero), y[1])));
        y[2] = select(inside, v[2], select(mask_or(polar, flat), zero, y[2]));
    }

private:
    // x^a y^b >= height, x, y >= 0; not closed: the interior.
    template <class Real>
    CL_HD static Mask<Real> contains(double a, const Real& x, const Real& y, const Real& height, bool closed) {
        const Real zero = Real(0.0), one = Real(1.0);
        const auto open = mask_and(x > zero, y > zero);
        const Real left = Real(a) * log(select(open, x, one)) + Real(1.0 - a) * log(select(open, y, one));
        if (!closed) return mask_and(open, left > log(height));
        const auto above = mask_and(open, left >= log(height));
        return mask_or(above, mask_and(height <= zero, mask_and(x >= zero, y >= zero)));
    }

    // The element where v_z = 0 and v lies neither in K nor in its polar cone: exactly one of x, y is positive. For
    // x < 0 < y, the third eigenvalue is the limit of r / |z|: 1 if a < 1/2, 0 if a > 1/2, y / (y - 2 x) if a = 1/2.
    template <class Real>
    CL_HD static void set_flat(const Mask<Real>& flat, const Mask<Real>& level, double a, const Real& x, const Real& y,
                                 Real* element) {
        const Real zero = Real(0.0), one = Real(1.0);
        const auto negative_x = x < zero;
        Real limit = select(negative_x, Real(a < 0.5 ? 1.0 : 0.0), Real(a < 0.5 ? 0.0 : 1.0));
        if (a == 0.5) {
            const Real positive = max(x, y), negative = min(x, y);
            const Real sum = positive - negative - negative;
            limit = positive / select(sum > zero, sum, one);
        }
        limit = select(level, limit, zero);
        ThreeDimensional::set_diagonal(flat, select(x > zero, one, zero), select(y > zero, one, zero), limit, element);
    }

    // root = (X, Y, r, |z| - r) where `smooth` holds; anything finite elsewhere.
    template <class Real>
    CL_HD static void solve(const Mask<Real>& smooth, double a, const Real& x, const Real& y, const Real& height,
                            const Real& guess, Real* root) {
        const Real one = Real(1.0), half = Real(0.5), zero = Real(0.0);
        const double b = 1.0 - a;
        const auto usable = mask_and(guess > zero, guess < height);
        const Real odds_guess = guess / select(usable, height - guess, one);
        Real low = Real(-700.0), high = Real(700.0);
        Real t = select(usable, log(select(usable, odds_guess, one)), zero);
        Real share, rest;
        auto active = smooth;
        for (int iteration = 0; iteration < 100; ++iteration) {
            const Real bend = evaluate(a, x, y, height, t, share, rest, root);  // in [0, 1]
            const Real value = Real(a) * log(root[0]) + Real(b) * log(root[1]) - log(max(root[2], Real(1e-300)));
            const Real slope = (rest - share) * bend - rest;  // d value / dt, negative
            const auto too_low = value > zero;
            low = select(too_low, t, low);
            high = select(too_low, high, t);
            // Newton in t where the value is nearly linear in log r, in r itself where it is not.
            const Real by_log = -value / slope;
            const Real change = by_log * share * rest;
            const Real odds = (share + change) * rest / (share * (rest - change));
            const auto use_log = mask_and(bend < half, t < zero);
            const Real by_share = select(odds > zero, log(select(odds > zero, odds, one)), Real(1e4));
            const Real newton = t + select(use_log, by_log, by_share);
            const Real next = select(mask_and(newton >= low, newton <= high), newton, half * (low + high));
            const Real step = abs(next - t);
            t = select(active, next, t);
            // Newton squares the error: the last step was below the square root of the precision by far.
            active = mask_and(active, step > Real(1e-10));
            if (!any_lane(active)) break;
        }
        evaluate(a, x, y, height, t, share, rest, root);
    }

    // root = (X, Y, r, |z| - r) at t; returns a times the bend of X plus b times that of Y, see `lift`.
    template <class Real>
    CL_HD static Real evaluate(double a, const Real& x, const Real& y, const Real& height, const Real& t, Real& share,
                               Real& rest, Real* root) {
        const Real one = Real(1.0), e = exp(-abs(t));
        const Real larger = one / (one + e), smaller = e * larger;
        const auto right = t > Real(0.0);
        share = select(right, larger, smaller);
        rest = select(right, smaller, larger);
        root[2] = height * share;
        root[3] = height * rest;
        const Real product = root[2] * root[3];
        const Real bend_x = lift(x, a, product, root[0]);
        return Real(a) * bend_x + Real(1.0 - a) * lift(y, 1.0 - a, product, root[1]);
    }

    // big = (x + S) / 2 with S = sqrt(x^2 + 4 c w), without cancellation; returns c w / (S big), in [0, 1].
    template <class Real>
    CL_HD static Real lift(const Real& x, double c, const Real& w, Real& big) {
        const Real tiny = Real(1e-300), cw = Real(c) * w;
        const Real s = sqrt(muladd(x, x, Real(4.0) * cw));
        big = select(x > Real(0.0), Real(0.5) * (x + s), (cw + cw) / max(s - x, tiny));
        big = max(big, tiny);
        return min(cw / max(s * big, tiny), Real(1.0));
    }
};

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// Exponential cone K = closure {(x, y, z): y > 0, y exp(x / y) <= z}: projection and its Clarke element.
//
// Friberg, Projection onto the exponential cone: a univariate root-finding problem (2021). Boundary rays of K and of its
// polar are orthogonal pairs g(r) = (r, 1, e^r), h(r) = (1, 1 - r, -e^-r); v = alpha g + beta h with
//   alpha = ((r - 1) x + y) / q,   beta = (x - r y) / q,   q = r^2 - r + 1
// holds in the first two entries, and r is the root of z - e^r alpha + e^-r beta on the interval where both are positive. The root is
// found in the logarithmic form, r + log alpha = log(z + e^-r beta) if z >= 0 and -r + log beta = log(e^r alpha - z)
// if not, which is nearly linear. With a, b the lengths of the two parts of v, the curvature of the boundary gives
//   theta = a / (a + b |g|^3 / (|h|^3 e^(2 r))).
#pragma once

#include "three_dimensional.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

struct Exponential {
    static constexpr double largest_root = 700.0;  // beyond it the rays are the faces, to machine precision

    // y = Pi_K(v), element of its Clarke Jacobian: I in K, 0 in the polar cone, diag(1, 0, z > 0) on the face x <= 0,
    // y <= 0. On the boundaries of K and of its polar, and at the apex, the largest element or the smallest.
    // guess: a point near Pi_K(v), from which the root is sought; zero where nothing is known.
    template <class Real>
    CL_HD static void project(const Real* v, const Real* guess, bool largest_element, Real* y, Real* element) {
        const Real zero = Real(0.0), one = Real(1.0);
        const Real largest = max(abs(v[0]), max(abs(v[1]), abs(v[2])));
        const Real inverse = one / select(largest > Real(1e-290), largest, one);
        Real x[3];
        for (int i = 0; i < 3; ++i) {  // ratios of entries, and their cubes, must not overflow
            x[i] = v[i] * inverse;
            x[i] = select(abs(x[i]) < Real(1e-100), zero, x[i]);
        }
        const auto apex = largest <= zero;
        const auto inside = largest_element ? mask_or(contains(x[0], x[1], x[2], true), apex)
                                            : contains(x[0], x[1], x[2], false);
        const auto polar = contains_polar(x[0], x[1], x[2], !largest_element);
        const auto face = mask_and(x[0] <= zero, x[1] <= zero);
        const auto smooth = mask_not(mask_or(inside, mask_or(polar, face)));
        const Real r = root(smooth, x[0], x[1], x[2], guess);

        const Real e = exp(-abs(r));
        const auto right = r >= zero;
        // Rays scaled by the larger of their exponentials: g e^-r and h for r >= 0, g and h e^r for r < 0.
        Real g[3] = {select(right, r * e, r), select(right, e, one), select(right, one, e)};
        Real h[3] = {select(right, one, e), select(right, one - r, (one - r) * e), select(right, -e, -one)};
        const Real length_g = ThreeDimensional::normalize(g), length_h = ThreeDimensional::normalize(h);
        const Real a = max(ThreeDimensional::dot(g, x), zero), b = max(ThreeDimensional::dot(h, x), zero);
        const Real ratio = select(right, length_h / length_g, length_g / length_h);
        const Real factor = ratio * ratio * ratio * e;  // |h|^3 e^2r / |g|^3 or its inverse, never above about r^3
        const Real near = select(right, a * factor, a), far = select(right, b, b * factor);
        const Real sum = near + far;
        const Real theta = select(sum > zero, near / select(sum > zero, sum, one), zero);
        ThreeDimensional::set_curved(g, h, theta, element);
        for (int i = 0; i < 3; ++i) y[i] = g[i] * a * largest;

        ThreeDimensional::set_diagonal(face, select(v[0] < zero, one, zero), zero, select(v[2] > zero, one, zero), element);
        ThreeDimensional::set_diagonal(polar, zero, zero, zero, element);
        ThreeDimensional::set_diagonal(inside, one, one, one, element);
        y[0] = select(inside, v[0], select(polar, zero, select(face, v[0], y[0])));
        y[1] = select(inside, v[1], select(mask_or(polar, face), zero, y[1]));
        y[2] = select(inside, v[2], select(polar, zero, select(face, max(v[2], zero), y[2])));
    }

private:
    // y exp(x / y) <= z, or the face x <= 0, y = 0, z >= 0; not closed: the interior.
    template <class Real>
    CL_HD static Mask<Real> contains(const Real& x, const Real& y, const Real& z, bool closed) {
        const Real zero = Real(0.0);
        const auto open = mask_and(y > zero, z > zero);
        const Real margin = y * log(select(open, z / select(open, y, Real(1.0)), Real(1.0))) - x;
        if (!closed) return mask_and(open, margin > zero);
        return mask_or(mask_and(open, margin >= zero), mask_and(y == zero, mask_and(x <= zero, z >= zero)));
    }

    // -v in the dual cone: x > 0, z < 0, x (1 + log(-z / x)) >= y, or the face x = 0, y <= 0, z <= 0.
    template <class Real>
    CL_HD static Mask<Real> contains_polar(const Real& x, const Real& y, const Real& z, bool closed) {
        const Real zero = Real(0.0), one = Real(1.0);
        const auto open = mask_and(x > zero, z < zero);
        const Real margin = x * (one + log(select(open, -z / select(open, x, one), one))) - y;
        if (!closed) return mask_and(open, margin > zero);
        return mask_or(mask_and(open, margin >= zero), mask_and(x == zero, mask_and(y <= zero, z <= zero)));
    }

    // The root r where `smooth` holds (outside K, outside its polar, off the face); anything finite elsewhere.
    template <class Real>
    CL_HD static Real root(const Mask<Real>& smooth, const Real& x, const Real& y, const Real& z, const Real* guess) {
        const Real zero = Real(0.0), one = Real(1.0), cap = Real(largest_root);
        const Real left_end = one - y / select(x > zero, x, one), right_end = x / select(y > zero, y, one);
        Real high = select(y > zero, right_end, max(cap, left_end));
        Real low = select(x > zero, left_end, min(-cap, high));
        high = select(low < cap, min(high, cap), high);
        low = select(high > -cap, max(low, -cap), low);
        const Real left = low, right = high;
        const Real inset = min(one, Real(0.5) * (high - low));
        const auto guessed = guess[1] > zero;
        const Real hint = guess[0] / select(guessed, guess[1], one);
        const Real edge = Real(1e-6) * inset;
        const auto usable = mask_and(guessed, mask_and(hint > low + edge, hint < high - edge));
        Real r = select(usable, hint, min(max(zero, low + inset), high - inset));
        const auto upper = z >= zero;
        const Real sign = select(upper, one, -one);
        auto active = smooth;
        for (int iteration = 0; iteration < 100; ++iteration) {
            const Real inverse_q = one / muladd(r, r - one, one);
            const Real alpha = max(muladd(r - one, x, y), Real(1e-300)) * inverse_q;
            const Real beta = max(muladd(-r, y, x), Real(1e-300)) * inverse_q;
            const Real grow = exp(min(max(r, -cap), cap)), decay = one / grow;
            // Slopes of e^r alpha and of -e^-r beta, divided by the exponentials; both positive.
            const Real slope_alpha = muladd(muladd(r - one, r - one, one), alpha, beta) * inverse_q;
            const Real slope_beta = muladd(muladd(r, r, one), beta, alpha) * inverse_q;
            const Real main = select(upper, alpha, beta);
            const Real other = select(upper, muladd(decay, beta, z), muladd(grow, alpha, -z));
            const Real value = r + sign * log(main / other);
            const Real slope_main = select(upper, slope_alpha, slope_beta);
            const Real slope_other = select(upper, decay * slope_beta, grow * slope_alpha);
            const Real weighted = main * other;
            const Real newton = r - value * weighted / muladd(slope_main, other, slope_other * main);
            const auto too_far = value > zero;  // the root lies to the left of r
            high = select(too_far, r, high);
            low = select(too_far, low, r);
            const Real middle = Real(0.5) * (low + high);
            const Real next = select(mask_and(newton >= low, newton <= high), newton, middle);
            const Real step = abs(next - r);
            r = select(active, next, r);
            // Newton squares the error, relative to the distance from the ends, where the logarithms are singular.
            const Real room = min(one, min(r - left, right - r));
            const auto settled = mask_or(step <= Real(1e-8) * room, high - low <= Real(4e-16) * abs(r));
            active = mask_and(active, mask_not(settled));
            if (!any_lane(active)) break;
        }
        return r;
    }
};

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

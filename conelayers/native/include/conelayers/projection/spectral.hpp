// The projection of one eigenvalue onto the half-line, and its divided differences.
//
// Cones of squares (half-line, second-order, semidefinite) project eigenvalue by eigenvalue. With a barrier parameter mu > 0 the
// projection y = max(v, 0) becomes the root of y - mu / y = v, and everything below is smooth; mu = 0 gives the
// projection itself and, at a kink (v = 0), the smaller of the two one-sided derivatives.
#pragma once

#include "../vecmath.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

// sqrt(v^2 + 4 mu), the distance between the two roots of y - mu / y = v.
template <class Real>
CL_INLINE Real root_gap(Real v, double mu) {
    return mu > 0.0 ? sqrt(muladd(v, v, Real(4.0 * mu))) : abs(v);
}

// y >= 0 with y - mu / y = v; without cancellation for v < 0.
template <class Real>
CL_INLINE Real positive_part(Real v, double mu) {
    if (mu <= 0.0) return max(v, Real(0.0));
    const Real gap = root_gap(v, mu);
    return select(v > Real(0.0), Real(0.5) * (v + gap), Real(2.0 * mu) / (gap + abs(v)));
}

// (y(a) - y(b)) / (a - b), and dy/dv at a = b, from a, b and their root gaps: (1 + (a + b) / (gap_a + gap_b)) / 2.
template <class Real>
CL_INLINE Real divided_difference(Real a, Real b, Real gap_a, Real gap_b) {
    const Real gaps = gap_a + gap_b;
    const auto kink = gaps <= Real(0.0);
    const Real ratio = (a + b) / select(kink, Real(1.0), gaps);
    return select(kink, Real(0.0), muladd(Real(0.5), ratio, Real(0.5)));
}

// Eigenvalue of W = D^-1 - I for an eigenvalue d of D in [0, 1], never above ceiling.
template <class Real>
CL_INLINE Real weight(Real d, Real ceiling) {
    const Real bounded = max(d, Real(1e-30));
    return min((Real(1.0) - d) / bounded, ceiling);
}

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

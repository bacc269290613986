// What the three-dimensional cones (exponential, power) share: the Clarke element as an orthonormal basis.
//
// Element layout: three eigenvectors (row k is u_k, 9 entries), then their eigenvalues in [0, 1]. At a smooth boundary point p = Pi(v),
// u_0 = p / |p|, u_1 is the tangent orthogonal to p, u_2 the outward normal, with eigenvalues 1, theta, 0 and
// theta = 1 / (1 + |v - p| kappa), kappa the curvature of the boundary at p along u_1.
#pragma once

#include "spectral.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

struct ThreeDimensional {
    static constexpr int element_size = 12;

    template <class Real>
    CL_HD static Real dot(const Real* a, const Real* b) {
        return muladd(a[0], b[0], muladd(a[1], b[1], a[2] * b[2]));
    }

    template <class Real>
    CL_HD static void cross(const Real* a, const Real* b, Real* c) {
        c[0] = muladd(a[1], b[2], -(a[2] * b[1]));
        c[1] = muladd(a[2], b[0], -(a[0] * b[2]));
        c[2] = muladd(a[0], b[1], -(a[1] * b[0]));
    }

    // a / |a|, returning |a|; the zero vector stays. Squares of the entries must not overflow.
    template <class Real>
    CL_HD static Real normalize(Real* a) {
        const Real largest = max(abs(a[0]), max(abs(a[1]), abs(a[2])));
        const Real safe = select(largest > Real(1e-290), largest, Real(1.0));
        const Real inverse = Real(1.0) / safe;
        for (int i = 0; i < 3; ++i) a[i] = a[i] * inverse;
        const Real length = sqrt(dot(a, a));
        const Real inverse_length = Real(1.0) / select(length > Real(0.0), length, Real(1.0));
        for (int i = 0; i < 3; ++i) a[i] = a[i] * inverse_length;
        return length * safe;
    }

    // Element with u_0 = ray, u_2 = normal (unit vectors, orthogonal), u_1 their cross product.
    template <class Real>
    CL_HD static void set_curved(const Real* ray, const Real* normal, Real theta, Real* element) {
        Real tangent[3];
        cross(ray, normal, tangent);
        normalize(tangent);
        for (int i = 0; i < 3; ++i) {
            element[i] = ray[i];
            element[3 + i] = tangent[i];
            element[6 + i] = normal[i];
        }
        element[9] = Real(1.0);
        element[10] = theta;
        element[11] = Real(0.0);
    }

    // Where mask holds, the element becomes diag(d0, d1, d2).
    template <class Mask, class Real>
    CL_HD static void set_diagonal(Mask mask, Real d0, Real d1, Real d2, Real* element) {
        for (int i = 0; i < 9; ++i) element[i] = select(mask, Real(i % 4 == 0 ? 1.0 : 0.0), element[i]);
        element[9] = select(mask, d0, element[9]);
        element[10] = select(mask, d1, element[10]);
        element[11] = select(mask, d2, element[11]);
    }

    // From the projection of -v on K and its element to those of v on the dual cone: v + Pi(-v) and I - D.
    template <class Real>
    CL_HD static void dualize(const Real* v, Real* y, Real* element) {
        for (int i = 0; i < 3; ++i) {
            y[i] = v[i] + y[i];
            element[9 + i] = Real(1.0) - element[9 + i];
        }
    }

    // out = D x.
    template <class Real>
    CL_HD static void apply(const Real* element, const Real* x, Real* out) {
        Real sum[3] = {Real(0.0), Real(0.0), Real(0.0)};
        for (int k = 0; k < 3; ++k) {
            const Real* u = element + 3 * k;
            const Real factor = element[9 + k] * dot(u, x);
            for (int i = 0; i < 3; ++i) sum[i] = muladd(factor, u[i], sum[i]);
        }
        for (int i = 0; i < 3; ++i) out[i] = sum[i];
    }

    // w = D^-1 - I with eigenvalues at most ceiling, upper triangle row by row (6 entries).
    template <class Real>
    CL_HD static void weight(const Real* element, Real ceiling, Real* w) {
        for (int i = 0; i < 6; ++i) w[i] = Real(0.0);
        for (int k = 0; k < 3; ++k) {
            const Real* u = element + 3 * k;
            const Real value = projection::weight(element[9 + k], ceiling);
            Real* entry = w;
            for (int i = 0; i < 3; ++i)
                for (int j = i; j < 3; ++j, ++entry) *entry = muladd(value * u[i], u[j], *entry);
        }
    }
};

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

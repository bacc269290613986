// Barriers of the exponential and power cones of three rows with three derivatives, their interiors, and shadow points.
//
// Goulart & Chen, arXiv 2405.12762, section 4.
//
// F is the barrier of the dual cone, written F = -log(psi) - a log(+-z1) - b log(z2) - c log(z3), with
//   exponential:  psi = z2 - z1 - z1 log(-z3 / z1),                       weights (1, 0, 1), z1 < 0
//   power:        psi = (z1 / a)^(2 a) (z2 / (1 - a))^(2 - 2 a) - z3^2,   weights (1 - a, a, 0)
// Dual cones are linear images of primal ones (K* = T^-1 K), so they run in the coordinates s' = T s, z' = T^-T z.
#pragma once

#include "engine_layout.hpp"
#include "pack.hpp"
#include "vecmath.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace nonsymmetric {

template <class Real>
struct Vec3 {
    Real v[3];
    CL_INLINE Real& operator[](int i) { return v[i]; }
    CL_INLINE const Real& operator[](int i) const { return v[i]; }
};

template <class Real>
CL_INLINE Real dot(const Vec3<Real>& a, const Vec3<Real>& b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// Symmetric 3 x 3: entries 00, 01, 11, 02, 12, 22 (upper triangle packed by columns).
template <class Real>
struct Sym3 {
    Real v[6];
    CL_INLINE Real at(int i, int j) const { return v[i <= j ? j * (j + 1) / 2 + i : i * (i + 1) / 2 + j]; }
};

template <class Real>
CL_INLINE Vec3<Real> multiply(const Sym3<Real>& H, const Vec3<Real>& u) {
    Vec3<Real> r;
    for (int i = 0; i < 3; ++i) r[i] = H.at(i, 0) * u[0] + H.at(i, 1) * u[1] + H.at(i, 2) * u[2];
    return r;
}

// ---- coordinates ----------------------------------------------------------------------------------------------

// T of the dual exponential cone: (u, v, w) -> (u - v, -u, w); of the dual power cone: diag(1/a, 1/(1-a), 1).
template <class Real>
CL_INLINE Vec3<Real> to_primal(const ConeBlock& cone, const Vec3<Real>& s) {
    if (cone.kind == kDualExponential) return {{s[0] - s[1], -s[0], s[2]}};
    if (cone.kind == kDualPower) return {{s[0] * Real(1 / cone.alpha), s[1] * Real(1 / (1 - cone.alpha)), s[2]}};
    return s;
}

template <class Real>
CL_INLINE Vec3<Real> from_primal(const ConeBlock& cone, const Vec3<Real>& s) {  // T^-1
    if (cone.kind == kDualExponential) return {{-s[1], -s[1] - s[0], s[2]}};
    if (cone.kind == kDualPower) return {{s[0] * Real(cone.alpha), s[1] * Real(1 - cone.alpha), s[2]}};
    return s;
}

template <class Real>
CL_INLINE Vec3<Real> to_dual(const ConeBlock& cone, const Vec3<Real>& z) {  // T^-T
    if (cone.kind == kDualExponential) return {{-z[1], -z[0] - z[1], z[2]}};
    if (cone.kind == kDualPower) return {{z[0] * Real(cone.alpha), z[1] * Real(1 - cone.alpha), z[2]}};
    return z;
}

template <class Real>
CL_INLINE Vec3<Real> from_dual(const ConeBlock& cone, const Vec3<Real>& z) {  // T'
    if (cone.kind == kDualExponential) return {{z[0] - z[1], -z[0], z[2]}};
    if (cone.kind == kDualPower) return {{z[0] * Real(1 / cone.alpha), z[1] * Real(1 / (1 - cone.alpha)), z[2]}};
    return z;
}

CL_INLINE bool is_exponential(const ConeBlock& cone) {
    return cone.kind == kExponential || cone.kind == kDualExponential;
}

// ---- the barrier F of the dual cone and the interior of both --------------------------------------------------

// psi with its first, second and third derivatives; third derivatives only where non-zero by symmetry.
template <class Real>
struct Barrier {
    Real psi;
    Vec3<Real> g;      // gradient of psi
    Sym3<Real> H;      // Hessian of psi
    Vec3<Real> weight; // of the logarithms
};

template <class Real>
CL_HD inline Barrier<Real> barrier(const ConeBlock& cone, const Vec3<Real>& z) {
    Barrier<Real> r;
    const Real zero(0.0);
    if (is_exponential(cone)) {
        const Real i3 = Real(1.0) / z[2], i1 = Real(1.0) / z[0];
        const Real l = log(-z[2] * i1);
        r.psi = z[1] - z[0] - z[0] * l;
        r.g = {{-l, Real(1.0), -z[0] * i3}};
        r.H = {{i1, zero, zero, -i3, zero, z[0] * i3 * i3}};
        r.weight = {{Real(1.0), zero, Real(1.0)}};
        return r;
    }
    const double a = cone.alpha;
    const Real phi = exp(Real(2 * a) * log(z[0] * Real(1 / a)) + Real(2 - 2 * a) * log(z[1] * Real(1 / (1 - a))));
    const Real i1 = Real(1.0) / z[0], i2 = Real(1.0) / z[1];
    r.psi = phi - z[2] * z[2];
    r.g = {{Real(2 * a) * phi * i1, Real(2 - 2 * a) * phi * i2, Real(-2.0) * z[2]}};
    r.H = {{Real(2 * a * (2 * a - 1)) * phi * i1 * i1, Real(4 * a * (1 - a)) * phi * i1 * i2,
            Real((2 - 2 * a) * (1 - 2 * a)) * phi * i2 * i2, zero, zero, Real(-2.0)}};
    r.weight = {{Real(1 - a), Real(a), zero}};
    return r;
}

// Third derivative of psi applied to two directions.
template <class Real>
CL_HD inline Vec3<Real> third_psi(const ConeBlock& cone, const Vec3<Real>& z, const Vec3<Real>& u,
                                  const Vec3<Real>& v) {
    if (is_exponential(cone)) {
        const Real i1 = Real(1.0) / z[0], i3 = Real(1.0) / z[2];
        const Real i33 = i3 * i3;
        return {{u[2] * v[2] * i33 - u[0] * v[0] * i1 * i1, Real(0.0),
                 (u[0] * v[2] + u[2] * v[0]) * i33 - Real(2.0) * z[0] * i33 * i3 * u[2] * v[2]}};
    }
    const double a = 2 * cone.alpha, b = 2 - a;
    const Real phi = exp(Real(a) * log(z[0] * Real(2 / a)) + Real(b) * log(z[1] * Real(2 / b)));
    const Real p = u[0] / z[0], q = v[0] / z[0], r = u[1] / z[1], t = v[1] / z[1];
    const Real cross = p * t + r * q;
    const Real first = Real(a * (a - 1) * (a - 2)) * p * q + Real(a * (a - 1) * b) * cross + Real(a * b * (b - 1)) * r * t;
    const Real second = Real(b * (b - 1) * (b - 2)) * r * t + Real(b * (b - 1) * a) * cross + Real(b * a * (a - 1)) * p * q;
    return {{phi * first / z[0], phi * second / z[1], Real(0.0)}};
}

template <class Real>
CL_HD inline Vec3<Real> gradient(const Barrier<Real>& f, const Vec3<Real>& z) {
    const Real ipsi = Real(1.0) / f.psi;
    Vec3<Real> r;
    for (int i = 0; i < 3; ++i) {
        const Real w = f.weight[i];
        r[i] = -f.g[i] * ipsi - select(w == Real(0.0), Real(0.0), w / z[i]);
    }
    return r;
}

template <class Real>
CL_HD inline Sym3<Real> hessian(const Barrier<Real>& f, const Vec3<Real>& z) {
    const Real ipsi = Real(1.0) / f.psi;
    Sym3<Real> r;
    int e = 0;
    for (int j = 0; j < 3; ++j)
        for (int i = 0; i <= j; ++i, ++e) {
            r.v[e] = f.g[i] * f.g[j] * ipsi * ipsi - f.H.v[e] * ipsi;
            if (i == j) r.v[e] += select(f.weight[i] == Real(0.0), Real(0.0), f.weight[i] / (z[i] * z[i]));
        }
    return r;
}

template <class Real>
CL_HD inline Vec3<Real> third(const ConeBlock& cone, const Barrier<Real>& f, const Vec3<Real>& z,
                              const Vec3<Real>& u, const Vec3<Real>& v) {
    const Real ipsi = Real(1.0) / f.psi;
    const Real gu = dot(f.g, u) * ipsi, gv = dot(f.g, v) * ipsi;
    const Vec3<Real> Hu = multiply(f.H, u), Hv = multiply(f.H, v), T = third_psi(cone, z, u, v);
    const Real uHv = dot(u, Hv) * ipsi;
    Vec3<Real> r;
    for (int i = 0; i < 3; ++i) {
        r[i] = ipsi * ((uHv - Real(2.0) * gu * gv) * f.g[i] + gv * Hu[i] + gu * Hv[i] - T[i]);
        r[i] -= select(f.weight[i] == Real(0.0), Real(0.0),
                       Real(2.0) * f.weight[i] * u[i] * v[i] / (z[i] * z[i] * z[i]));
    }
    return r;
}

template <class Real>
CL_HD inline Mask<Real> dual_interior(const ConeBlock& cone, const Vec3<Real>& z) {
    const Real zero(0.0);
    if (is_exponential(cone)) {
        const Mask<Real> signs = mask_and(z[0] < zero, z[2] > zero);
        const Real ratio = select(signs, -z[2] / z[0], Real(1.0));
        return mask_and(signs, z[1] - z[0] - z[0] * log(ratio) > zero);
    }
    const double a = cone.alpha;
    const Mask<Real> signs = mask_and(z[0] > zero, z[1] > zero);
    const Real x = select(signs, z[0], Real(1.0)), y = select(signs, z[1], Real(1.0));
    const Real phi = exp(Real(2 * a) * log(x * Real(1 / a)) + Real(2 - 2 * a) * log(y * Real(1 / (1 - a))));
    return mask_and(signs, phi - z[2] * z[2] > zero);
}

template <class Real>
CL_HD inline Mask<Real> primal_interior(const ConeBlock& cone, const Vec3<Real>& s) {
    const Real zero(0.0);
    const Mask<Real> signs = is_exponential(cone) ? mask_and(s[1] > zero, s[2] > zero)
                                                  : mask_and(s[0] > zero, s[1] > zero);
    if (is_exponential(cone)) {
        const Real ratio = select(signs, s[2] / s[1], Real(1.0));
        return mask_and(signs, s[1] * log(ratio) - s[0] > zero);
    }
    const double a = cone.alpha;
    const Real x = select(signs, s[0], Real(1.0)), y = select(signs, s[1], Real(1.0));
    const Real phi = exp(Real(2 * a) * log(x) + Real(2 - 2 * a) * log(y));
    return mask_and(signs, phi - s[2] * s[2] > zero);
}

// ---- shadow point: z with -grad F(z) = s ----------------------------------------------------------------------

// Exponential: with w = 1 + 1 / (s2 a), a = -z1, the equations reduce to w + log w = 1 + log(s3 / s2) - s1 / s2.
template <class Real>
CL_HD inline Vec3<Real> shadow_exponential(const Vec3<Real>& s) {
    const Real r = max(log(s[2] / s[1]) - s[0] / s[1], 1e-300);  // positive inside the cone
    const Real big = r - log1p(r), small = r * Real(0.5);
    Real delta = select(r > Real(1.0), big, small);  // w - 1, solving delta + log(1 + delta) = r
    for (int it = 0; it < 5; ++it) {
        const Real f = delta + log1p(delta) - r;
        const Real step = f * (Real(1.0) + delta) / (Real(2.0) + delta);
        delta = max(delta - step, delta * Real(0.1));
    }
    const Real a = Real(1.0) / (s[1] * delta), w = Real(1.0) + delta;
    Vec3<Real> z;
    z[0] = -a;
    z[2] = s[1] * w * a / s[2];
    z[1] = Real(1.0) / s[1] - a * (Real(1.0) + log(z[2] / a));
    return z;
}

// 1 - e^-q for q >= 0, without cancellation (Kahan).
template <class Real>
CL_HD inline Real one_minus_exp(const Real& q) {
    const Real u = exp(-q);
    const Mask<Real> middle = mask_and(u < Real(1.0), u > Real(0.0));
    const Real l = log(select(middle, u, Real(0.5)));
    return select(middle, (u - Real(1.0)) * q / l, min(q, Real(1.0)));
}

// Power: with r = psi / phi in (0, 1] one increasing equation; the variable is q = -log(1 - r).
template <class Real>
CL_HD inline Vec3<Real> shadow_power(double a, const Vec3<Real>& s) {
    const Real s3 = max(abs(s[2]), 1e-150);
    const Real rho = max(Real(2 * a) * log(s[0]) + Real(2 - 2 * a) * log(s[1]) - Real(2.0) * log(s3), 1e-300);
    const double c1 = (1 - a) / (2 * a), c2 = a / (2 * (1 - a));
    Real q = rho * Real(0.5);
    Real r(0.0);
    for (int it = 0; it < 12; ++it) {
        r = one_minus_exp(q);
        const Real p1 = Real(1.0) + Real(c1) * r, p2 = Real(1.0) + Real(c2) * r;
        const Real h = rho - q - Real(2 * a) * log1p(Real(c1) * r) - Real(2 - 2 * a) * log1p(Real(c2) * r);
        const Real slope = Real(1.0) + (Real(2 * a * c1) / p1 + Real((2 - 2 * a) * c2) / p2) * (Real(1.0) - r);
        q = max(q + h / slope, q * Real(0.1));
    }
    r = one_minus_exp(q);
    const Real t = Real(1.0) / max(r, 1e-300);
    Vec3<Real> z;
    z[0] = (Real(2 * a) * t + Real(1 - a)) / s[0];
    z[1] = (Real(2 - 2 * a) * t + Real(a)) / s[1];
    const Real phi = exp(Real(2 * a) * log(z[0] * Real(1 / a)) + Real(2 - 2 * a) * log(z[1] * Real(1 / (1 - a))));
    z[2] = Real(-0.5) * s[2] * phi * r;
    return z;
}

}  // namespace nonsymmetric
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// Exponential and power cones of three rows in the interior-point method: the primal-dual scaling, third-order correction,
// step length. The barriers are in barrier.hpp.
//
// Scaling: Dahl & Andersen, "A primal-dual interior-point algorithm for nonsymmetric exponential-cone optimization", Math.
// Program. 194 (2022); correction: Goulart & Chen, arXiv 2405.12762, section 4.
#pragma once

#include "barrier.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace nonsymmetric {

// The three columns of V with V V' = mu times the Hessian.
template <class Real>
CL_HD inline void dual_columns(const Real& mu, const Sym3<Real>& hess, Vec3<Real> (&V)[3]) {
    const Real tiny(1e-300), zero(0.0);
    const Real l00 = sqrt(max(mu * hess.v[0], tiny)), l10 = mu * hess.v[1] / l00, l20 = mu * hess.v[3] / l00;
    const Real l11 = sqrt(max(mu * hess.v[2] - l10 * l10, tiny)), l21 = (mu * hess.v[4] - l20 * l10) / l11;
    const Real l22 = sqrt(max(mu * hess.v[5] - l20 * l20 - l21 * l21, tiny));
    V[0] = {{l00, l10, l20}};
    V[1] = {{zero, l11, l21}};
    V[2] = {{zero, zero, l22}};
}

// Columns of V with H = V V', where H z = s and H shadow(s) = shadow(z) as far as that is numerically sound, else
// H = mu times the barrier's Hessian (always on `dual_only` lanes).
template <class Real>
CL_HD inline void scaling(const ConeBlock& cone, const Vec3<Real>& s, const Vec3<Real>& z, const Real& mu_all,
                          const Mask<Real>& dual_only, const Vec3<Real>& grad, const Sym3<Real>& hess,
                          Vec3<Real> (&V)[3]) {
    const Vec3<Real> zt = is_exponential(cone) ? shadow_exponential<Real>(s) : shadow_power<Real>(cone.alpha, s);
    const Real third_part(1.0 / 3.0);
    const Real sz = dot(s, z), mu = sz * third_part;
    const Real mut = -dot(grad, zt) * third_part;
    Vec3<Real> ds, dz, Hz = multiply(hess, zt), q;
    for (int i = 0; i < 3; ++i) {
        ds[i] = s[i] + mu * grad[i];
        dz[i] = z[i] - mu * zt[i];
        q[i] = Hz[i] + mut * grad[i];
    }
    const Real dsz = dot(ds, dz);
    const Real away = mu * mut - Real(1.0), curved = dot(zt, Hz) - Real(3.0) * mut * mut;
    Vec3<Real> axis = {{z[1] * zt[2] - z[2] * zt[1], z[2] * zt[0] - z[0] * zt[2], z[0] * zt[1] - z[1] * zt[0]}};
    const Real length2 = dot(axis, axis);
    Mask<Real> sound = mask_and(away > Real(1.5e-8), abs(curved) > Real(2.3e-16));
    sound = mask_and(sound, mask_and(sz > Real(0.0), dsz > Real(0.0)));
    sound = mask_and(sound, mask_and(mask_not(dual_only), length2 > Real(1e-300)));
    const Real icurved = Real(1.0) / select(sound, curved, Real(1.0));
    Real frobenius(0.0);
    for (int j = 0, e = 0; j < 3; ++j)
        for (int i = 0; i <= j; ++i, ++e) {
            const Real t = hess.v[e] - grad[i] * grad[j] * third_part - q[i] * q[j] * icurved;
            frobenius += Real(i == j ? 1.0 : 2.0) * t * t;
        }
    const Real along_s = Real(1.0) / sqrt(select(sound, sz, Real(1.0)));
    const Real along_ds = Real(1.0) / sqrt(select(sound, dsz, Real(1.0)));
    const Real across = sqrt(mu * sqrt(frobenius) / select(sound, length2, Real(1.0)));
    sound = mask_and(sound, is_finite(across));
    dual_columns(mu_all, hess, V);
    for (int i = 0; i < 3; ++i) {
        V[0][i] = select(sound, s[i] * along_s, V[0][i]);
        V[1][i] = select(sound, ds[i] * along_ds, V[1][i]);
        V[2][i] = select(sound, axis[i] * across, V[2][i]);
    }
}

// Solve a positive definite 3 x 3 system by Cholesky; zero on lanes where rounding has cost it its definiteness.
template <class Real>
CL_HD inline Vec3<Real> solve(const Sym3<Real>& H, const Vec3<Real>& b) {
    const Real zero(0.0), one(1.0);
    Mask<Real> definite = H.v[0] > zero;
    const Real d0 = select(definite, H.v[0], one), l10 = H.v[1] / d0, l20 = H.v[3] / d0;
    Real d1 = H.v[2] - l10 * H.v[1];
    definite = mask_and(definite, d1 > zero);
    d1 = select(definite, d1, one);
    const Real l21 = (H.v[4] - l20 * H.v[1]) / d1;
    Real d2 = H.v[5] - l20 * H.v[3] - l21 * l21 * d1;
    definite = mask_and(definite, d2 > zero);
    d2 = select(definite, d2, one);
    const Real y0 = b[0], y1 = b[1] - l10 * y0, y2 = b[2] - l20 * y0 - l21 * y1;
    Vec3<Real> x;
    x[2] = y2 / d2;
    x[1] = y1 / d1 - l21 * x[2];
    x[0] = y0 / d0 - l10 * x[1] - l20 * x[2];
    for (int i = 0; i < 3; ++i) x[i] = select(definite, x[i], zero);
    return x;
}

template <class Real>
CL_INLINE Vec3<Real> load(Arr<Real> p) { return {{p[0], p[1], p[2]}}; }

// V (9 packs, by columns, in the cone's own coordinates) and H = V V' packed.
template <class Real>
CL_HD inline void update(const ConeBlock& cone, Arr<Real> s, Arr<Real> z, const Real& mu,
                         const Mask<Real>& dual_only, Arr<Real> data, Arr<Real> h) {
    const Vec3<Real> sp = to_primal(cone, load<Real>(s)), zp = to_dual(cone, load<Real>(z));
    const Barrier<Real> f = barrier(cone, zp);
    Vec3<Real> V[3];
    scaling(cone, sp, zp, mu, dual_only, gradient(f, zp), hessian(f, zp), V);
    for (int k = 0; k < 3; ++k) {
        V[k] = from_primal(cone, V[k]);
        for (int i = 0; i < 3; ++i) data[3 * k + i] = V[k][i];
    }
    for (int j = 0, e = 0; j < 3; ++j)
        for (int i = 0; i <= j; ++i, ++e) h[e] = V[0][i] * V[0][j] + V[1][i] * V[1][j] + V[2][i] * V[2][j];
}

// out += factor V (V' u).
template <class Real>
CL_HD inline void apply(Arr<Real> data, const Real& factor, Arr<Real> u, Arr<Real> out) {
    const Vec3<Real> up = load<Real>(u);
    for (int k = 0; k < 3; ++k) {
        const Vec3<Real> v = load<Real>(data + 3 * k);
        const Real along = factor * dot(v, up);
        for (int i = 0; i < 3; ++i) out[i] += along * v[i];
    }
}

// shift += sigma_mu grad F(z) - 1/2 D^3 F(z)[dz, (D^2 F)^-1 ds].
template <class Real>
CL_HD inline void correct(const ConeBlock& cone, Arr<Real> z, Arr<Real> ds, Arr<Real> dz, const Real& sigma_mu,
                          Arr<Real> shift) {
    const Vec3<Real> zp = to_dual(cone, load<Real>(z));
    const Vec3<Real> dzp = to_dual(cone, load<Real>(dz)), dsp = to_primal(cone, load<Real>(ds));
    const Barrier<Real> f = barrier(cone, zp);
    const Vec3<Real> g = gradient(f, zp), u = solve(hessian(f, zp), dsp);
    const Vec3<Real> t = third(cone, f, zp, dzp, u);
    Vec3<Real> r;
    for (int i = 0; i < 3; ++i)
        r[i] = sigma_mu * g[i] - select(is_finite(t[i]), Real(0.5) * t[i], Real(0.0));
    r = from_primal(cone, r);
    for (int i = 0; i < 3; ++i) shift[i] += r[i];
}

// Whether both points, moved by alpha, are inside.
template <class Real>
CL_HD inline Mask<Real> inside(const ConeBlock& cone, const Vec3<Real>& s, const Vec3<Real>& ds, const Vec3<Real>& z,
                               const Vec3<Real>& dz, const Real& alpha) {
    Vec3<Real> a, b;
    for (int i = 0; i < 3; ++i) {
        a[i] = s[i] + alpha * ds[i];
        b[i] = z[i] + alpha * dz[i];
    }
    return mask_and(primal_interior(cone, a), dual_interior(cone, b));
}

// alpha if both points stay inside, else a step close to the boundary: backtracking by 0.8, then bisection of the
// last interval. 0 after 60 reductions.
template <class Real>
CL_HD inline Real max_step(const ConeBlock& cone, Arr<Real> s, Arr<Real> ds, Arr<Real> z, Arr<Real> dz,
                           const Real& alpha, const Real& fraction, const Mask<Real>& active) {
    const Vec3<Real> sp = to_primal(cone, load<Real>(s)), dsp = to_primal(cone, load<Real>(ds));
    const Vec3<Real> zp = to_dual(cone, load<Real>(z)), dzp = to_dual(cone, load<Real>(dz));
    Mask<Real> outside = mask_and(active, mask_not(inside(cone, sp, dsp, zp, dzp, alpha)));
    if (!any_lane(outside)) return alpha;
    const Mask<Real> reduced = outside;
    Real low = alpha;
    for (int it = 0; it < 60 && any_lane(outside); ++it) {
        low = select(outside, low * Real(0.8), low);
        outside = mask_and(outside, mask_not(inside(cone, sp, dsp, zp, dzp, low)));
    }
    Real high = low * Real(1.25);
    for (int it = 0; it < 3; ++it) {
        const Real middle = Real(0.5) * (low + high);
        const Mask<Real> in = inside(cone, sp, dsp, zp, dzp, middle);
        low = select(in, middle, low);
        high = select(in, high, middle);
    }
    return select(outside, Real(0.0), select(reduced, fraction * low, alpha));
}

// The point with s = -grad F(z), s' = z' in primal coordinates.
template <class Real>
CL_HD inline void initialise(const ConeBlock& cone, Arr<Real> s, Arr<Real> z) {
    Vec3<Real> p;
    if (is_exponential(cone))
        p = {{Real(-1.051383945322714), Real(0.556409619469370), Real(1.258967884768947)}};
    else
        p = {{Real(sqrt(1 + cone.alpha)), Real(sqrt(2 - cone.alpha)), Real(0.0)}};
    const Vec3<Real> a = from_primal(cone, p), b = from_dual(cone, p);
    for (int i = 0; i < 3; ++i) {
        s[i] = a[i];
        z[i] = b[i];
    }
}

}  // namespace nonsymmetric
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

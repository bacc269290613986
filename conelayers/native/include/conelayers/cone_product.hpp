// The product cone: each operation of the interior-point method, block by block.
//
// H is one array: the diagonal of zero and nonnegative blocks, the border of large second-order blocks (bordering.hpp),
// the upper triangle (packed by columns) of others.
#pragma once

#include "engine_layout.hpp"
#include "nonsymmetric.hpp"
#include "pack.hpp"
#include "second_order.hpp"
#include "semidefinite.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace cone_product {

CL_INLINE bool diagonal_block(const ConeBlock& c) { return c.kind <= kNonnegative; }
CL_INLINE bool is(const ConeBlock& c, ConeKind kind) { return compiled_cone(kind) && c.kind == kind; }
CL_INLINE bool nonsymmetric_block(const ConeBlock& c) {
    return (CONELAYERS_CONES >> kExponential & 0xf) != 0 && c.kind >= kExponential;
}

// Scaling at (s, z): H and what the corrections need. work, here and below: 4 max_order^2 packs, and at least 2 m.
template <class Real>
CL_HD inline void update(const EngineView& view, Arr<Real> s, Arr<Real> z, const Real& mu,
                         const Mask<Real>& dual_only, Arr<Real> h, Arr<Real> scaling, Arr<Real> work) {
    const Deal deal;
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        Arr<Real> sb = s + c.row, zb = z + c.row, hb = h + c.h, data = scaling + c.scaling;
        if (c.kind == kZero)
            for (int i : each(c.dim)) hb[i] = Real(0.0);
        else if (c.kind == kNonnegative)
            for (int i : each(c.dim)) hb[i] = sb[i] / zb[i];
        else if (is(c, kSecondOrder))
            alone(b, [&] { second_order::update<Real>(c.dim, c.sparse != 0, sb, zb, data, hb); });
        else if (is(c, kSemidefinite))
            alone([&] { semidefinite::update<Real>(c.order, sb, zb, data, hb, work); });
        else if (nonsymmetric_block(c))
            alone(b, [&] { nonsymmetric::update<Real>(c, sb, zb, mu, dual_only, data, hb); });
    }
}

// H = I on the symmetric cones, 0 on zero cones: for the starting point.
template <class Real>
CL_HD inline void identity(const EngineView& view, Arr<Real> h) {
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        Arr<Real> hb = h + c.h;
        if (diagonal_block(c)) {
            for (int i : each(c.dim)) hb[i] = Real(c.kind == kZero ? 0.0 : 1.0);
            continue;
        }
        if (c.sparse) {
            alone([&] { second_order::identity_border<Real>(c.dim, hb); });
            continue;
        }
        for (int j : each(c.dim))
            for (int i = 0, e = j * (j + 1) / 2; i <= j; ++i, ++e) hb[e] = Real(i == j ? 1.0 : 0.0);
    }
}

// out += factor H u. Scaled blocks are applied as W (W u) and R (R'U R) R': near the boundary H has eigenvalues of
// very different size, and the entries of H itself no longer hold the small ones. identity: H is that of `identity`.
template <class Real>
CL_HD inline void multiply(const EngineView& view, Arr<Real> h, Arr<Real> scaling, bool identity, const Real& factor,
                           Arr<Real> u, Arr<Real> out, Arr<Real> work) {
    const Deal deal;
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        Arr<Real> hb = h + c.h, ub = u + c.row, ob = out + c.row, data = scaling + c.scaling;
        if (c.kind == kZero) continue;
        if (c.kind == kNonnegative) {
            for (int i : each(c.dim)) ob[i] += factor * hb[i] * ub[i];
        } else if (identity) {
            for (int i : each(c.dim)) ob[i] += factor * ub[i];
        } else if (is(c, kSecondOrder)) {
            alone(b, [&] {
                Arr<Real> once = work + 2 * c.row, twice = once + c.dim;
                const Real eta = data[2 * c.dim];
                second_order::scale<Real, false>(c.dim, data, eta, ub, once);
                second_order::scale<Real, false>(c.dim, data, eta, once, twice);
                for (int i = 0; i < c.dim; ++i) ob[i] += factor * twice[i];
            });
        } else if (nonsymmetric_block(c)) {
            alone(b, [&] { nonsymmetric::apply<Real>(data, factor, ub, ob); });
        } else if (is(c, kSemidefinite)) {
            alone([&] { semidefinite::apply<Real>(c.order, data, factor, ub, ob, work); });
        }
    }
}

// shift += the second-order (symmetric cones) or third-order correction and the centring term sigma_mu.
template <class Real>
CL_HD inline void correct(const EngineView& view, Arr<Real> z, Arr<Real> ds, Arr<Real> dz, const Real& sigma_mu,
                          Arr<Real> scaling, Arr<Real> shift, Arr<Real> work) {
    const Deal deal;
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        Arr<Real> zb = z + c.row, dsb = ds + c.row, dzb = dz + c.row, out = shift + c.row, data = scaling + c.scaling;
        if (c.kind == kZero) continue;
        if (c.kind == kNonnegative)
            for (int i : each(c.dim)) out[i] += (dsb[i] * dzb[i] - sigma_mu) / zb[i];
        else if (is(c, kSecondOrder))
            alone(b, [&] {
                Arr<Real> own = work + 2 * c.row;
                second_order::correct<Real>(c.dim, data, dsb, dzb, sigma_mu, out, own, own + c.dim);
            });
        else if (is(c, kSemidefinite))
            alone([&] { semidefinite::correct<Real>(c.order, data, dsb, dzb, sigma_mu, out, work); });
        else if (nonsymmetric_block(c))
            alone(b, [&] { nonsymmetric::correct<Real>(c, zb, dsb, dzb, sigma_mu, out); });
    }
}

// The largest step in [0, alpha] that keeps s and z in their cones (backtracking for nonsymmetric ones).
template <class Real>
CL_HD inline Real max_step(const EngineView& view, Arr<Real> s, Arr<Real> ds, Arr<Real> z, Arr<Real> dz,
                           Arr<Real> scaling, Real alpha, const Real& fraction, const Mask<Real>& active,
                           Arr<Real> work) {
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        Arr<Real> sb = s + c.row, zb = z + c.row, dsb = ds + c.row, dzb = dz + c.row, data = scaling + c.scaling;
        if (c.kind == kNonnegative) {
            Real worst(0.0);  // largest relative decrease per unit step
            for (int i : each(c.dim)) worst = max(worst, max(-dsb[i] / sb[i], -dzb[i] / zb[i]));
            worst = all_max(worst);
            alpha = min(alpha, fraction / max(worst, 1e-300));
        } else if (is(c, kSecondOrder)) {
            alone(b, [&] {
                alpha = min(alpha, fraction * min(second_order::max_step<Real>(c.dim, sb, dsb),
                                                  second_order::max_step<Real>(c.dim, zb, dzb)));
            });
        } else if (is(c, kSemidefinite)) {
            const int k = c.order;
            Arr<Real> lambda = data + 2 * k * k;
            Real longest(0.0);
            alone([&] {
                const Real a = semidefinite::max_step<Real, false>(k, data + k * k, lambda, dsb, work);
                const Real z_step = semidefinite::max_step<Real, true>(k, data, lambda, dzb, work);
                longest = min(a, z_step);
            });
            alpha = min(alpha, fraction * from_one(longest));
        }
    }
    alpha = all_min(alpha);
    for (int b = 0; b < view.cones && !view.symmetric; ++b) {
        const ConeBlock& c = view.cone[b];
        if (!nonsymmetric_block(c)) continue;
        alone(b, [&] {
            alpha = nonsymmetric::max_step<Real>(c, s + c.row, ds + c.row, z + c.row, dz + c.row, alpha, fraction, active);
        });
    }
    return view.symmetric ? alpha : all_min(alpha);
}

// The central point s = z = e (nonsymmetric: s = -grad F(z)).
template <class Real>
CL_HD inline void initialise(const EngineView& view, Arr<Real> s, Arr<Real> z) {
    const Deal deal;
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        if (nonsymmetric_block(c)) {
            alone(b, [&] { nonsymmetric::initialise<Real>(c, s + c.row, z + c.row); });
            continue;
        }
        alone(b, [&] {
            for (int i = 0, column = 0, next = 0; i < c.dim; ++i) {
                bool one = c.kind == kNonnegative || (is(c, kSecondOrder) && i == 0);
                if (is(c, kSemidefinite) && i == next) {
                    one = true;
                    next += c.order - column++;
                }
                s[c.row + i] = z[c.row + i] = Real(one ? 1.0 : 0.0);
            }
        });
    }
}

// u := u + (1 - margin) e where u is not well inside a symmetric cone.
template <class Real>
CL_HD inline void shift_inside(const EngineView& view, Arr<Real> u, bool dual, Arr<Real> work) {
    Real margin(1e300);
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        Arr<Real> ub = u + c.row;
        if (c.kind == kNonnegative)
            for (int i = 0; i < c.dim; ++i) margin = min(margin, ub[i]);
        else if (is(c, kSecondOrder))
            alone(b, [&] { margin = min(margin, second_order::margin<Real>(c.dim, ub)); });
        else if (is(c, kSemidefinite))
            alone([&] { margin = min(margin, semidefinite::margin<Real>(c.order, ub, work)); });
        else if (c.kind == kZero && !dual)
            for (int i : each(c.dim)) ub[i] = Real(0.0);
    }
    margin = all_min(margin);
    const Real add = select(margin < Real(1e-2), Real(1.0) - margin, Real(0.0));
    const Deal deal;
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        Arr<Real> ub = u + c.row;
        if (c.kind == kNonnegative)
            for (int i : each(c.dim)) ub[i] += add;
        else if (is(c, kSecondOrder))
            alone(b, [&] { ub[0] += add; });
        else if (is(c, kSemidefinite))
            alone(b, [&] {
                for (int j = 0, e = 0; j < c.order; e += c.order - j, ++j) ub[e] += add;
            });
    }
}

}  // namespace cone_product
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

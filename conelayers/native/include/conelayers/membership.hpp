// Whether s lies in K and y in K* up to a small part of their own size, block by block.
//
// Second-order blocks by their norms, semidefinite ones by a Cholesky factorization of the shifted matrix, at a fraction of what an
// eigendecomposition costs; exponential and power ones by whether a point beside them satisfies the inequality of the cone,
// for a fraction of a projection. Polyhedral blocks of a projected point are exact.
#pragma once

#include "derivative.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

constexpr double kOutside = 1e-9;

namespace membership_detail {

// Whether u is outside the cone t >= |w| by more than `slack`.
template <class Real>
CL_HD inline Mask<Real> second_order_outside(int dim, Arr<Real> u, const Real& slack) {
    Real norm(0.0);
    for (int i : each(1, dim)) norm += u[i] * u[i];
    norm = sqrt(all_sum(norm));
    return mask_not(u[0] >= norm - slack);
}

// Whether the matrix of u + slack I has a pivot that is not positive. work: order^2 packs.
template <class Real>
CL_HD inline Mask<Real> semidefinite_outside(int order, Arr<Real> u, const Real& slack, Arr<Real> work) {
    const Real half(0.70710678118654752440), zero(0.0), one(1.0);
    Mask<Real> outside = zero > one;
    for (int j = 0, e = 0; j < order; ++j)
        for (int i = j; i < order; ++i, ++e) work[i * order + j] = i == j ? u[e] + slack : u[e] * half;
    for (int j = 0; j < order; ++j) {
        const Real pivot = work[j * order + j];
        const Mask<Real> positive = pivot > zero;
        outside = mask_or(outside, mask_not(positive));
        const Real inverse = one / select(positive, pivot, one);
        for (int i = j + 1; i < order; ++i) {
            const Real factor = work[i * order + j] * inverse;
            for (int k = j + 1; k <= i; ++k) work[i * order + k] = work[i * order + k] - factor * work[k * order + j];
        }
    }
    return outside;
}

// Whether no point within `slack` in each entry has a > 0, c > 0 and a log(c / a) + d >= 0, the exponential cone where
// (a, c, d) = (y, z, -x) and its dual where (a, c, d) = (-u, e w, v).
template <class Real>
CL_HD inline Mask<Real> exponential_outside(const Real& a, const Real& c, const Real& d, const Real& slack) {
    const Real zero(0.0), one(1.0);
    Mask<Real> inside = zero > one;
    for (int k = -1; k <= 1; ++k) {
        const Real near = max(a + Real(double(k)) * slack, zero), far = c + slack;
        const auto open = mask_and(near > zero, far > zero);
        const Real margin = select(open, near * log(select(open, far / select(open, near, one), one)), zero) + d + slack;
        inside = mask_or(inside, mask_and(mask_and(a + slack >= zero, far >= zero), margin >= zero));
    }
    return mask_not(inside);
}

// The same for x^alpha y^(1 - alpha) >= |z|.
template <class Real>
CL_HD inline Mask<Real> power_outside(double alpha, const Real& x, const Real& y, const Real& z, const Real& slack) {
    const Real zero(0.0), one(1.0), first = x + slack, second = y + slack, rest = abs(z) - slack;
    const auto open = mask_and(mask_and(first > zero, second > zero), rest > zero);
    const Real margin = Real(alpha) * log(select(open, first / select(open, rest, one), one)) +
                        Real(1.0 - alpha) * log(select(open, second / select(open, rest, one), one));
    const auto flat = mask_and(mask_and(first >= zero, second >= zero), rest <= zero);
    return mask_not(mask_or(flat, mask_and(open, margin >= zero)));
}

// Whether u is outside a block's cone, or its dual.
template <class Real>
CL_HD inline Mask<Real> three_outside(const ProjectionBlock& block, Arr<Real> u, bool dual, const Real& slack) {
    const double alpha = block.parameter;
    if (block.kind == kDualExponentialBlock || block.kind == kDualPowerBlock) dual = !dual;
    if (block.kind == kExponentialBlock || block.kind == kDualExponentialBlock) {
        if (!dual) return exponential_outside<Real>(u[1], u[2], -u[0], slack);
        return exponential_outside<Real>(-u[0], u[2] * Real(2.7182818284590452354), u[1], slack);
    }
    if (!dual) return power_outside<Real>(alpha, u[0], u[1], u[2], slack);
    return power_outside<Real>(alpha, u[0] * Real(1.0 / alpha), u[1] * Real(1.0 / (1.0 - alpha)), u[2], slack);
}

}  // namespace membership_detail

// Lanes in which a block of s or y is outside. size: of the rows of A.
template <class Real>
CL_HD inline Mask<Real> outside_cones(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> y, Arr<Real> s,
                                      Arr<Real> size) {
    using namespace membership_detail;
    Mask<Real> outside = Real(0.0) > Real(1.0);
    for (int b = 0; b < view.cone.blocks; ++b) {
        const ProjectionBlock& block = view.cone.block[b];
        if (is_polyhedral(block.kind)) continue;
        Real slack(0.0), price(1e-4);
        for (int i : each(block.first, block.first + block.dim)) slack = max(slack, size[i]), price = max(price, abs(y[i]));
        join_max(slack, price);
        const Real of_s = Real(kOutside) * max(slack, Real(1e-4)), of_y = Real(kOutside) * price;
        if (block.kind == kSecondOrderBlock) {
            outside = mask_or(outside, second_order_outside<Real>(block.dim, s + block.first, of_s));
            outside = mask_or(outside, second_order_outside<Real>(block.dim, y + block.first, of_y));
            continue;
        }
        if (block.kind >= kExponentialBlock) {
            outside = mask_or(outside, three_outside<Real>(block, s + block.first, false, of_s));
            outside = mask_or(outside, three_outside<Real>(block, y + block.first, true, of_y));
            continue;
        }
        Mask<Real> found = Real(0.0) > Real(1.0);
        alone([&] { found = semidefinite_outside<Real>(block.order, s + block.first, of_s, w.scratch); });
        outside = mask_or(outside, found);
        alone([&] { found = semidefinite_outside<Real>(block.order, y + block.first, of_y, w.scratch); });
        outside = mask_or(outside, found);
    }
    return all_any(outside);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

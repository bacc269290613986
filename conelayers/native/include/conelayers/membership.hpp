// Whether s lies in K and y in K* up to a small part of their own size, block by block.
//
// Second-order blocks by their norms, semidefinite ones by a Cholesky factorization of the shifted matrix, at a fraction of what an
// eigendecomposition costs. Polyhedral blocks of a projected point are exact, exponential and power ones end on the boundary
// by construction.
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

}  // namespace membership_detail

// Lanes in which a block of s or y is outside. size: of the rows of A.
template <class Real>
CL_HD inline Mask<Real> outside_cones(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> y, Arr<Real> s,
                                      Arr<Real> size) {
    using namespace membership_detail;
    Mask<Real> outside = Real(0.0) > Real(1.0);
    for (int b = 0; b < view.cone.blocks; ++b) {
        const ProjectionBlock& block = view.cone.block[b];
        if (block.kind != kSecondOrderBlock && block.kind != kSemidefiniteBlock) continue;
        Real slack(0.0), price(1e-4);
        for (int i : each(block.first, block.first + block.dim)) slack = max(slack, size[i]), price = max(price, abs(y[i]));
        join_max(slack, price);
        const Real of_s = Real(kOutside) * max(slack, Real(1e-4)), of_y = Real(kOutside) * price;
        if (block.kind == kSecondOrderBlock) {
            outside = mask_or(outside, second_order_outside<Real>(block.dim, s + block.first, of_s));
            outside = mask_or(outside, second_order_outside<Real>(block.dim, y + block.first, of_y));
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

// Units of curved blocks in which slack and multiplier are of one size.
//
// On a curved cone both are carried by v = y - s, where the smaller of the two has the rounding of the larger one. Multiplying
// the rows of a block by u turns s into u s and y into y / u. Here u is a power of two, so that nothing is rounded, and one
// unless both parts are there (a block with y = 0 or s = 0 has no digits to lose) and one is far larger. Rows of nonnegative
// cones lose no digits, but the sign of v, by which Newton steps begin, is a matter of units: theirs are those of the
// interior-point method where these are far from the programme's.
#pragma once

#include "derivative.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

constexpr double kFarLarger = 131072.0;  // sizes up to this ratio are left as they are: 1e-11 of the smaller one is lost
constexpr double kFarFromOne = 64.0;   // units of single rows nearer than this are left as they are
constexpr double kBothThere = 0.01;    // s'y is at most this part of |s| |y| where neither tends to zero

// The power of two at or below a positive number.
template <class Real>
CL_INLINE Real leading_power(const Real& value) {
    return from_bits(value, to_bits(value) & 0x7ff0000000000000LL);
}

// Lanes in which the units of rows of nonnegative cones are not near one.
template <class Real>
CL_HD inline Mask<Real> rows_far_from_one(const DerivativeView& view, Arr<Real> unit) {
    Mask<Real> apart = Real(0.0) > Real(1.0);
    for (int b = 0; b < view.cone.blocks; ++b) {
        const ProjectionBlock& block = view.cone.block[b];
        if (block.kind != kNonnegativeBlock) continue;
        for (int i : each(block.first, block.first + block.dim)) {
            apart = mask_or(apart, mask_or(unit[i] > Real(kFarFromOne), unit[i] * Real(kFarFromOne) < Real(1.0)));
        }
    }
    return apart;
}

// unit = u of each row, from a point near the solution; those of nonnegative cones from what stands there, the units in which
// s and y have been judged so far. Returns the lanes in which some are not one.
template <class Real>
CL_HD inline Mask<Real> find_units(const DerivativeView& view, Arr<Real> y, Arr<Real> s, Arr<Real> unit) {
    const Real zero(0.0), one(1.0);
    Mask<Real> uneven = zero > one;
    for (int b = 0; b < view.cone.blocks; ++b) {
        const ProjectionBlock& block = view.cone.block[b];
        if (is_polyhedral(block.kind)) {
            for (int i : each(block.first, block.first + block.dim)) {
                const Real u = unit[i], far(kFarFromOne);
                Mask<Real> apart = mask_and(mask_or(u > far, u * far < one), mask_and(u > Real(1e-50), u < Real(1e50)));
                if (block.kind != kNonnegativeBlock) apart = zero > one;
                uneven = mask_or(uneven, apart);
                unit[i] = select(apart, leading_power(u), one);
            }
            continue;
        }
        Real slack = zero, price = zero, product = zero;
        for (int i : each(block.first, block.first + block.dim)) {
            slack += s[i] * s[i], price += y[i] * y[i], product += s[i] * y[i];
        }
        join_sum(slack, price, product);
        const Mask<Real> both = mask_and(product * product <= Real(kBothThere * kBothThere) * slack * price,
                                         mask_and(slack > Real(1e-200), price > Real(1e-200)));
        const Real ratio = select(both, price / select(both, slack, one), one), far(kFarLarger * kFarLarger);
        const Mask<Real> apart = mask_and(mask_or(ratio > far, ratio * far < one), ratio < Real(1e100));
        uneven = mask_or(uneven, apart);
        const Real u = select(apart, leading_power(sqrt(sqrt(ratio))), one);  // both are squares
        for (int i : each(block.first, block.first + block.dim)) unit[i] = u;
    }
    return all_any(uneven);
}

// A and b into the units, or with 1 / unit out of them.
template <class Real>
CL_HD inline void apply_units(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> b, Arr<Real> unit) {
    for (int k : each(view.a_entries)) w.a[k] = w.a[k] * unit[view.a_row[k]];
    for (int i : each(view.m)) b[i] = b[i] * unit[i];
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

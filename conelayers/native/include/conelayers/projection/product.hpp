// The projection on the dual of a product of cones and its Clarke element D, block by block.
#pragma once

#include "layout.hpp"
#include "exponential.hpp"
#include "power.hpp"
#include "second_order.hpp"
#include "semidefinite.hpp"
#include "smoothed.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

CL_INLINE bool is(const ProjectionBlock& block, BlockKind kind) { return compiled_cone(kind) && block.kind == kind; }
CL_INLINE bool is_three(const ProjectionBlock& block) {
    return (CONELAYERS_CONES >> kExponentialBlock & 0xf) != 0 && block.kind >= kExponentialBlock;
}

// Three-dimensional cones: y = Pi_{K*}(v) with K the block's cone; guess: near y - v, or zero.
template <class Real>
CL_HD inline void project_three(const ProjectionBlock& block, const Real* v, const Real* guess, double mu, Real* y,
                                Real* element) {
    if (mu > 0.0) return Smoothed::project(block, v, mu, y, element);
    const bool exponential = block.kind == kExponentialBlock || block.kind == kDualExponentialBlock;
    const bool dual = block.kind == kDualExponentialBlock || block.kind == kDualPowerBlock;
    Real point[3], near[3];
    for (int i = 0; i < 3; ++i) {
        point[i] = dual ? v[i] : -v[i];
        near[i] = dual ? v[i] + guess[i] : guess[i];
    }
    if (exponential) Exponential::project(point, near, !dual, y, element);
    else Power::project(block.parameter, point, near, !dual, y, element);
    if (!dual) ThreeDimensional::dualize(v, y, element);
}

// y = Pi_{K*}(v), elements of all blocks; mu > 0: the smoothed projection y + mu grad F*(y) = v. guess: an array near
// y - v (which saves iterations), or zeros; it may be y or v.
template <class Real>
CL_HD inline void project_dual(const ProjectionView& cone, Arr<Real> v, Arr<Real> guess, double mu, Arr<Real> y,
                               Arr<Real> element, Arr<Real> scratch) {
    const Deal deal;
    for (int b = 0; b < cone.blocks; ++b) {
        const ProjectionBlock& block = cone.block[b];
        Arr<Real> in = v + block.first, out = y + block.first, e = element + block.element;
        if (block.kind == kZeroBlock) {
            for (int i : each(block.dim)) out[i] = in[i];
        } else if (block.kind == kFreeBlock) {
            for (int i : each(block.dim)) out[i] = Real(0.0);
        } else if (block.kind == kNonnegativeBlock) {
            for (int i : each(block.dim)) {
                const Real value = in[i], gap = root_gap(value, mu);
                e[i] = divided_difference(value, value, gap, gap);
                out[i] = positive_part(value, mu);
            }
        } else if (is(block, kSecondOrderBlock)) {
            alone(b, [&] { SecondOrder::project<Real>(block.dim, in, mu, out, e); });
        } else if (is(block, kSemidefiniteBlock)) {
            alone([&] { Semidefinite::project<Real>(block.order, in, mu, out, e, scratch); });
        } else if (is_three(block)) {
            alone(b, [&] {
                Real point[3], near[3], image[3], local[ThreeDimensional::element_size];
                for (int i = 0; i < 3; ++i) point[i] = in[i], near[i] = guess[block.first + i];
                project_three(block, point, near, mu, image, local);
                for (int i = 0; i < 3; ++i) out[i] = image[i];
                for (int i = 0; i < ThreeDimensional::element_size; ++i) e[i] = local[i];
            });
        }
    }
}

template <class Real>
CL_HD inline void load_element(Arr<Real> element, Real* local) {
    for (int i = 0; i < ThreeDimensional::element_size; ++i) local[i] = element[i];
}

// out = D x; out may not be x.
template <class Real>
CL_HD inline void apply_derivative(const ProjectionView& cone, Arr<Real> element, Arr<Real> x, Arr<Real> out,
                                   Arr<Real> scratch) {
    const Deal deal;
    for (int b = 0; b < cone.blocks; ++b) {
        const ProjectionBlock& block = cone.block[b];
        Arr<Real> in = x + block.first, to = out + block.first, e = element + block.element;
        if (block.kind == kZeroBlock) {
            for (int i : each(block.dim)) to[i] = in[i];
        } else if (block.kind == kFreeBlock) {
            for (int i : each(block.dim)) to[i] = Real(0.0);
        } else if (block.kind == kNonnegativeBlock) {
            for (int i : each(block.dim)) to[i] = e[i] * in[i];
        } else if (is(block, kSecondOrderBlock)) {
            alone(b, [&] { SecondOrder::apply<Real>(block.dim, e, in, to); });
        } else if (is(block, kSemidefiniteBlock)) {
            alone([&] { Semidefinite::apply<Real>(block.order, e, in, to, scratch); });
        } else if (is_three(block)) {
            alone(b, [&] {
                Real local[ThreeDimensional::element_size], point[3], image[3];
                load_element<Real>(e, local);
                for (int i = 0; i < 3; ++i) point[i] = in[i];
                ThreeDimensional::apply(local, point, image);
                for (int i = 0; i < 3; ++i) to[i] = image[i];
            });
        }
    }
}

// The block's entries of W = D^-1 - I with eigenvalues at most ceiling.
template <class Real>
CL_HD inline void block_weight(const ProjectionBlock& block, Arr<Real> element, Real ceiling, Arr<Real> w,
                               Arr<Real> scratch) {
    Arr<Real> e = element + block.element;
    if (block.kind == kZeroBlock) {
        for (int i : each(block.dim)) w[i] = Real(0.0);
    } else if (block.kind == kFreeBlock) {
        for (int i : each(block.dim)) w[i] = ceiling;
    } else if (block.kind == kNonnegativeBlock) {
        for (int i : each(block.dim)) w[i] = weight(e[i], ceiling);
    } else if (is(block, kSecondOrderBlock)) {
        alone([&] { SecondOrder::weight<Real>(block.dim, e, ceiling, w); });
    } else if (is(block, kSemidefiniteBlock)) {
        alone([&] { Semidefinite::weight<Real>(block.order, e, ceiling, w, scratch); });
    } else if (is_three(block)) {
        Real local[ThreeDimensional::element_size], entries[6];
        load_element<Real>(e, local);
        ThreeDimensional::weight(local, ceiling, entries);
        alone([&] {
            for (int i = 0; i < 6; ++i) w[i] = entries[i];
        });
    }
}

// 1 where D may be non-zero on row `row` of the block, 0 where the block of D (or its diagonal entry) vanishes.
template <class Real>
CL_HD inline Real block_activity(const ProjectionBlock& block, Arr<Real> element, int row) {
    const Real zero = Real(0.0), one = Real(1.0);
    Arr<Real> e = element + block.element;
    if (block.kind == kZeroBlock) return one;
    if (block.kind == kFreeBlock) return zero;
    Real largest = zero;
    if (block.kind == kNonnegativeBlock) {
        largest = e[row];
    } else if (is(block, kSecondOrderBlock)) {
        largest = max(e[0], max(e[1], e[2]));
    } else if (is(block, kSemidefiniteBlock)) {
        Arr<Real> l = e + block.order * block.order, gap = l + block.order;
        for (int i = 0; i < block.order; ++i) largest = max(largest, l[i] + gap[i]);
    } else if (is_three(block)) {
        for (int i = 9; i < 12; ++i) largest = max(largest, e[i]);
    }
    return select(largest > zero, one, zero);
}

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

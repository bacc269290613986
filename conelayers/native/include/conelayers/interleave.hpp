// From rows of items to lanes and back: values (items, count) row-major <-> packs [entry][lane].
#pragma once

#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// Which item each lane of a pack holds. Lanes without one repeat the first lane's and write nothing.
template <class Real>
struct PackItems {
    int item[lanes<Real>];
    bool occupied[lanes<Real>];

    PackItems() = default;
    PackItems(int first, int items) {  // items: at least 1
        for (int l = 0; l < lanes<Real>; ++l) {
            occupied[l] = l < items;
            item[l] = occupied[l] ? first + l : first;
        }
    }
};

// data: (items, count) row-major; stride 0: one row shared by all items.
template <class Real>
inline void interleave(const double* data, long long stride, const PackItems<Real>& items, long long count, Real* out) {
    constexpr int W = lanes<Real>;
    const double* row[W];
    for (int l = 0; l < W; ++l) row[l] = data + stride * items.item[l];
    if (stride == 0) {
        for (long long e = 0; e < count; ++e) out[e] = Real(row[0][e]);
        return;
    }
    for (long long e = 0; e < count; ++e) {
        Real r(0.0);
        CL_UNROLL
        for (int l = 0; l < W; ++l) set_lane(r, l, row[l][e]);
        out[e] = r;
    }
}

// out: (items, count) row-major with the given stride.
template <class Real>
inline void deinterleave(const Real* in, long long count, const PackItems<Real>& items, double* out, long long stride) {
    constexpr long long kBlock = 64;  // packs that stay in the nearest cache while every lane reads its part
    for (long long begin = 0; begin < count; begin += kBlock) {
        const long long end = begin + kBlock < count ? begin + kBlock : count;
        for (int l = 0; l < lanes<Real>; ++l) {
            if (!items.occupied[l]) continue;
            double* row = out + stride * items.item[l];
            for (long long e = begin; e < end; ++e) row[e] = get_lane(in[e], l);
        }
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// From rows of items to lanes and back: values (items, count) row-major <-> packs [entry][lane].
#pragma once

#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// Rows of one pack of items. stride 0: one row shared by all items. Lanes beyond `items` repeat the last one.
struct ItemRows {
    const double* data;
    long long stride;
    int first;
    int items;  // in this pack, at least 1

    const double* row(int lane) const { return data + stride * (first + (lane < items ? lane : items - 1)); }
};

template <class Real>
inline void interleave(const ItemRows& rows, long long count, Real* out) {
    constexpr int W = lanes<Real>;
    const double* row[W];
    for (int l = 0; l < W; ++l) row[l] = rows.row(l);
    if (rows.stride == 0) {
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

// out: (items, count) row-major with the given stride; only the first `items` lanes are written.
template <class Real>
inline void deinterleave(const Real* in, long long count, double* out, long long stride, int first, int items) {
    for (int l = 0; l < items; ++l) {
        double* row = out + stride * (first + l);
        for (long long e = 0; e < count; ++e) row[e] = get_lane(in[e], l);
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

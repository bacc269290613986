// Vectors of packs.
#pragma once

#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Real>
CL_HD inline Real dot(int count, Arr<Real> a, Arr<Real> b) {
    Real r(0.0);
    for (int i : each(count)) r += a[i] * b[i];
    return all_sum(r);
}

template <class Real>
CL_HD inline Real norm_inf(Arr<Real> u, int count) {
    Real r(0.0);
    for (int i : each(count)) r = max(r, abs(u[i]));
    return all_max(r);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

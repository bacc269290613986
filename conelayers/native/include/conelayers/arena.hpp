// Memory of one pack: everything is handed out from arenas, so that a kernel allocates nothing.
#pragma once

#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// With counting set, only the size is counted and the arrays handed out are not to be used.
template <class Real>
struct Arena {
    Arr<Real> base;
    bool counting;
    long long used = 0;

    CL_HD Arr<Real> take(long long count) {
        Arr<Real> r = counting ? base : base + used;
        used += count;
        return r;
    }
};

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

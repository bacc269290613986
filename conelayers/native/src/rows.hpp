// Batched values as kernels are given them.
#pragma once

namespace conelayers {

// Values (items, count) row-major; stride 0: one row shared by all items.
struct Rows {
    const double* data;
    long long stride;
};

}  // namespace conelayers

// The LDL^T kernels of one instruction set, as seen by the bindings.
#pragma once

#include "conelayers/layout.hpp"

namespace conelayers {

struct LdltKernels {
    int width;  // lanes per pack
    // Factor items [first, first + items) of values (batch, entries); stride 0: one row shared by the batch.
    void (*factor)(const LdltView&, const double* values, long long stride, int first, int items, double* factor,
                   double* inverse, double* work, const signed char* signs, const PivotRule&);
    // Solve for `count` right-hand sides of each item: rhs and solution (batch, count, n) row-major.
    void (*solve)(const LdltView&, const double* factor, const double* inverse, const double* rhs, int count,
                  int first, int items, double* solution, double* work);
};

// Kernels of arch (0 portable, 1 AVX2, 2 AVX-512); `single`: one problem at a time.
const LdltKernels& ldlt_kernels(int arch, bool single);

namespace kernels_portable { extern const LdltKernels ldlt_pack, ldlt_single; }
namespace kernels_avx2 { extern const LdltKernels ldlt_pack, ldlt_single; }
namespace kernels_avx512 { extern const LdltKernels ldlt_pack, ldlt_single; }

}  // namespace conelayers

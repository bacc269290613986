// The interior-point kernels of one instruction set, as seen by the bindings.
#pragma once

#include "conelayers/engine_layout.hpp"

namespace conelayers {

// Batched data, row-major; stride 0: one row shared by all items.
struct EngineData {
    const double *P, *q, *A, *b;
    long long P_stride, q_stride, A_stride, b_stride;
};

// Results, row-major over the batch.
struct EngineResult {
    double *x, *y, *s, *primal_residual, *dual_residual, *gap;
    signed char* status;
    long long* iterations;
};

struct EngineKernels {
    int width;
    long long (*scratch)(const EngineView&, const EngineSettings&);  // doubles per worker
    void (*solve)(const EngineView&, const EngineSettings&, const EngineData&, int first, int items,
                  double* scratch, const EngineResult&);
};

namespace kernels_portable { extern const EngineKernels engine_pack, engine_single; }
namespace kernels_avx2 { extern const EngineKernels engine_pack, engine_single; }
namespace kernels_avx512 { extern const EngineKernels engine_pack, engine_single; }

}  // namespace conelayers

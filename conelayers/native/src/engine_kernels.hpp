// The interior-point kernels of one instruction set, as seen by the bindings.
#pragma once

#include <atomic>

#include "conelayers/derivative_layout.hpp"
#include "conelayers/engine_layout.hpp"
#include "rows.hpp"

namespace conelayers {

// Results, row-major over the batch.
struct EngineResult {
    double *x, *y, *s, *primal_residual, *dual_residual, *gap;
    signed char* status;
    long long* iterations;
};

// A batch to solve. derivative: the same family's, for the Newton steps at the end; null for none. start: points to try them
// from before anything else; null data for none.
struct EngineProblem {
    const EngineView* view;
    const DerivativeView* derivative;
    EngineSettings settings;
    Rows P, q, A, b;
    Rows start_x, start_y, start_s;
    int items;
    const int* chosen;  // which items these are; null: all from the first on
    EngineResult result;
};

struct EngineKernels {
    int width;
    long long (*scratch)(const EngineProblem&);  // doubles per worker
    // One worker's part: packs of `width` items, the first item of each drawn from `next`, until all are drawn.
    void (*solve)(const EngineProblem&, std::atomic<int>& next, double* scratch);
    // Likewise, by Newton steps from the given points alone; items that these do not solve get the status kRunning.
    void (*solve_from_start)(const EngineProblem&, std::atomic<int>& next, double* scratch);
};

namespace kernels_portable { extern const EngineKernels engine_pack, engine_single; }
namespace kernels_avx2 { extern const EngineKernels engine_pack, engine_single; }
namespace kernels_avx512 { extern const EngineKernels engine_pack, engine_single; }

}  // namespace conelayers

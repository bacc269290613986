// The GPU kernels as functions of the host, for tests: emulate(name, view, second view, task, blocks, threads).
#include "emulation.hpp"

#include "task.cuh"
double conelayers::shared_table[1 << 17];

#include "apply.cu"
#include "derivative.cu"
#include "polish.cu"
#include "project.cu"
#include "pullback.cu"
#include "solve.cu"

// Run this thread of all blocks alone; -1: every one.
static int alone = -1;
extern "C" void only(int thread) { alone = thread; }

namespace {

// One thread, or one team, of each block after the other.
template <class Kernel>
int run(const Kernel& kernel, int blocks, int threads) {
    gridDim.x = blocks, blockDim.x = threads;
    for (int block = 0; block < blocks; ++block)
        for (int thread = 0; thread < threads; thread += conelayers::kTeam) {
            if (alone >= 0 && alone != block * threads + thread) continue;
            blockIdx.x = block, threadIdx.x = thread;
#if CONELAYERS_TEAM
            const auto body = [](const void* what) { (*static_cast<const Kernel*>(what))(); };
            if (!emulated::team.run(body, &kernel)) return 2;
#else
            kernel();
#endif
        }
    return 0;
}

}  // namespace

#if CONELAYERS_TEAM
extern "C" void in_order(int order) { emulated::team.order = order; }
#endif

// 0, 1 for an unknown kernel, 2 if the threads of a team did not meet at the same barriers.
extern "C" int emulate(const char* name, const void* view, const void* second, const void* task_, int blocks, int threads) {
    const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
    const auto& task = *static_cast<const conelayers::Task*>(task_);
    const auto& derivative = *static_cast<const conelayers::DerivativeView*>(is("solve") ? second : view);
    const auto linearized = [&](void (*kernel)(const conelayers::DerivativeView, const conelayers::Task)) {
        return run([&] { kernel(derivative, task); }, blocks, threads);
    };
    if (is("solve")) {
        const auto& engine = *static_cast<const conelayers::EngineView*>(view);
        return run([&] { conelayers_solve(engine, derivative, task); }, blocks, threads);
    }
    if (is("derivative")) return linearized(conelayers_derivative);
    if (is("apply")) return linearized(conelayers_apply);
    if (is("project")) return linearized(conelayers_project);
    if (is("pullback")) return linearized(conelayers_pullback);
    if (is("polish")) return linearized(conelayers_polish);
    return 1;
}

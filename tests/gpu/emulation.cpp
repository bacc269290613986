// The GPU kernels as functions of the host, for tests: emulate(name, view, task, blocks, threads). With one problem per
// warp, one thread plays all members of the team, phase by phase, in the order that `in_order` chooses.
#include "emulation.hpp"

#if CONELAYERS_TEAM
static int turn = 0;
extern "C" void in_order(int chosen) { turn = chosen; }
// 0: ascending, 1: descending, 2: scattered.
#define CONELAYERS_IN_TURN(k) (turn == 0 ? (k) : turn == 1 ? CONELAYERS_TEAM - 1 - (k) : ((k) * 11 + 5) % CONELAYERS_TEAM)
#endif

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

template <class View>
int run(void (*kernel)(View, conelayers::Task), const void* view, const void* task, int blocks, int threads) {
    gridDim.x = blocks, blockDim.x = threads;
    for (int block = 0; block < blocks; ++block)
        for (int thread = 0; thread < threads; thread += conelayers::kTeam) {
            if (alone >= 0 && alone != block * threads + thread) continue;
            blockIdx.x = block, threadIdx.x = thread;
            kernel(*static_cast<const View*>(view), *static_cast<const conelayers::Task*>(task));
        }
    return 0;
}

}  // namespace

extern "C" int emulate(const char* name, const void* view, const void* task, int blocks, int threads) {
    const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
    if (is("solve")) return run<const conelayers::EngineView>(conelayers_solve, view, task, blocks, threads);
    using View = const conelayers::DerivativeView;
    if (is("derivative")) return run<View>(conelayers_derivative, view, task, blocks, threads);
    if (is("apply")) return run<View>(conelayers_apply, view, task, blocks, threads);
    if (is("project")) return run<View>(conelayers_project, view, task, blocks, threads);
    if (is("pullback")) return run<View>(conelayers_pullback, view, task, blocks, threads);
    if (is("polish")) return run<View>(conelayers_polish, view, task, blocks, threads);
    return 1;
}

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
static int lone = -1;
extern "C" void only(int thread) { lone = thread; }

namespace {

// One thread, or one team, of each block after the other.
template <class Kernel>
int run(const Kernel& kernel, int blocks, int threads) {
    gridDim.x = blocks, blockDim.x = threads;
    for (int block = 0; block < blocks; ++block)
        for (int thread = 0; thread < threads; thread += conelayers::kTeam) {
            if (lone >= 0 && lone != block * threads + thread) continue;
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

// Watch the tables of the next launches; then, whether threads have changed the same numbers between two barriers.
static bool watching = false;
extern "C" void watch(int on) { watching = on != 0; }
extern "C" int clash() { return emulated::team.watch.clash; }

// What phases promise, each by itself. Returns, a bit for each, the promises that some thread saw broken.
extern "C" int broken_promises() {
    using namespace conelayers;
    static double cells[2 * kTeam];
    static int broken;
    broken = 0;
    const auto body = [](const void*) {
        const auto expect = [](bool kept, int promise) {
            if (!kept) broken |= 1 << promise;
        };
        const auto sum = [] {
            double total = 0.0;
            for (double cell : cells) total += cell;
            return total;
        };
        expect(sum() == 0.0, 0);  // all read before `each` writes,
        for (int i : each(2 * kTeam)) cells[i] += 1.0;
        expect(sum() == 2.0 * kTeam, 1);  // and read what it wrote
        alone([&] { cells[0] += 1.0; });
        expect(sum() == 2.0 * kTeam + 1.0, 2);
        alone([&] { cells[0] -= 1.0; });
        expect(sum() == 2.0 * kTeam, 3);
        {
            const Deal deal;
            for (int b = 0; b < 2 * kTeam; ++b) alone(b, [&] { cells[b] += 1.0; });
        }
        expect(sum() == 4.0 * kTeam, 4);
        {
            const Deal deal;
            alone(kTeam - 1, [&] { cells[0] = -1.0; });
        }
        const double mine = member() + 1.0;
        expect(all_sum(mine) == kTeam * (kTeam + 1) / 2, 5);
        expect(all_max(mine) == kTeam && all_min(mine) == 1.0, 6);
        expect(all_any(member() == 3) && !all_any(false) && from_one(mine) == 1.0, 7);
        const auto same = [](double joined) {  // for all threads, to the bit
            static double found[kTeam];
            alone([] {});
            found[member()] = joined;
            alone([] {});
            return to_bits(found[0]) == to_bits(found[member()]);
        };
        const double odd = member() == 3 ? not_a_number() : mine, zero = member() % 2 ? 0.0 : -0.0;
        expect(same(all_max(odd)) && all_max(odd) != all_max(odd) && same(all_min(odd)), 8);
        expect(same(all_max(zero)) && same(all_min(zero)), 9);
    };
    if (!emulated::team.run(body, nullptr)) broken |= 1 << 30;
    for (double& cell : cells) cell = 0.0;
    return broken;
}
#endif

// 0, 1 for an unknown kernel, 2 if the threads of a team did not meet at the same barriers.
extern "C" int emulate(const char* name, const void* view, const void* second, const void* task_, int blocks, int threads) {
    const auto is = [name](const char* other) { return std::strcmp(name, other) == 0; };
    const auto& task = *static_cast<const conelayers::Task*>(task_);
#if CONELAYERS_TEAM
    emulated::team.watch.start(task.work, watching ? task.entries * blocks : 0);
#endif
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

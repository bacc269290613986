// A host compiler as a GPU's: what NVRTC has built in. Each thread of a kernel runs by itself, one after the other; the
// threads of a team, which wait for each other, take turns: each runs up to where it must wait, far ahead of all that
// come after it. So whatever one thread does too early or too late, or twice, for want of a barrier shows in the results.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>

#define __CUDACC_RTC__
#define __global__
#define __device__
#define __host__
#define __shared__
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)

struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

inline long long __double_as_longlong(double a) {
    long long b;
    std::memcpy(&b, &a, sizeof b);
    return b;
}
inline double __longlong_as_double(long long b) {
    double a;
    std::memcpy(&a, &b, sizeof a);
    return a;
}

#if CONELAYERS_TEAM
#include <setjmp.h>
#include <ucontext.h>

#include <vector>

namespace emulated {

constexpr int kThreads = CONELAYERS_TEAM;
constexpr std::size_t kStack = 1 << 19;

// Numbers that threads may not both change between two barriers, even if each leaves what it finds again in order.
struct Watch {
    double* cells = nullptr;
    std::vector<double> before;
    std::vector<long long> segment;
    std::vector<int> owner;
    bool clash = false;

    void start(double* first, long long count) {
        cells = first, clash = false;
        before.assign(first, first + count);
        segment.assign(count, -1), owner.assign(count, -1);
    }

    // What `thread` has changed since the last look, in the segment that it is at.
    void look(int thread, long long now) {
        const long long count = static_cast<long long>(before.size()), block = 64;
        for (long long first = 0; first < count; first += block) {
            const long long end = first + block < count ? first + block : count;
            if (std::memcmp(cells + first, before.data() + first, (end - first) * sizeof(double)) == 0) continue;
            for (long long c = first; c < end; ++c) {
                if (std::memcmp(cells + c, before.data() + c, sizeof(double)) == 0) continue;
                clash = clash || (segment[c] == now && owner[c] != thread);
                segment[c] = now, owner[c] = thread, before[c] = cells[c];
            }
        }
    }
};

struct Team {
    Watch watch;
    int order = 0;        // of turns: 0 ascending, 1 descending, 2 scattered
    bool failed = false;  // threads did not meet at the same barriers
    int turn;
    bool started[kThreads], done[kThreads];
    long long waits[kThreads];  // at how many barriers each has been
    int kind[kThreads];         // what it waits for
    double shown[kThreads];     // to the others, by a shuffle
    jmp_buf place[kThreads];
    ucontext_t start[kThreads], home;
    std::vector<char> stacks = std::vector<char>(kStack * kThreads);
    void (*body)(const void*);
    const void* argument;

    int thread_at(int k) const { return order == 0 ? k : order == 1 ? kThreads - 1 - k : (k * 11 + 5) % kThreads; }

    [[noreturn]] void give_up() {
        failed = true;
        setcontext(&home);
        __builtin_unreachable();
    }

    // Let the thread run whose turn it is.
    [[noreturn]] void go() {
        const int thread = thread_at(turn);
        if (done[thread]) give_up();
        threadIdx.x = thread;
        if (started[thread]) _longjmp(place[thread], 1);
        started[thread] = true;
        setcontext(&start[thread]);
        __builtin_unreachable();
    }

    void wait(int what) {
        const int me = threadIdx.x;
        watch.look(me, waits[me]);
        kind[me] = what, ++waits[me];
        if (turn > 0) {
            const int before = thread_at(turn - 1);
            if (kind[before] != what || waits[before] != waits[me]) give_up();
        }
        if (_setjmp(place[me]) != 0) return;
        turn = (turn + 1) % kThreads;
        go();
    }

    static void enter();

    // body(argument) by all threads; whether they met at the same barriers.
    bool run(void (*body_)(const void*), const void* argument_) {
        body = body_, argument = argument_, turn = 0, failed = false;
        for (int k = 0; k < kThreads; ++k) {
            started[k] = done[k] = false, waits[k] = 0;
            getcontext(&start[k]);
            start[k].uc_stack.ss_sp = stacks.data() + kStack * k, start[k].uc_stack.ss_size = kStack;
            start[k].uc_link = &home;
            makecontext(&start[k], &Team::enter, 0);
        }
        volatile bool back = false;
        getcontext(&home);
        if (!back) {
            back = true;
            go();
        }
        return !failed;
    }
};
static Team team;

inline void Team::enter() {
    team.body(team.argument);
    team.done[threadIdx.x] = true;
    if (++team.turn < kThreads) team.go();
    for (int k = 1; k < kThreads; ++k) team.failed = team.failed || team.waits[k] != team.waits[0];
    setcontext(&team.home);
}

inline double shown_by(int thread, double value, int kind) {
    team.shown[threadIdx.x] = value;
    team.wait(kind);
    const double found = team.shown[thread];
    team.wait(kind);
    return found;
}

}  // namespace emulated

inline void __syncwarp() { emulated::team.wait(1); }
inline double __shfl_sync(unsigned, double value, int thread) { return emulated::shown_by(thread, value, 2); }
inline double __shfl_xor_sync(unsigned, double value, int distance) {
    return emulated::shown_by(int(threadIdx.x) ^ distance, value, 3);
}
inline int __any_sync(unsigned, int mask) {
    double count = mask != 0;
    for (int distance = emulated::kThreads / 2; distance > 0; distance /= 2)
        count += __shfl_xor_sync(0, count, distance);
    return count > 0.0;
}
#endif

// What every kernel is given beside the view of its structure, and how problems are dealt to threads.
//
// One problem per thread: a warp works on 32 problems at a time and keeps their numbers in a table [entry][lane], so that
// its threads read neighbouring addresses. With CONELAYERS_TEAM, one problem per warp, see team.cuh. Each warp has one
// table and takes one tile of problems after another: memory for work grows with the device, not with the batch.
#pragma once

#include "conelayers/pack.hpp"

// A block is one warp: registers, not the number of blocks, bound how many run at a time.
#define CL_BOUNDS __launch_bounds__(32)

// Threads per problem. With more than one, arrays are those of one problem: compile with CONELAYERS_LANES=1.
#if defined(CONELAYERS_TEAM)
#define CL_TEAM CONELAYERS_TEAM
#else
#define CL_TEAM 1
#endif

namespace conelayers {

constexpr int kLanes = CONELAYERS_LANES;  // problems per table
constexpr int kTeam = CL_TEAM;

// What the threads of a team share out: phases. `share` runs body(member) for each of them and returns when all are done
// and see what the others wrote; within a phase, members write to different places. `share_sums` adds up what body adds
// to its numbers, the same bits for all members. `single` runs its body once. All else is run by every thread alike.
#if CL_TEAM == 1 || defined(CONELAYERS_IN_TURN)
// One thread plays all members, in turn (tests: in any order).
#if defined(CONELAYERS_IN_TURN)
CL_INLINE int in_turn(int k) { return CONELAYERS_IN_TURN(k); }
#else
CL_INLINE int in_turn(int k) { return k; }
#endif
template <class Body>
CL_INLINE void share(const Body& body) {
    for (int k = 0; k < kTeam; ++k) body(in_turn(k));
}
template <class Body>
CL_INLINE void single(const Body& body) {
    body();
}
template <int N, class Body>
CL_INLINE void share_sums(double (&sums)[N], const Body& body) {
    double parts[kTeam][N];
    for (int k = 0; k < kTeam; ++k)
        for (int i = 0; i < N; ++i) parts[k][i] = 0.0;
    for (int k = 0; k < kTeam; ++k) body(in_turn(k), parts[in_turn(k)]);
    for (int i = 0; i < N; ++i) {
        for (int distance = kTeam / 2; distance > 0; distance /= 2)
            for (int k = 0; k < distance; ++k) parts[k][i] += parts[k + distance][i];
        sums[i] = parts[0][i];
    }
}
template <class Body>
CL_INLINE double share_max(const Body& body) {
    double largest = body(in_turn(0));
    for (int k = 1; k < kTeam; ++k) largest = max(largest, body(in_turn(k)));
    return largest;
}
#else
CL_INLINE int member() { return int(threadIdx.x) % kTeam; }
template <class Body>
CL_INLINE void share(const Body& body) {
    body(member());
    __syncwarp();
}
template <class Body>
CL_INLINE void single(const Body& body) {
    if (member() == 0) body();
    __syncwarp();
}
template <int N, class Body>
CL_INLINE void share_sums(double (&sums)[N], const Body& body) {
    for (int i = 0; i < N; ++i) sums[i] = 0.0;
    body(member(), sums);
    for (int i = 0; i < N; ++i)
        for (int distance = kTeam / 2; distance > 0; distance /= 2)
            sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], distance);
    __syncwarp();
}
template <class Body>
CL_INLINE double share_max(const Body& body) {
    double largest = body(member());
    for (int distance = kTeam / 2; distance > 0; distance /= 2)
        largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
    return largest;
}
#endif

// Values (items, count) row-major; stride 0: one row shared by all items.
struct Rows {
    const double* data;
    long long stride;
};

// Every member takes eight bytes, so that a host packs it as a list of numbers.
struct Task {
    Rows in[10];
    void* out[8];
    double* work;       // one table per warp
    long long entries;  // of a table
    long long items;
    long long count;    // right-hand sides per item
    long long steps;    // limit on iterations
    double number;      // tolerance, or barrier parameter
};

// The problem a thread is at, and its column of the warp's table.
struct Lane {
    long long item, stride;
    Arr<double> work;

    __device__ explicit Lane(const Task& task) {
        item = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / kTeam;
        stride = (long long)gridDim.x * blockDim.x / kTeam;
        work = Arr<double>(task.work + item / kLanes * (task.entries * kLanes) + item % kLanes);
    }
    __device__ void next() { item += stride; }
};

// A row of an item with `count` numbers, the q-th of the item's rows.
CL_HD inline void load(const Rows& rows, long long item, long long count, Arr<double> to, long long q = 0) {
    const double* row = rows.data + rows.stride * item + q * count;
    share([&](int k) {
        for (long long e = k; e < count; e += kTeam) to[e] = row[e];
    });
}

CL_HD inline void store(Arr<double> from, long long count, void* out, long long row) {
    double* to = static_cast<double*>(out) + row * count;
    share([&](int k) {
        for (long long e = k; e < count; e += kTeam) to[e] = from[e];
    });
}

CL_INLINE void store(double value, void* out, long long place) { static_cast<double*>(out)[place] = value; }

}  // namespace conelayers

#if defined(CONELAYERS_TEAM)
#include "team.cuh"
#endif

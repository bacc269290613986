// What every kernel is given beside the view of its structure, and how problems are dealt to threads.
//
// One problem per thread: a warp works on 32 problems at a time and keeps their numbers in a table [entry][lane], so that
// its threads read neighbouring addresses. With CONELAYERS_TEAM, one problem per warp, see team.cuh. Each warp has one
// table and takes one tile of problems after another: memory for work grows with the device, not with the batch.
#pragma once

#include "conelayers/pack.hpp"

// A block is one warp: registers, not the number of blocks, bound how many run at a time.
#define CL_BOUNDS __launch_bounds__(32)

namespace conelayers {

constexpr int kLanes = CONELAYERS_LANES;  // problems per table

// Values (items, count) row-major; stride 0: one row shared by all items.
struct Rows {
    const double* data;
    long long stride;
};

// Every member takes eight bytes, so that a host packs it as a list of numbers.
struct Task {
    Rows in[10];
    void* out[8];
    double* work;       // one table per warp; null: in the warp's shared memory
    long long entries;  // of a table
    long long items;
    long long count;    // right-hand sides per item
    long long steps;    // limit on iterations
    long long scratch, newton;  // where in a table parts of `solve` begin
    double number;      // tolerance, or barrier parameter
};

extern __shared__ double shared_table[];

// The problem a thread is at, and its column of the warp's table.
struct Lane {
    long long item, stride;
    Arr<double> work;

    __device__ explicit Lane(const Task& task) {
        item = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / kTeam;
        stride = (long long)gridDim.x * blockDim.x / kTeam;
        if (task.work == nullptr) work = Arr<double>(shared_table);
        else work = Arr<double>(task.work + item / kLanes * (task.entries * kLanes) + item % kLanes);
    }
    __device__ void next() { item += stride; }
};

// A row of an item with `count` numbers, the q-th of the item's rows.
CL_HD inline void load(const Rows& rows, long long item, long long count, Arr<double> to, long long q = 0) {
    const double* row = rows.data + rows.stride * item + q * count;
    for (long long e : each(count)) to[e] = row[e];
}

CL_HD inline void store(Arr<double> from, long long count, void* out, long long row) {
    double* to = static_cast<double*>(out) + row * count;
    for (long long e : each(count)) to[e] = from[e];
}

CL_INLINE void store(double value, void* out, long long place) { static_cast<double*>(out)[place] = value; }

}  // namespace conelayers

#if defined(CONELAYERS_TEAM)
#include "team.cuh"
#endif

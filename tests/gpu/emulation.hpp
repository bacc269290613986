// A host compiler as a GPU's: what NVRTC has built in, for one thread at a time (each kernel runs as a loop over threads).
#pragma once

#include <cmath>
#include <cstring>

#define __CUDACC_RTC__
#define __global__
#define __device__
#define __host__
#define __noinline__ __attribute__((noinline))
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__
#define __launch_bounds__(...)

struct Index {
    unsigned x, y, z;
};
static thread_local Index threadIdx, blockIdx, blockDim, gridDim;

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

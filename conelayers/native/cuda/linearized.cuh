// What the kernels on the optimality conditions share: projection, factorization.
#pragma once

#include "conelayers/polish.hpp"
#include "conelayers/reverse.hpp"
#include "task.cuh"

// Entry point of a kernel: view, task.
#define CL_KERNEL(name)                                                                                            \
    extern "C" __global__ void CL_BOUNDS conelayers_##name(const __grid_constant__ conelayers::DerivativeView view, \
                                                           const __grid_constant__ conelayers::Task task)

namespace conelayers {

// Projection of w.v and its Clarke element.
CL_HD inline void project(const DerivativeView& view, const DerivativeWork<double>& w, Arr<double> guess, double mu) {
    projection::project_dual<double>(view.cone, w.v, guess, mu, w.y, w.element, w.scratch);
}

// The same for v given as a row.
CL_HD inline void prepare(const DerivativeView& view, const DerivativeWork<double>& w, const Rows& v, long long item,
                          double mu) {
    load(v, item, view.m, w.v);
    for (int i : each(view.m)) w.image[i] = 0.0;
    project(view, w, w.image, mu);
}

CL_HD inline void factor(const DerivativeView& view, const DerivativeWork<double>& w, const Rows& p, const Rows& a,
                         long long item) {
    load(p, item, view.p_entries, w.p);
    load(a, item, view.a_entries, w.a);
    derivative_scale(view, w);
    derivative_factor(view, w);
}

}  // namespace conelayers

// The projection on the dual cone, one problem per thread.
#include "linearized.cuh"

// in: v; out: Pi_{K*}(v). number: mu.
extern "C" __global__ void CL_BOUNDS
conelayers_project(const __grid_constant__ conelayers::DerivativeView view,
                   const __grid_constant__ conelayers::Task task) {
    using namespace conelayers;
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        const DerivativeWork<double> w(view, lane.work);
        prepare(view, w, task.in[0], lane.item, task.number);
        store(w.y, view.m, task.out[0], lane.item);
    }
}

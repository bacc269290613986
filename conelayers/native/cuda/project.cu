// The projection on the dual cone.
#include "linearized.cuh"

// in: v; out: Pi_{K*}(v). number: mu.
CL_KERNEL(project) {
    using namespace conelayers;
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        const DerivativeWork<double> w(view, lane.work);
        prepare(view, w, task.in[0], lane.item, task.number);
        store(w.y, view.m, task.out[0], lane.item);
    }
}

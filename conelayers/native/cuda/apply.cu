// The Clarke element of the projection on the dual cone times vectors.
#include "linearized.cuh"

// in: v, u (`count` rows per item); out: D u. number: mu.
CL_KERNEL(apply) {
    using namespace conelayers;
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        const DerivativeWork<double> w(view, lane.work);
        prepare(view, w, task.in[0], lane.item, task.number);
        for (long long q = 0; q < task.count; ++q) {
            load(task.in[1], lane.item, view.m, w.rhs, q);
            projection::apply_derivative<double>(view.cone, w.element, w.rhs, w.solution, w.scratch);
            store(w.solution, view.m, task.out[0], lane.item * task.count + q);
        }
    }
}

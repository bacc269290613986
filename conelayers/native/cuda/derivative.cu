// Solves with the Jacobian of the optimality conditions.
#include "linearized.cuh"

// in: P, A, v, r1, r2 (`count` rows per item); out: dx, dv, residual; the shortest solution where J is
// singular, unless steps is not 0. number: mu.
CL_KERNEL(derivative) {
    using namespace conelayers;
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        const DerivativeWork<double> w(view, lane.work);
        prepare(view, w, task.in[2], lane.item, task.number);
        factor(view, w, task.in[0], task.in[1], lane.item);
        bool lost = false;
        for (long long q = 0; q < task.count; ++q) {
            load(task.in[3], lane.item, view.n, w.rhs, q);
            load(task.in[4], lane.item, view.m, w.rhs + view.n, q);
            const long long row = lane.item * task.count + q;
            const double residual = derivative_solve<double>(view, w);
            lost = lost || !(residual <= kAccepted);
            store(residual, task.out[2], row);
            store(w.solution, view.n, task.out[0], row);
            store(w.solution + view.n, view.m, task.out[1], row);
        }
        if (!lost || task.steps != 0) continue;
        derivative_factor_wide(view, w);
        for (long long q = 0; q < task.count; ++q) {
            const long long row = lane.item * task.count + q;
            const double before = static_cast<const double*>(task.out[2])[row];
            if (before <= kAccepted) continue;
            load(task.in[3], lane.item, view.n, w.rhs, q);
            load(task.in[4], lane.item, view.m, w.rhs + view.n, q);
            load(Rows{static_cast<const double*>(task.out[0]), view.n}, row, view.n, w.solution);
            load(Rows{static_cast<const double*>(task.out[1]), view.m}, row, view.m, w.solution + view.n);
            store(least_norm_solve<double>(view, w, true, before), task.out[2], row);
            store(w.solution, view.n, task.out[0], row);
            store(w.solution + view.n, view.m, task.out[1], row);
        }
    }
}

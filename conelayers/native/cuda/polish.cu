// Newton steps on the optimality conditions.
#include "linearized.cuh"

// in: P, q, A, b, x, y, s; out: x, y, s, residual, relative residuals (3 per item). steps: at most; number: target.
CL_KERNEL(polish) {
    using namespace conelayers;
    const int n = view.n, m = view.m;
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        const DerivativeWork<double> w(view, lane.work);
        PolishWork<double> extra(view, lane.work + w.size);
        load(task.in[0], lane.item, view.p_entries, w.p);
        load(task.in[1], lane.item, n, extra.q);
        load(task.in[2], lane.item, view.a_entries, w.a);
        load(task.in[3], lane.item, m, extra.b);
        load(task.in[4], lane.item, n, extra.x);
        load(task.in[5], lane.item, m, extra.v);
        load(task.in[6], lane.item, m, extra.s);
        for (int i : each(view.m)) extra.unit[i] = 1.0;
        const double residual = polish<double>(view, w, extra, true, PolishRule{static_cast<int>(task.steps), task.number, 1e-8, 3});
        store(extra.best_x, n, task.out[0], lane.item);
        store(extra.best_y, m, task.out[1], lane.item);
        store(extra.s, m, task.out[2], lane.item);
        store(residual, task.out[3], lane.item);
        double relative[3];
        relative_residuals<double>(view, w, extra, extra.best_x, extra.best_y, extra.s, relative);
        for (int k = 0; k < 3; ++k) store(relative[k], task.out[4], 3 * lane.item + k);
    }
}

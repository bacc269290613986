// The whole reverse mode.
#include "linearized.cuh"

namespace conelayers {

// The values of a direction.
struct Moves {
    const double* values;
    CL_HD double operator()(long long k) const { return values[k]; }
    CL_HD bool rests(long long k) const { return values[k] == 0.0; }
};

}  // namespace conelayers

// in: P, A, x, y, s, cotangents of x, y and s, direction or none; out: dP, dq, dA, db, lambda, u, residual,
// what is outside of the range for the direction. number: mu.
CL_KERNEL(pullback) {
    using namespace conelayers;
    const int n = view.n, m = view.m;
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        const DerivativeWork<double> w(view, lane.work);
        const PolishWork<double> extra(view, lane.work + w.size);
        Arr<double> x = extra.x, y = extra.best_y, s_cotangent = extra.b, nu = extra.best_v;
        load(task.in[3], lane.item, m, y);
        load(task.in[4], lane.item, m, extra.s);
        for (int i : each(m)) w.v[i] = y[i] - extra.s[i];
        project(view, w, extra.s, task.number);
        factor(view, w, task.in[0], task.in[1], lane.item);
        load(task.in[2], lane.item, n, x);
        load(task.in[5], lane.item, n, w.rhs);
        load(task.in[6], lane.item, m, w.rhs + n);
        load(task.in[7], lane.item, m, s_cotangent);
        if (task.in[8].data != nullptr) {
            const Moves at{task.in[8].data + task.in[8].stride * lane.item};
            Outside<double> outside;
            const double residual = derivative_pullback_along<double>(view, w, s_cotangent, nu, x, y, at, outside);
            double* row = static_cast<double*>(task.out[7]) + 2 * lane.item;
            row[0] = outside.primal, row[1] = outside.dual;
            store(residual, task.out[6], lane.item);
        } else {
            store(derivative_pullback<double>(view, w, s_cotangent, nu), task.out[6], lane.item);
        }
        pattern_gradients<double>(view, w, x, y, nu);
        store(w.p, view.p_entries, task.out[0], lane.item);
        store(w.a, view.a_entries, task.out[2], lane.item);
        store(nu, m, task.out[3], lane.item);
        store(w.solution, n, task.out[4], lane.item);
        store(w.solution + n, m, task.out[5], lane.item);
        for (int j : each(n)) w.solution[j] = -w.solution[j];
        store(w.solution, n, task.out[1], lane.item);
    }
}

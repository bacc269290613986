// The interior-point method with Newton steps at its end.
#include "conelayers/newton_finish.hpp"
#include "task.cuh"

namespace conelayers {

// Load a row; whether all of it is finite.
CL_HD inline bool load_finite(const Rows& rows, long long item, long long count, Arr<double> to) {
    load(rows, item, count, to);
    double sum = 0.0;
    for (long long e : each(count)) sum += to[e] * 0.0;
    return all_sum(sum) == 0.0;
}

CL_HD inline void clear(Arr<double> values, long long count) {
    for (long long e : each(count)) values[e] = 0.0;
}

// One item's part of the inputs and outputs below.
struct SolveItem {
    const Task& task;
    long long item;

    CL_HD void begin(const EngineView& view, InteriorPoint<double>& ip) const {
        bool usable = load_finite(task.in[0], item, view.P_nnz, ip.p.P);
        usable = load_finite(task.in[1], item, view.n, ip.p.q) && usable;
        usable = load_finite(task.in[2], item, view.A_nnz, ip.p.A) && usable;
        usable = load_finite(task.in[3], item, view.m, ip.p.b) && usable;
        if (!usable) {
            clear(ip.p.P, view.P_nnz), clear(ip.p.q, view.n);
            clear(ip.p.A, view.A_nnz), clear(ip.p.b, view.m);
        }
        ip.begin(usable);
    }

    CL_HD void load_programme(const NewtonFinish<double>& finish) const {
        load(task.in[0], item, finish.view.p_entries, finish.work.p);
        load(task.in[1], item, finish.view.n, finish.newton.q);
        load(task.in[2], item, finish.view.a_entries, finish.work.a);
        load(task.in[3], item, finish.view.m, finish.newton.b);
    }

    CL_HD void end(const EngineView& view, const InteriorPoint<double>& ip, Arr<double> x, Arr<double> y, Arr<double> s,
                   double primal, double dual, double gap) const {
        store(x, view.n, task.out[0], item);
        store(y, view.m, task.out[1], item);
        store(s, view.m, task.out[2], item);
        store(primal, task.out[3], item), store(dual, task.out[4], item), store(gap, task.out[5], item);
        static_cast<signed char*>(task.out[6])[item] = static_cast<signed char>(ip.status);
        static_cast<long long*>(task.out[7])[item] = static_cast<long long>(ip.iteration);
    }
};

}  // namespace conelayers

// in: P, q, A, b; out: x, y, s, primal residual, dual residual, gap, status (bytes), iterations (64-bit integers).
// steps: limit on iterations; number: tolerance. A table begins with what the interior point keeps; from `scratch` and
// `newton` on it and the Newton steps have memory in turn, up to the point found at the end. newton 0: no such steps, and
// `derivative` is not used.
extern "C" __global__ void CL_BOUNDS
conelayers_solve(const __grid_constant__ conelayers::EngineView view,
                 const __grid_constant__ conelayers::DerivativeView derivative,
                 const __grid_constant__ conelayers::Task task) {
    using namespace conelayers;
    EngineSettings settings;
    settings.tol = settings.tol_infeasible = task.number;
    settings.max_iter = static_cast<int>(task.steps);
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        const SolveItem item{task, lane.item};
        Arena<double> kept{lane.work, false}, scratch{lane.work + task.scratch, false};
        InteriorPoint<double> ip(view, settings, kept, scratch);
        item.begin(view, ip);
        if (task.newton == 0) {
            ip.iterate(settings.tol);
            ip.point(ip.x, ip.z, ip.s);
            item.end(view, ip, ip.x, ip.z, ip.s, ip.last.primal, ip.last.dual, ip.last.gap);
            continue;
        }
        Arena<double> other{lane.work + task.newton, false};
        NewtonFinish<double> finish(derivative, settings, other);
        ip.iterate(finish.first_tolerance());
        finish.run(ip, [&] { item.load_programme(finish); });
        item.end(view, ip, finish.x, finish.y, finish.s, finish.residual[0], finish.residual[1], finish.residual[2]);
    }
}

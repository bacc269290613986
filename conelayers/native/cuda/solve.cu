// The interior-point method, one problem per thread.
#include "conelayers/interior_point.hpp"
#include "task.cuh"

namespace conelayers {

// Load a row; whether all of it is finite.
CL_HD inline bool load_finite(const Rows& rows, long long item, long long count, Arr<double> to) {
    load(rows, item, count, to);
    double sum = 0.0;
    for (long long e = 0; e < count; ++e) sum += to[e] * 0.0;
    return sum == 0.0;
}

CL_HD inline void clear(Arr<double> values, long long count) {
    for (long long e = 0; e < count; ++e) values[e] = 0.0;
}

}  // namespace conelayers

// in: P, q, A, b; out: x, y, s, primal residual, dual residual, gap, status (bytes), iterations (64-bit integers).
extern "C" __global__ void CL_BOUNDS
conelayers_solve(const __grid_constant__ conelayers::EngineView view, const __grid_constant__ conelayers::Task task) {
    using namespace conelayers;
    EngineSettings settings;
    settings.tol = task.number;
    settings.max_iter = static_cast<int>(task.steps);
    const int n = view.n, m = view.m;
    for (Lane lane(task); lane.item < task.items; lane.next()) {
        Arena<double> arena{lane.work, false};
        InteriorPoint<double> ip(view, settings, arena, arena);
        bool usable = load_finite(task.in[0], lane.item, view.P_nnz, ip.p.P);
        usable = load_finite(task.in[1], lane.item, n, ip.p.q) && usable;
        usable = load_finite(task.in[2], lane.item, view.A_nnz, ip.p.A) && usable;
        usable = load_finite(task.in[3], lane.item, m, ip.p.b) && usable;
        if (!usable) clear(ip.p.P, view.P_nnz), clear(ip.p.q, n), clear(ip.p.A, view.A_nnz), clear(ip.p.b, m);
        ip.run(usable);
        store(ip.x, n, task.out[0], lane.item);
        store(ip.z, m, task.out[1], lane.item);
        store(ip.s, m, task.out[2], lane.item);
        store(ip.last.primal, task.out[3], lane.item);
        store(ip.last.dual, task.out[4], lane.item);
        store(ip.last.gap, task.out[5], lane.item);
        static_cast<signed char*>(task.out[6])[lane.item] = static_cast<signed char>(ip.status);
        static_cast<long long*>(task.out[7])[lane.item] = static_cast<long long>(ip.iteration);
    }
}

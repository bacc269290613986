// min 1/2 |x|^2 + q'x, x >= 0: the solution is max(-q, 0); one lane without finite data.
#include "conelayers/interior_point.hpp"

#include <vector>

#include "approximately.hpp"
#include "conelayers/structure.hpp"

using namespace conelayers;

template <class Real>
void projection(int n) {
    std::vector<std::int64_t> indptr(n + 1), indices(n);
    for (int i = 0; i < n; ++i) indptr[i + 1] = i + 1, indices[i] = i;
    const std::int64_t kind = kNonnegative, dim = n;
    const double parameter = 0;
    const Structure structure(n, n, indptr.data(), indices.data(), indptr.data(), indices.data(), 1, &kind, &dim,
                              &parameter);
    const EngineView view = structure.view();
    EngineSettings settings;
    settings.tol = 1e-10;
    Arena<Real> count{nullptr, true};
    InteriorPoint<Real> sized(view, settings, count, count);
    std::vector<Real> memory(count.used);
    Arena<Real> arena{memory.data(), false};
    InteriorPoint<Real> solver(view, settings, arena, arena);
    CHECK(arena.used == count.used);
    Random random;
    std::vector<Real> q(n);
    for (int i = 0; i < n; ++i) {
        for (int l = 0; l < lanes<Real>; ++l) set_lane(q[i], l, random());
        solver.p.P[i] = Real(1.0), solver.p.A[i] = Real(-1.0), solver.p.b[i] = Real(0.0), solver.p.q[i] = q[i];
    }
    Mask<Real> usable = Real(0.0) == Real(0.0);
    const int bad = lanes<Real> - 1;
    if (bad > 0) set_mask(usable, bad, false);
    solver.run(usable);
    for (int l = 0; l < lanes<Real>; ++l) {
        if (l == bad && bad > 0) {
            CHECK(get_lane(solver.status, l) == kFailed);
            continue;
        }
        CHECK(get_lane(solver.status, l) == kSolved);
        for (int i = 0; i < n; ++i) {
            const double g = get_lane(q[i], l);
            CHECK_NEAR(get_lane(solver.x[i], l), g < 0 ? -g : 0.0, 3e-5);
            CHECK_NEAR(get_lane(solver.z[i], l), g > 0 ? g : 0.0, 3e-5);
        }
    }
}

int main() {
    projection<double>(1), projection<double>(9);
    projection<pack<2>>(6);
    return report();
}

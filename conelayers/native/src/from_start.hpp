// Newton steps from given points, a pack at a time: where a batch is much like one that has been solved, that is all it takes.
#pragma once

#include <atomic>

#include "conelayers/newton_finish.hpp"
#include "exchange.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// Packs of items taken from `next` until there are none. Items that are not solved get the status kRunning.
template <class Real>
void solve_from_start(const EngineProblem& problem, std::atomic<int>& next, Real* memory) {
    constexpr int W = lanes<Real>;
    const EngineView& view = *problem.view;
    Arena<Real> arena{memory, false};
    NewtonFinish<Real> finish(*problem.derivative, problem.settings, arena);
    for (int first; (first = next.fetch_add(W)) < problem.items && !ended(problem.settings);) {
        const PackItems<Real> items = items_from<Real>(problem, first);
        Mask<Real> which = read_programme<Real>(problem, items, finish.work.p, finish.newton.q, finish.work.a, finish.newton.b);
        which = mask_and(which, read_rows<Real>(problem.start_x, items, view.n, finish.newton.x));
        which = mask_and(which, read_rows<Real>(problem.start_y, items, view.m, finish.newton.v));
        which = mask_and(which, read_rows<Real>(problem.start_s, items, view.m, finish.newton.s));
        for (int i = 0; i < view.m; ++i)  // rows without a bound, see read_programme
            finish.newton.s[i] = select(finish.newton.s[i] >= Real(kNoBound), Real(1.0), finish.newton.s[i]);
        const Mask<Real> solved = finish.run_from_point(which);
        const Real status = select(solved, Real(double(kSolved)), Real(double(kRunning)));
        store<Real>(problem, items, {finish.x, finish.y, finish.s}, finish.residual, status, Real(0.0));
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

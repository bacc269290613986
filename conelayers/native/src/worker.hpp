// One thread's share of a batch: packs of items one after the other, each by the interior-point method and Newton steps.
//
// Lanes converge at different times. A pack that has become half empty waits for the next such one, and the problems
// still open in the two go on together, so that the lanes of a pack stay filled. What becomes of an item does not depend
// on its company: every operation is lane by lane.
#pragma once

#include <atomic>
#include <optional>
#include <utility>

#include "conelayers/newton_finish.hpp"
#include "exchange.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// How many packs' numbers each part of a worker's memory takes.
template <class Real>
struct WorkerSizes {
    long long state, work, newton = 0;

    explicit WorkerSizes(const EngineProblem& problem) {
        Arena<Real> states{nullptr, true}, works{nullptr, true}, newtons{nullptr, true};
        const InteriorPoint<Real> ip(*problem.view, problem.settings, states, works);
        state = states.used, work = works.used;
        if (problem.derivative == nullptr) return;
        const NewtonFinish<Real> finish(*problem.derivative, problem.settings, newtons);
        newton = newtons.used;
    }
    long long total() const { return 2 * state + work + newton; }
};

template <class Real>
class Worker {
    static constexpr int W = lanes<Real>;
    static constexpr int few = W / 2;  // a pack with no more open lanes waits for another

    struct Pack {
        Pack(const EngineProblem& problem, Real* state_, Real* work)
            : Pack(problem, Arena<Real>{state_, false}, Arena<Real>{work, false}) {}
        Pack(const EngineProblem& problem, Arena<Real> states, Arena<Real> works)
            : state(states.base), ip(*problem.view, problem.settings, states, works) {}

        Real* state;  // what a waiting pack keeps; the rest of its memory is scratch
        InteriorPoint<Real> ip;
        PackItems<Real> items;
    };

  public:
    Worker(const EngineProblem& problem_, const WorkerSizes<Real>& sizes_, Real* memory)
        : problem(problem_),
          view(*problem_.view),
          sizes(sizes_),
          first(problem, memory, memory + 2 * sizes.state),
          second(problem, memory + sizes.state, memory + 2 * sizes.state) {
        Arena<Real> arena{memory + 2 * sizes.state + sizes.work, false};
        if (problem.derivative != nullptr) newton.emplace(*problem.derivative, problem.settings, arena);
    }

    // Solve packs of items, taken from `next`, until there are no more.
    void run(std::atomic<int>& next) {
        Pack *current = &first, *waiting = nullptr;
        for (int item; (item = next.fetch_add(W)) < problem.items;) {
            load(*current, item);
            iterate(*current, few);
            if (ended(problem.settings)) return;
            if (waiting != nullptr) {
                gather(*waiting, *current);
                finish(*current);
                std::swap(current, waiting);
                iterate(*current, few);
            }
            if (any_lane(current->ip.active)) {
                waiting = current;
                current = waiting == &first ? &second : &first;
            } else {
                finish(*current);
                waiting = nullptr;
            }
        }
        if (waiting == nullptr) return;
        iterate(*waiting, 0);
        finish(*waiting);
    }

  private:
    void iterate(Pack& pack, int few) { pack.ip.iterate(newton ? newton->first_tolerance() : problem.settings.tol, few); }

    void load(Pack& pack, int item) {
        pack.items = items_from<Real>(problem, item);
        Programme<Real>& p = pack.ip.p;
        const Mask<Real> usable = read_programme<Real>(problem, pack.items, p.P, p.q, p.A, p.b);
        if (!all_lanes(usable)) {
            clear(p.P, view.P_nnz, usable), clear(p.q, view.n, usable);
            clear(p.A, view.A_nnz, usable), clear(p.b, view.m, usable);
        }
        pack.ip.begin(usable);
    }

    static void clear(Real* values, long long count, const Mask<Real>& usable) {
        for (long long e = 0; e < count; ++e) values[e] = select(usable, values[e], Real(0.0));
    }

    // The open problems of `from` to lanes of `to` that are done, whose problems come back in exchange.
    void gather(Pack& to, Pack& from) {
        int count = 0, target = 0, to_lane[W], from_lane[W];
        for (int lane = 0; lane < W; ++lane) {
            if (!get_mask(from.ip.active, lane)) continue;
            while (get_mask(to.ip.active, target)) ++target;
            to_lane[count] = target++, from_lane[count++] = lane;
        }
        for (int k = 0; k < count; ++k) {
            std::swap(to.items.item[to_lane[k]], from.items.item[from_lane[k]]);
            std::swap(to.items.occupied[to_lane[k]], from.items.occupied[from_lane[k]]);
            to.ip.swap_scalars(to_lane[k], from.ip, from_lane[k]);
        }
        for (long long e = 0; e < sizes.state; ++e) {  // one pass over both packs for all lanes
            for (int k = 0; k < count; ++k) {
                const double kept = get_lane(to.state[e], to_lane[k]);
                set_lane(to.state[e], to_lane[k], get_lane(from.state[e], from_lane[k]));
                set_lane(from.state[e], from_lane[k], kept);
            }
        }
    }

    void finish(Pack& pack) {
        InteriorPoint<Real>& ip = pack.ip;
        if (newton) {
            read_programme<Real>(problem, pack.items, newton->work.p, newton->newton.q, newton->work.a, newton->newton.b);
            newton->run(ip);
            store<Real>(problem, pack.items, {newton->x, newton->y, newton->s}, newton->residual, ip.status, ip.iteration);
        } else {
            ip.measure();
            const Real residual[3] = {ip.last.primal, ip.last.dual, ip.last.gap};
            ip.point(ip.x, ip.z, ip.s);
            store<Real>(problem, pack.items, {ip.x, ip.z, ip.s}, residual, ip.status, ip.iteration);
        }
    }

    const EngineProblem& problem;
    const EngineView& view;
    const WorkerSizes<Real> sizes;
    Pack first, second;
    std::optional<NewtonFinish<Real>> newton;
};

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

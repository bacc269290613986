// The end of a solve: from a rough interior point straight to the solution by Newton steps where they get there, by more
// interior-point iterations where they do not.
//
// The last digits are the dearest ones of an interior-point method: a handful of iterations, each with a factorization.
// Semismooth Newton steps on the optimality conditions (polish.hpp) cost as much each, but converge at once where the
// iterate is in their region, and at a residual of 1e-4 it mostly is. A lane takes their point only if its residuals
// (primal, dual, gap) are those of a solution to nearly machine precision, so that nothing is risked but the steps.
#pragma once

#include "interior_point.hpp"
#include "polish.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Real>
class NewtonFinish {
  public:
    CL_HD NewtonFinish(const DerivativeView& view_, const EngineSettings& settings_, Arena<Real>& arena)
        : view(view_),
          settings(settings_),
          work(view_, arena.take(DerivativeWork<Real>(view_, arena.base, true).size), arena.counting),
          newton(view_, arena.take(PolishWork<Real>(view_, arena.base, true).size), arena.counting) {
        x = arena.take(view.n), y = arena.take(view.m), s = arena.take(view.m);
    }

    // Where Newton steps are tried first.
    CL_HD double first_tolerance() const { return max(settings.tol_early, settings.tol); }

    // Newton steps from a point near the solution, in the lanes of `which`: the programme as for `run`, the point in newton.x,
    // newton.v (y) and newton.s. Returns the lanes that they solve; x, y, s and their residuals are the result.
    CL_HD Mask<Real> run_from_point(const Mask<Real>& which) {
        begin();
        for (int i : each(view.m)) newton.unit[i] = Real(1.0);
        attempt(which, PolishRule{settings.start_steps, settings.newton_target, settings.newton_accuracy, 0,
                                  settings.start_residual, settings.start_progress});
        return accepted;
    }

    // End what `ip` has brought to iterate(first_tolerance()). The programme, unscaled, is in work.p, work.a, newton.q and
    // newton.b. Afterwards x, y, s, their residuals, ip.status and ip.iteration are the result.
    CL_HD void run(InteriorPoint<Real>& ip) {
        run(ip, [] {});
    }

    // The same where `ip` has its scratch in the memory of `work` and `newton`: load() puts the programme back there.
    template <class Load>
    CL_HD void run(InteriorPoint<Real>& ip, const Load& load) {
        load();
        begin();
        if (settings.tol_early > settings.tol) {
            const Mask<Real> rough = ip.status == Real(double(kSolved));
            attempt_from(ip, rough, PolishRule{settings.early_steps, settings.newton_target, settings.newton_accuracy, 0});
            ip.reopen(mask_and(rough, mask_not(accepted)));
            if (any_lane(ip.active)) ip.iterate(settings.tol), load();
        }
        Mask<Real> left = mask_not(accepted);
        if (!any_lane(left)) return;
        finish(ip, left);
        left = mask_and(mask_not(accepted), ip.status == Real(double(kSolved)));
        if (any_lane(left)) {
            ip.refine(left, settings.tol_late, settings.late_rounds), load();
            finish(ip, left);
        }
        // Norms over all of a programme were small and a part of it is not yet right: as far as the iterations go.
        left = mask_and(left, mask_and(mask_not(accepted), worst() > Real(settings.tol)));
        if (any_lane(left)) {
            ip.refine(left, 0.0, settings.late_rounds), load();
            finish(ip, left);
        }
        const Mask<Real> inaccurate = ip.status == Real(double(kInaccurate)), solved = ip.status == Real(double(kSolved));
        Mask<Real> enough = mask_and(inaccurate, worst() <= Real(settings.tol));
        if (any_lane(enough)) {
            const Real fixed = fixed_residual<Real>(view, work, newton, x, y, s);
            enough = mask_and(enough, fixed <= Real(settings.tol_reduced));
        }
        ip.status = select(enough, Real(double(kSolved)), ip.status);
        const Mask<Real> doubtful = mask_and(solved, mask_not(worst() <= Real(10.0 * settings.tol)));
        ip.status = select(doubtful, Real(double(kInaccurate)), ip.status);
    }

    const DerivativeView& view;
    const EngineSettings& settings;
    DerivativeWork<Real> work;
    PolishWork<Real> newton;
    Arr<Real> x, y, s;
    Real residual[3];  // relative: primal, dual, gap

  private:
    CL_HD void begin() {
        accepted = Real(0.0) > Real(1.0);
        for (int k = 0; k < 3; ++k) residual[k] = Real(infinity());
    }

    CL_HD Real worst() const { return max(residual[0], max(residual[1], residual[2])); }

    // Newton steps in all lanes of `which` that have a solution, then the best point that there is.
    CL_HD void finish(const InteriorPoint<Real>& ip, const Mask<Real>& which) {
        const Mask<Real> ended = mask_or(ip.status == Real(double(kSolved)), ip.status == Real(double(kInaccurate)));
        const PolishRule rule{settings.newton_steps, settings.newton_target, settings.newton_accuracy, 3};
        const Real newton_worst = attempt_from(ip, mask_and(which, ended), rule);
        choose(ip, mask_and(which, mask_not(accepted)), newton_worst);
    }

    CL_HD Real attempt_from(const InteriorPoint<Real>& ip, const Mask<Real>& which, const PolishRule& rule) {
        if (!any_lane(which) || ended(settings)) return Real(infinity());
        ip.point(newton.x, newton.v, newton.s);
        const Real inverse = Real(1.0) / sqrt(ip.p.c);
        for (int i : each(view.m)) newton.unit[i] = ip.p.E[i] * inverse;
        return attempt(which, rule);
    }

    // Newton steps from (newton.x, newton.v, newton.s) in the lanes of `which`; takes the points that are as good as exact.
    // Returns the largest residual of each lane's Newton point, which remains in newton.best_x, newton.best_y and newton.s.
    CL_HD Real attempt(const Mask<Real>& which, const PolishRule& rule) {
        polish<Real>(view, work, newton, which, rule);
        Real found[3];
        relative_residuals<Real>(view, work, newton, newton.best_x, newton.best_y, newton.s, found);
        const Real worst = select(which, max(found[0], max(found[1], found[2])), Real(infinity()));
        const Mask<Real> exact = worst <= Real(settings.newton_accepted);
        take(exact, newton.best_x, newton.best_y, newton.s, found);
        accepted = mask_or(accepted, exact);
        return worst;
    }

    // In the lanes of `which`, the best of the Newton point, the iterate and what was there. Beside a kink v = y - s can cost
    // digits that Newton steps do not win back.
    CL_HD void choose(const InteriorPoint<Real>& ip, const Mask<Real>& which, const Real& newton_worst) {
        if (!any_lane(which)) return;
        Real found[3];
        const Mask<Real> lower = mask_and(which, newton_worst < worst());
        if (any_lane(lower)) {
            relative_residuals<Real>(view, work, newton, newton.best_x, newton.best_y, newton.s, found);
            take(lower, newton.best_x, newton.best_y, newton.s, found);
        }
        ip.point(newton.x, newton.v, work.v);
        relative_residuals<Real>(view, work, newton, newton.x, newton.v, work.v, found);
        const Mask<Real> no_better = worst() <= max(found[0], max(found[1], found[2]));
        take(mask_and(which, mask_not(no_better)), newton.x, newton.v, work.v, found);
    }

    CL_HD void take(const Mask<Real>& which, Arr<Real> from_x, Arr<Real> from_y, Arr<Real> from_s, const Real* found) {
        for (int j : each(view.n)) x[j] = select(which, from_x[j], x[j]);
        for (int i : each(view.m)) y[i] = select(which, from_y[i], y[i]), s[i] = select(which, from_s[i], s[i]);
        for (int k = 0; k < 3; ++k) residual[k] = select(which, found[k], residual[k]);
    }

    Mask<Real> accepted;
};

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

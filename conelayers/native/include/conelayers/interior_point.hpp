// Primal-dual interior point on the homogeneous embedding with a quadratic objective, one pack of problems.
//
// Goulart & Chen, "Clarabel: An interior-point solver for conic programs with quadratic objectives",
// arXiv 2405.12762. Iterates (x, z, s, tau, kappa) with the residuals rx, rz and rt of `homogeneous_iterate.hpp`; a step
// solves, with xi = x / tau and complementarity H dz + ds = -d_s and kappa dtau + tau dkappa = -d_k,
//   P dx + A' dz + q dtau = f rx,   ds + A dx - b dtau = -f rz,
//   dkappa + (2 P xi + q)'dx + b'dz - xi'P xi dtau = -f rt,        f = 1 (predictor), 1 - sigma (corrector),
// by two solves with K = [P, A'; A, -H]:  K u1 = (f rx, d_s - f rz),  K u2 = (-q, b),  u = u1 + dtau u2.
//
// Lanes are independent: a finished lane takes steps of length zero, and the pack ends with its last lane.
#pragma once

#include "arena.hpp"
#include "cone_product.hpp"
#include "ending.hpp"
#include "engine_layout.hpp"
#include "homogeneous_iterate.hpp"
#include "kkt.hpp"
#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Real>
class InteriorPoint : public HomogeneousIterate<Real> {
    using Iterate = HomogeneousIterate<Real>;

  public:
    using Iterate::view, Iterate::p, Iterate::x, Iterate::z, Iterate::s, Iterate::tau, Iterate::kappa, Iterate::last;
    using Iterate::measure;

    // state: what a suspended pack must keep; work: scratch that packs worked on in turn may share.
    CL_HD InteriorPoint(const EngineView& view_, const EngineSettings& settings_, Arena<Real>& state, Arena<Real>& work)
        : Iterate(view_, state, work), settings(settings_) {
        const int n = view.n, m = view.m, N = n + m;
        best_x = state.take(N), best_z = best_x + n, best_s = state.take(m);
        h = work.take(view.h_size), scaling = work.take(view.scaling_size);
        rhs = work.take(2 * N), step = work.take(2 * N), ds = work.take(m), shift = work.take(m);
        cone_work = work.take(2 * m + 4 * (long long)view.max_order * view.max_order + N);
        kkt.h = h, kkt.scaling = scaling, kkt.cone_work = cone_work, kkt.identity = true;
        kkt.factor = work.take(view.kkt.factor_size), kkt.base = work.take(view.kkt.factor_size), kkt.inverse = work.take(view.kkt.n);
        kkt.work = work.take(view.kkt.work);
        kkt.residual = work.take(2 * N), kkt.correction = work.take(2 * N), kkt.scratch = work.take(2 * view.kkt.n);
    }

    // Take up the programme in p (unscaled P, q, A, b). usable: lanes with finite data; the others fail at once.
    CL_HD void begin(const Mask<Real>& usable) {
        prepare(usable);
        kkt_assemble<Real>(view, p, kkt);
        assembled = true;
        start();
    }

    // Iterate until no more than `few` lanes are active, `rounds` times at most. A lane ends when its residuals and gap are
    // within the tolerance, when a certificate is, or when it cannot go on.
    CL_HD void iterate(double tolerance, int few = 0, int rounds = 1000000) {
        for (int round = 0;; ++round) {
            measure();
            judge(tolerance);
            if (count_lanes<Real>(active) <= few || round >= rounds || ended(settings)) break;
            if (!assembled) kkt_assemble<Real>(view, p, kkt);
            assembled = true;
            iteration = select(active, iteration + Real(1.0), iteration);
            advance();
        }
        assembled = false;  // another pack may use the scratch
    }

    // A few more iterations in lanes that are solved, towards a tighter tolerance. They stay solved, at their best point.
    CL_HD void refine(const Mask<Real>& which, double tolerance, int rounds) {
        reopen(which);
        iterate(tolerance, 0, rounds);
        if (any_lane(active)) give_up(active, kSolved);
        status = select(which, Real(double(kSolved)), status);
    }

    // Lanes that ended as solved go on, towards tighter tolerances.
    CL_HD void reopen(const Mask<Real>& which) {
        status = select(which, Real(double(kRunning)), status);
        active = mask_or(active, which);
    }

    // begin, iterate, point: the whole method, for a pack by itself.
    CL_HD void run(const Mask<Real>& usable) {
        begin(usable);
        iterate(settings.tol);
        point(x, z, s);
    }

    // See `HomogeneousIterate::point`.
    CL_HD void point(Arr<Real> to_x, Arr<Real> to_z, Arr<Real> to_s) const {
        const Mask<Real> primal = status == Real(double(kPrimalInfeasible));
        const Mask<Real> dual = status == Real(double(kDualInfeasible));
        Iterate::point(primal, dual, to_x, to_z, to_s);
    }

    // Exchange a lane's problem with one of another pack, but for the arrays of `state`.
    CL_HD void swap_scalars(int lane, InteriorPoint& other, int other_lane) {
        Real* const mine[] = {&p.c, &p.r, &status, &iteration, &tau, &kappa, &norm_q, &norm_b, &stalls,
                              &best, &best_tau, &scaled_P, &scaled_q, &scaled_b, &kkt.shift};
        Real* const theirs[] = {&other.p.c, &other.p.r, &other.status, &other.iteration, &other.tau,
                                &other.kappa, &other.norm_q, &other.norm_b, &other.stalls, &other.best,
                                &other.best_tau, &other.scaled_P, &other.scaled_q, &other.scaled_b, &other.kkt.shift};
        for (int k = 0; k < 15; ++k) {
            const double kept = get_lane(*mine[k], lane);
            set_lane(*mine[k], lane, get_lane(*theirs[k], other_lane));
            set_lane(*theirs[k], other_lane, kept);
        }
        Mask<Real>* const my_masks[] = {&active, &dual_only, &cautious};
        Mask<Real>* const their_masks[] = {&other.active, &other.dual_only, &other.cautious};
        for (int k = 0; k < 3; ++k) {
            const bool kept = get_mask(*my_masks[k], lane);
            set_mask(*my_masks[k], lane, get_mask(*their_masks[k], other_lane));
            set_mask(*their_masks[k], other_lane, kept);
        }
    }

    Real status, iteration;
    Mask<Real> active;  // lanes that iterate

  private:
    using Iterate::Px, Iterate::Ax, Iterate::Atz, Iterate::mu, Iterate::xPx, Iterate::qx, Iterate::bz;
    using Iterate::norm_q, Iterate::norm_b, Iterate::scaled_P, Iterate::scaled_q, Iterate::scaled_b;
    using Iterate::residual_x, Iterate::residual_z;

    CL_HD void prepare(const Mask<Real>& usable) {
        active = usable;
        status = select(usable, Real(double(kRunning)), Real(double(kFailed)));
        iteration = Real(0.0);
        stalls = Real(0.0);
        best = Real(1e300);
        best_tau = Real(1.0);
        dual_only = cautious = Real(0.0) > Real(1.0);
        kkt.shift = Real(settings.regularisation);
        this->scale(settings.equilibrate, step);
    }

    // Symmetric cones: the least-squares point of [P, A'; A, -I], shifted inside. Others: the central point.
    CL_HD void start() {
        const int n = view.n;
        tau = Real(1.0), kappa = Real(1.0);
        for (int i : each(n)) x[i] = Real(0.0);
        if (!view.symmetric) {
            cone_product::initialise<Real>(view, s, z);
            return;
        }
        cone_product::identity<Real>(view, h);
        kkt.identity = true;
        do {
            if (!assembled) kkt_assemble<Real>(view, p, kkt);
            assembled = true;
            least_squares();
        } while (any_lane(strengthen(kkt.spoiled)));
        cone_product::shift_inside<Real>(view, s, false, cone_work);
        cone_product::shift_inside<Real>(view, z, true, cone_work);
    }

    CL_HD void least_squares() {
        const int n = view.n, m = view.m, N = n + m;
        kkt_factor<Real>(view, settings, kkt);
        if (view.P_nnz > 0) {
            for (int i : each(n)) rhs[i] = -p.q[i];
            for (int i : each(m)) rhs[n + i] = p.b[i];
            kkt_solve<Real, 1>(view, settings, p, kkt, rhs, x, Real(0.0), active);
            for (int i : each(m)) s[i] = -z[i];
        } else {  // no quadratic term: the two halves of the same least-squares problem
            for (int i : each(N)) rhs[i] = i < n ? Real(0.0) : p.b[i - n];
            for (int i : each(N)) rhs[N + i] = i < n ? -p.q[i] : Real(0.0);
            kkt_solve<Real, 2>(view, settings, p, kkt, rhs, step, Real(0.0), active);
            for (int i : each(n)) x[i] = step[i];
            for (int i : each(m)) s[i] = -step[n + i], z[i] = step[N + n + i];
        }
    }

    CL_HD void conclude(const Mask<Real>& lanes_done, int code) {
        const Mask<Real> now = mask_and(active, lanes_done);
        status = select(now, Real(double(code)), status);
        active = mask_and(active, mask_not(now));
    }

    // Stopping tests; keeps the best point so far of the lanes that go on.
    CL_HD void judge(double tolerance) {
        const Mask<Real> finite = is_finite(xPx + qx + bz + mu + tau + kappa);
        const Real bound(tolerance);
        const Mask<Real> gap = mask_or(last.gap_absolute <= bound, last.gap <= bound);
        const Mask<Real> feasible = mask_and(last.primal <= bound, last.dual <= bound);
        const Mask<Real> tending = kappa > tau;
        conclude(mask_and(finite, mask_and(gap, feasible)), kSolved);
        const Real tol(settings.tol_infeasible);
        conclude(mask_and(finite, mask_and(tending, last.infeasible_primal <= tol)), kPrimalInfeasible);
        conclude(mask_and(finite, mask_and(tending, last.infeasible_dual <= tol)), kDualInfeasible);
        // At the end of what the norms can tell, the latest point is the best: small parts of a programme still gain.
        const Mask<Real> lower = mask_or(last.worst < best, last.worst <= Real(settings.tol_late));
        const Mask<Real> better = mask_and(active, mask_and(finite, lower));
        best = select(better, last.worst, best);
        best_tau = select(better, tau, best_tau);
        const int N = view.n + view.m;
        for (int i : each(N)) best_x[i] = select(better, x[i], best_x[i]);
        for (int i : each(view.m)) best_s[i] = select(better, s[i], best_s[i]);
        const Mask<Real> stuck = mask_or(mask_not(finite), stalls > Real(2.5));
        if (any_lane(mask_and(active, stuck))) give_up(stuck, kFailed);
        const Mask<Real> late = mask_and(active, iteration >= Real(double(settings.max_iter)));
        if (any_lane(late)) give_up(late, kIterationLimit);
    }

    // The best point seen, as INACCURATE if it is within the reduced tolerance; else a rough certificate; else `code`.
    CL_HD void give_up(const Mask<Real>& which, int code) {
        const Mask<Real> back = mask_and(active, mask_and(which, best <= Real(settings.tol_reduced)));
        const Real rough(1e-6);
        const Mask<Real> tending = mask_and(which, kappa > Real(1e3) * tau);
        const int N = view.n + view.m;
        for (int i : each(N)) x[i] = select(back, best_x[i], x[i]);
        for (int i : each(view.m)) s[i] = select(back, best_s[i], s[i]);
        tau = select(back, best_tau, tau);
        conclude(back, kInaccurate);
        conclude(mask_and(tending, last.infeasible_primal <= rough), kPrimalInfeasible);
        conclude(mask_and(tending, last.infeasible_dual <= rough), kDualInfeasible);
        conclude(which, code);
        measure();  // the residuals reported are those of the point returned
    }

    // One predictor-corrector step.
    CL_HD void advance() {
        const int n = view.n, m = view.m, N = n + m;
        kkt.identity = false;
        cone_product::update<Real>(view, s, z, mu, dual_only, h, scaling, cone_work);
        kkt_factor<Real>(view, settings, kkt);
        for (int i : each(n)) rhs[i] = -p.q[i], rhs[N + i] = residual_x(i);
        for (int i : each(m)) rhs[n + i] = p.b[i], rhs[N + n + i] = s[i] - residual_z(i);
        for (int i : each(m)) shift[i] = s[i];
        // Residuals far below mu change nothing; those of curved cones go into s whole, see primal_step.
        const Real tolerance = mu * Real(settings.refine_below), fine = mu * Real(diagonal() ? settings.refine_below : 1e-5);
        kkt_solve<Real, 2>(view, settings, p, kkt, rhs, step, tolerance, active);
        Mask<Real> refused = kkt.spoiled;
        constant_part();
        Real dtau, dkappa;
        complete(tau * kappa, Real(1.0), dtau, dkappa, false);
        Real alpha = length(dtau, dkappa, Real(1.0));
        const Real keep = Real(1.0) - alpha;
        const Real sigma = select(cautious, max(keep * keep * keep, 0.3), keep * keep * keep), f = Real(1.0) - sigma;
        forget_predictor(dtau);
        cone_product::correct<Real>(view, z, ds, step + (N + n), sigma * mu, scaling, shift, cone_work);
        for (int i : each(n)) rhs[N + i] = f * residual_x(i);
        for (int i : each(m)) rhs[N + n + i] = shift[i] - f * residual_z(i);
        const Real unsolved = kkt_solve<Real, 1>(view, settings, p, kkt, rhs + N, step + N, fine, active);
        refused = strengthen(mask_or(refused, kkt.spoiled));
        const Mask<Real> taken = mask_and(active, mask_not(refused));
        if (kkt_adapt_shift<Real>(settings, kkt, unsolved, mu * Real(settings.refine_below), taken)) assembled = false;
        complete(tau * kappa + dtau * dkappa - sigma * mu, f, dtau, dkappa, true);
        alpha = length(dtau, dkappa, Real(settings.step_fraction));
        move(alpha, dtau, dkappa, refused);
    }

    // Raise the shift of lanes with a spoiled solve. Returns those whose step is to be done again.
    CL_HD Mask<Real> strengthen(const Mask<Real>& spoiled) {
        const Mask<Real> stronger = kkt_raise_shift<Real>(settings, kkt, mask_and(active, spoiled));
        assembled = assembled && !any_lane(stronger);
        return stronger;
    }

    // After a short step a lane is badly centred: the next corrector only centres, without the second-order term.
    CL_HD void forget_predictor(Real& dtau) {
        if (!any_lane(cautious)) return;
        const int N = view.n + view.m;
        for (int i : each(N + view.n, 2 * N)) step[i] = select(cautious, Real(0.0), step[i]);
        for (int i : each(view.m)) ds[i] = select(cautious, Real(0.0), ds[i]);
        dtau = select(cautious, Real(0.0), dtau);
    }

    CL_INLINE bool diagonal() const { return view.h_size == view.m; }  // only zero and nonnegative cones

    // Denominator of dtau from u2 = K^-1 (-q, b) (the first half of `step`).
    CL_HD void constant_part() {
        const Real it = Real(1.0) / tau;
        const Real px2 = dot<Real>(view.n, Px, step) * it;
        denominator = kappa * it + xPx * it * it - Real(2.0) * px2 - dot<Real>(view.n, p.q, step) -
                      dot<Real>(view.m, p.b, step + view.n);
        denominator = max(denominator, kappa * it);  // positive in exact arithmetic, at least kappa / tau
    }

    // From u1 (second half of `step`) to the whole direction; d_s is `shift`. accurate: see primal_step.
    CL_HD void complete(const Real& dk, const Real& f, Real& dtau, Real& dkappa, bool accurate) {
        const int n = view.n, m = view.m, N = n + m;
        const Real it = Real(1.0) / tau;
        const Real rt = kappa + xPx * it + qx + bz;
        Arr<Real> u1 = step + N;
        const Real along = Real(2.0) * it * dot<Real>(n, Px, u1) + dot<Real>(n, p.q, u1) + dot<Real>(m, p.b, u1 + n);
        dtau = (f * rt - dk * it + along) / denominator;
        dkappa = -(dk + kappa * dtau) * it;
        for (int i : each(N)) u1[i] += dtau * step[i];
        if (accurate) return primal_step(dtau, f);
        for (int i : each(m)) ds[i] = -shift[i];
        cone_product::multiply<Real>(view, h, scaling, false, Real(-1.0), u1 + n, ds, cone_work);
    }

    // ds of non-separable cones from the primal equation: -d_s - H dz would bring the rounding of H's largest
    // eigenvalues into all of s. On the diagonal blocks -d_s - h dz is exact entry by entry, which keeps tiny entries
    // of s from being swamped by the residual of the solve.
    CL_HD void primal_step(const Real& dtau, const Real& f) {
        const int N = view.n + view.m;
        Arr<Real> dx = step + N, Adx = kkt.residual;
        for (int i : each(view.m)) Adx[i] = Real(0.0);
        for (int j = 0; j < view.n && !diagonal(); ++j)
            for (int e : each(view.A_column[j], view.A_column[j + 1])) Adx[view.A_row[e]] += p.A[e] * dx[j];
        for (int b = 0; b < view.cones; ++b) {
            const ConeBlock& c = view.cone[b];
            Arr<Real> hb = h + c.h, dzb = dx + (view.n + c.row);
            for (int i : each(c.dim)) {
                const int row = c.row + i;
                if (c.kind == kZero) ds[row] = Real(0.0);
                else if (c.kind == kNonnegative) ds[row] = -shift[row] - hb[i] * dzb[i];
                else ds[row] = dtau * p.b[row] - Adx[row] - f * residual_z(row);
            }
        }
    }

    CL_HD Real length(const Real& dtau, const Real& dkappa, const Real& fraction) {
        const int n = view.n, N = view.n + view.m;
        const Real worst = max(-dtau / tau, -dkappa / kappa);
        Real alpha = min(view.symmetric ? Real(1.0) : fraction, fraction / max(worst, 1e-300));
        alpha = cone_product::max_step<Real>(view, s, ds, z, step + (N + n), scaling, alpha, fraction, active, cone_work);
        return select(is_finite(alpha + dtau + dkappa), alpha, Real(0.0));
    }

    CL_HD void move(Real alpha, const Real& dtau, const Real& dkappa, const Mask<Real>& refused) {
        const int N = view.n + view.m;
        const Mask<Real> taken = mask_and(active, mask_not(refused));
        alpha = select(taken, alpha, Real(0.0));
        cautious = mask_and(taken, alpha < Real(0.1));
        const Mask<Real> short_step = mask_and(taken, alpha < Real(1e-4));
        stalls = select(refused, stalls, select(short_step, stalls + Real(1.0), Real(0.0)));
        if (!view.symmetric) dual_only = short_step;  // try the other scaling once
        Arr<Real> u1 = step + N;
        const Mask<Real> moving = alpha > Real(0.0);
        for (int i : each(N)) x[i] = select(moving, x[i] + alpha * u1[i], x[i]);
        for (int i : each(view.m)) s[i] = select(moving, s[i] + alpha * ds[i], s[i]);
        tau = select(moving, tau + alpha * dtau, tau);
        kappa = select(moving, kappa + alpha * dkappa, kappa);
        this->enlarge(active);
    }

    const EngineSettings& settings;
    Kkt<Real> kkt;
    Arr<Real> best_x, best_z, best_s, h, scaling, rhs, step, ds, shift, cone_work;
    Real denominator, stalls, best, best_tau;
    Mask<Real> dual_only, cautious;
    bool assembled = false;  // kkt holds the fixed part
};

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

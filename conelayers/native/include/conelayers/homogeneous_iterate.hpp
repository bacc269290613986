// The iterate of the homogeneous embedding, and how far it is from being a solution or a certificate.
//
// With xi = x / tau, in the notation of `interior_point.hpp`, the residuals are
//   rx = -(P x + A' z + q tau),   rz = s + A x - b tau,   rt = kappa + x'P x / tau + q'x + b'z.
#pragma once

#include "arena.hpp"
#include "engine_layout.hpp"
#include "origin.hpp"
#include "pack.hpp"
#include "programme.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// What the stopping tests look at, in the units of the original programme.
template <class Real>
struct Progress {
    Real primal, dual, gap, gap_absolute;  // relative residuals, relative gap and gap in units
    Real worst;                            // the largest of the first three
    Real infeasible_primal, infeasible_dual;  // residuals of normalised certificates; 1e300 if of the wrong sign
};

template <class Real>
class HomogeneousIterate {
  public:
    // state: what a suspended pack must keep; work: scratch that packs worked on in turn may share.
    CL_HD HomogeneousIterate(const EngineView& view_, Arena<Real>& state, Arena<Real>& work) : view(view_) {
        const int n = view.n, m = view.m;
        p.P = state.take(view.P_nnz), p.A = state.take(view.A_nnz);
        p.q = state.take(n), p.b = state.take(m), p.D = state.take(n), p.E = state.take(m);
        x0 = state.take(n), y0 = state.take(m);
        x = state.take(n + m), z = x + n, s = state.take(m);
        Px = work.take(n), Ax = work.take(m), Atz = work.take(n);
    }

    // Equilibrate the programme in p, counted from an origin, and keep the sizes of its data. scratch: n + m.
    CL_HD void scale(int rounds, Arr<Real> scratch) {
        choose_origin<Real>(view, p, x0, y0, Px, Ax, Atz);
        norm_q = norm_inf<Real>(p.q, view.n);
        norm_b = norm_inf<Real>(p.b, view.m);
        equilibrate<Real>(view, p, rounds, scratch);
        scaled_P = norm_inf<Real>(p.P, view.P_nnz), scaled_q = norm_inf<Real>(p.q, view.n);
        scaled_b = norm_inf<Real>(p.b, view.m);
    }

    // Products at the iterate, mu, and the stopping quantities.
    CL_HD void measure() {
        const int n = view.n, m = view.m;
        products<Real, 1>(view, p, x, z, 0, Px, Ax, Atz);
        xPx = dot<Real>(n, x, Px), qx = dot<Real>(n, p.q, x), bz = dot<Real>(m, p.b, z);
        mu = (dot<Real>(m, s, z) + tau * kappa) / Real(view.degree + 1.0);
        const Real it = Real(1.0) / tau, ic = Real(1.0) / p.c, unit = p.r * it;
        Real rx(0.0), rz(0.0), nPx(0.0), nAtz(0.0), nAx(0.0), ns(0.0);
        Real ray_P(0.0), ray_A(0.0), ray_z(0.0);  // in scaled units
        for (int i : each(n)) {
            const Real d = Real(1.0) / p.D[i];
            rx = max(rx, abs((Px[i] + Atz[i] + p.q[i] * tau) * d));
            nPx = max(nPx, abs(Px[i] * d)), nAtz = max(nAtz, abs(Atz[i] * d));
            ray_P = max(ray_P, abs(Px[i])), ray_z = max(ray_z, abs(Atz[i]));
        }
        for (int i : each(m)) {
            const Real e = Real(1.0) / p.E[i];
            rz = max(rz, abs((s[i] + Ax[i] - p.b[i] * tau) * e));
            nAx = max(nAx, abs(Ax[i] * e)), ns = max(ns, abs(s[i] * e));
            ray_A = max(ray_A, abs(s[i] + Ax[i]));
        }
        join_max(rx, rz, nPx, nAtz, nAx, ns, ray_P, ray_A, ray_z);
        const Real primal_size = max(norm_b, max(nAx, ns) * unit), dual_size = max(norm_q, max(nPx, nAtz) * unit * ic);
        const Real one_x = one_of(primal_size, norm_b), one_y = one_of(dual_size, norm_q);
        last.primal = rz * unit / max(one_x, primal_size);
        last.dual = rx * unit * ic / max(one_y, dual_size);
        const Real half = Real(0.5) * xPx * it, objective = unit * p.r * ic;
        const Real primal = (half + qx) * objective, dual = -(half + bz) * objective;
        const Real apart = abs(xPx * it + qx + bz) * objective, one = one_x * one_y;
        last.gap_absolute = apart / one;
        last.gap = apart / max(one, min(abs(primal), abs(dual)));
        last.worst = max(last.primal, max(last.dual, last.gap));
        certificates(ray_P, ray_A, ray_z);
    }

    // The point in the units of the programme; certificates of primal and of dual infeasibility are normalised to b'y = -1
    // and q'x = -1. The arrays may be those of the iterate, which then ends here.
    CL_HD void point(const Mask<Real>& primal, const Mask<Real>& dual, Arr<Real> to_x, Arr<Real> to_z, Arr<Real> to_s) const {
        const Real ray = p.r * p.r / p.c;
        const Real by = dot<Real>(view.m, p.b, z) * ray, qx_now = dot<Real>(view.n, p.q, x) * ray;
        const Real t = select(primal, -by, select(dual, -qx_now, tau));
        const Real it = p.r / t, ic = it / p.c;
        const Real from = select(mask_or(primal, dual), Real(0.0), Real(1.0));  // directions have no origin
        for (int i : each(view.n)) to_x[i] = x[i] * p.D[i] * it + from * x0[i];
        for (int i : each(view.m)) to_z[i] = z[i] * p.E[i] * ic + from * y0[i], to_s[i] = s[i] / p.E[i] * it;
    }

    // The embedding is homogeneous: a point that has become small goes on as a multiple of it, so that what solves leave is
    // small against it. The factor is a power of two: no digit changes.
    CL_HD void enlarge(const Mask<Real>& which) {
        const Mask<Real> tiny = mask_and(which, max(tau, kappa) < Real(0.0625));
        if (!any_lane(tiny)) return;
        const Real factor = select(tiny, Real(16.0), Real(1.0));
        for (int i : each(view.n + view.m)) x[i] *= factor;
        for (int i : each(view.m)) s[i] *= factor;
        tau *= factor;
        kappa *= factor;
    }

    CL_INLINE Real residual_x(int i) const { return -(Px[i] + Atz[i] + p.q[i] * tau); }
    CL_INLINE Real residual_z(int i) const { return s[i] + Ax[i] - p.b[i] * tau; }

    const EngineView& view;
    Programme<Real> p;
    Arr<Real> x, z, s;  // scaled
    Arr<Real> x0, y0;   // the origin of x and z, in the units of the programme
    Real tau, kappa;
    Progress<Real> last;
    Arr<Real> Px, Ax, Atz;  // products at the iterate, as `measure` left them
    Real mu, xPx, qx, bz;
    Real norm_q, norm_b, scaled_P, scaled_q, scaled_b;  // the data's largest entries, before and after equilibration

  private:
    // What counts as one against terms of this size: less where all of the programme is far below one, and its data say so.
    CL_INLINE static Real one_of(const Real& size, const Real& data) {
        return select(data > Real(0.0), min(Real(1.0), Real(1e3) * size), Real(1.0));
    }

    // Infeasibility: A'z = 0 with b'z < 0; unboundedness: Px = 0, Ax + s = 0 with q'x < 0. Measured against the size
    // of the data, so that neither depends on the units of b and q.
    CL_HD void certificates(const Real& ray_P, const Real& ray_A, const Real& ray_z) {
        const Real huge(1e300), zero(0.0), one(1.0);
        last.infeasible_primal = select(bz < zero, ray_z * scaled_b / select(bz < zero, -bz, one), huge);
        const Real curvature = select(scaled_P > zero, ray_P / select(scaled_P > zero, scaled_P, one), zero);
        const Real along = scaled_q / select(qx < zero, -qx, one);
        last.infeasible_dual = select(qx < zero, max(curvature, ray_A) * along, huge);
    }
};

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// Solving with the Jacobian for several right-hand sides of one factor: `derivative_solve`, N at a time, so that each
// entry of the factor and of A is read once for all of them.
#pragma once

#include "arena.hpp"
#include "derivative.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// N vectors of n + m entries in each array, one after the other.
template <class Real, int N>
struct SeveralWork {
    Arr<Real> rhs, solution, residual, trial, trial_residual, direct, image, permuted;
    long long size;

    CL_HD SeveralWork(const DerivativeView& view, Arr<Real> base, bool counting = false) {
        Arena<Real> arena{base, counting};
        const long long count = (long long)N * (view.n + view.m);
        rhs = arena.take(count), solution = arena.take(count), residual = arena.take(count);
        trial = arena.take(count), trial_residual = arena.take(count), direct = arena.take(count);
        image = arena.take((long long)N * view.m), permuted = arena.take((long long)N * view.ldlt.n);
        size = arena.used;
    }
};

namespace several_detail {

// out_q = rhs_q - J z_q, as `jacobian_residual`.
template <class Real, int N>
CL_HD inline void residuals(const DerivativeView& view, const DerivativeWork<Real>& w, const SeveralWork<Real, N>& t,
                            Arr<Real> z, Arr<Real> out) {
    const int n = view.n, m = view.m, size = n + m;
    for (int q = 0; q < N; ++q) {
        Arr<Real> dv = z + (q * size + n), image = t.image + q * m, b = t.rhs + q * size, r = out + q * size;
        projection::apply_derivative<Real>(view.cone, w.element, dv, image, w.scratch);
        for (int j = 0; j < n; ++j) r[j] = b[j];
        for (int i = 0; i < m; ++i) r[n + i] = b[n + i] + (dv[i] - image[i]);
    }
    for (int j = 0; j < n; ++j) {
        Real x[N], sum[N];
        for (int q = 0; q < N; ++q) x[q] = z[q * size + j], sum[q] = Real(0.0);
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const Real a = w.a[k];
            const int i = view.a_row[k];
            CL_UNROLL
            for (int q = 0; q < N; ++q) {
                out[q * size + n + i] -= a * x[q];
                sum[q] += a * t.image[q * m + i];
            }
        }
        for (int k = view.p_start[j]; k < view.p_start[j + 1]; ++k) {
            const Real p = w.p[k];
            const int i = view.p_row[k];
            for (int q = 0; q < N; ++q) {
                sum[q] += p * z[q * size + i];
                if (i != j) out[q * size + i] -= p * x[q];
            }
        }
        for (int q = 0; q < N; ++q) out[q * size + j] -= sum[q];
    }
}

// t.direct_q = M t.residual_q, as `regularised_solve`.
template <class Real, int N>
CL_HD inline void corrections(const DerivativeView& view, const DerivativeWork<Real>& w,
                              const SeveralWork<Real, N>& t) {
    const int n = view.n, m = view.m, size = n + m;
    Arr<Real> z = t.direct, r = t.residual;
    for (int q = 0; q < N; ++q) {
        for (int j = 0; j < n; ++j) z[q * size + j] = w.column[j] * r[q * size + j];
        for (int i = 0; i < m; ++i) z[q * size + n + i] = w.row[i] * r[q * size + n + i];
    }
    ldlt_solve<Real, N>(view.ldlt, w.factor, w.inverse, z, z, t.permuted);
    for (int q = 0; q < N; ++q) {
        for (int j = 0; j < n; ++j) z[q * size + j] = w.column[j] * z[q * size + j];
        for (int i = 0; i < m; ++i) {
            const int k = q * size + n + i;
            z[k] = w.row[i] * w.active[i] * z[k] - r[k];
        }
    }
    for (int j = 0; j < n; ++j)
        for (int k = view.a_start[j]; k < view.a_start[j + 1]; ++k) {
            const Real a = w.a[k];
            const int i = n + view.a_row[k];
            CL_UNROLL
            for (int q = 0; q < N; ++q) z[q * size + i] += a * z[q * size + j];
        }
}

}  // namespace several_detail

// t.solution_q = J^-1 t.rhs_q and relative[q], as `derivative_solve` finds them.
template <class Real, int N>
CL_HD inline void derivative_solve_several(const DerivativeView& view, const DerivativeWork<Real>& w,
                                           const SeveralWork<Real, N>& t, Real (&relative)[N]) {
    const int size = view.n + view.m;
    Real start[N], norm[N], floor[N];
    Mask<Real> active[N];
    for (int k = 0; k < N * size; ++k) t.solution[k] = Real(0.0), t.residual[k] = t.rhs[k];
    for (int q = 0; q < N; ++q) {
        start[q] = norm[q] = residual_norm(view, w, t.rhs + q * size);
        floor[q] = Real(0.0), active[q] = start[q] > Real(0.0);
    }
    for (int iteration = 0; iteration < 8; ++iteration) {
        several_detail::corrections<Real, N>(view, w, t);
        for (int k = 0; k < N * size; ++k) t.trial[k] = t.solution[k] + t.direct[k];
        several_detail::residuals<Real, N>(view, w, t, t.trial, t.trial_residual);
        Mask<Real> any = Real(0.0) > Real(1.0);
        for (int q = 0; q < N; ++q) {
            const RefinedPoint<Real> point{t.solution + q * size, t.residual + q * size, t.trial + q * size,
                                           t.trial_residual + q * size};
            const auto gained = accept_trial<Real>(view, w, point, active[q], norm[q]);
            floor[q] = Real(5e-15) * (start[q] + solution_norm(view, w, point.solution));
            active[q] = mask_and(gained, norm[q] > floor[q]);
            any = mask_or(any, active[q]);
        }
        if (!any_lane(any)) break;
    }
    for (int q = 0; q < N; ++q) {
        Arr<Real> solution = t.solution + q * size;
        const Real poison = norm[q] - norm[q];  // not zero where an input was not finite
        for (int k = 0; k < size; ++k) solution[k] = solution[k] + poison;
        relative[q] = norm[q] / select(start[q] == Real(0.0), Real(1.0), start[q]);
        if (!any_lane(norm[q] > max(Real(1e-10) * start[q], floor[q]))) continue;
        for (int k = 0; k < size; ++k) w.rhs[k] = t.rhs[q * size + k];
        relative[q] = derivative_solve(view, w);  // again, with the Krylov fallback
        for (int k = 0; k < size; ++k) solution[k] = w.solution[k];
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

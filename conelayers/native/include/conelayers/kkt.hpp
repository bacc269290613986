// The KKT matrix [P, A'; A, -H] of one pack: assembly with static regularisation, factorization, and solves with
// iterative refinement against the matrix without regularisation.
#pragma once

#include "cone_product.hpp"
#include "engine_layout.hpp"
#include "ldlt.hpp"
#include "pack.hpp"
#include "programme.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Real>
struct Kkt {
    Arr<Real> factor, inverse, work;         // LDL^T
    Arr<Real> residual, correction, scratch; // 2 (n + m) packs each
};

template <class Real>
CL_HD inline void kkt_factor(const EngineView& view, const EngineSettings& settings, const Programme<Real>& p,
                             Arr<Real> h, Kkt<Real>& kkt) {
    Arr<Real> f = kkt.factor;
    ldlt_clear<Real>(view.kkt, f);
    for (int e = 0; e < view.P_nnz; ++e) f[view.P_position[e]] = p.P[e];
    for (int e = 0; e < view.A_nnz; ++e) f[view.A_position[e]] = p.A[e];
    for (long long e = 0; e < view.h_size; ++e) f[view.h_position[e]] -= h[e];
    const Real eps(settings.regularisation);
    for (int i = 0; i < view.n; ++i) f[view.diagonal_position[i]] += eps;
    for (int i = view.n; i < view.n + view.m; ++i) f[view.diagonal_position[i]] -= eps;
    const PivotRule rule{1e-13, 2e-7};
    ldlt_factor<Real>(view.kkt, f, kkt.inverse, kkt.work, view.signs, rule);
}

// residual = rhs - [P, A'; A, -H] solution for N vectors, n + m packs apart; norm: the largest entry.
template <class Real, int N>
CL_HD inline Real kkt_residual(const EngineView& view, const Programme<Real>& p, Arr<Real> h, Arr<Real> rhs,
                               Arr<Real> solution, Arr<Real> residual, Arr<Real> Px) {
    const int n = view.n, size = view.n + view.m;
    products<Real, N>(view, p, solution, solution + n, size, Px, residual + n, residual);
    Real norm(0.0);
    for (int k = 0; k < N; ++k) {
        Arr<Real> r = residual + k * size, b = rhs + k * size;
        cone_product::multiply<Real>(view, h, Real(-1.0), solution + (k * size + n), r + n);
        for (int i = 0; i < n; ++i) r[i] = b[i] - r[i] - Px[k * size + i];
        for (int i = n; i < size; ++i) r[i] = b[i] - r[i];
        norm = max(norm, norm_inf<Real>(r, size));
    }
    return norm;
}

// Solve for N right-hand sides, n + m packs apart. Lanes keep a correction only where it lowers the residual.
template <class Real, int N>
CL_HD inline void kkt_solve(const EngineView& view, const EngineSettings& settings, const Programme<Real>& p,
                            Arr<Real> h, Kkt<Real>& kkt, Arr<Real> rhs, Arr<Real> solution,
                            const Mask<Real>& active) {
    const int size = view.n + view.m;
    ldlt_solve<Real, N>(view.kkt, kkt.factor, kkt.inverse, rhs, solution, kkt.scratch);
    const Real target = Real(1e-12) + Real(1e-13) * norm_inf<Real>(rhs, N * size);
    Real norm = kkt_residual<Real, N>(view, p, h, rhs, solution, kkt.residual, kkt.scratch);
    for (int it = 0; it < settings.refinements; ++it) {
        if (!any_lane(mask_and(active, norm > target))) return;
        ldlt_solve<Real, N>(view.kkt, kkt.factor, kkt.inverse, kkt.residual, kkt.correction, kkt.scratch);
        for (int i = 0; i < N * size; ++i) kkt.correction[i] += solution[i];
        const Real after = kkt_residual<Real, N>(view, p, h, rhs, kkt.correction, kkt.residual, kkt.scratch);
        const Mask<Real> better = after < norm;
        for (int i = 0; i < N * size; ++i) solution[i] = select(better, kkt.correction[i], solution[i]);
        const Mask<Real> halved = mask_and(active, mask_and(norm > target, after < Real(0.5) * norm));
        norm = min(norm, after);
        if (!all_lanes(mask_or(better, mask_not(mask_and(active, norm > target)))) && any_lane(halved)) {
            // some lanes went back: their residual must match the solution they kept
            norm = kkt_residual<Real, N>(view, p, h, rhs, solution, kkt.residual, kkt.scratch);
        }
        if (!any_lane(halved)) return;
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// The KKT matrix [P, A'; A, -H] of one pack: assembly with static regularisation, factorization, and solves with
// iterative refinement against the matrix without regularisation.
#pragma once

#include "cone_product.hpp"
#include "engine_layout.hpp"
#include "ldlt.hpp"
#include "ldlt_solve.hpp"
#include "pack.hpp"
#include "programme.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Real>
struct Kkt {
    Arr<Real> factor, inverse, work;         // LDL^T
    Arr<Real> base;                          // of the factor, the part that H changes, before it does
    Arr<Real> h, scaling, cone_work;         // see cone_product.hpp
    bool identity;                           // H = I: no scaling data
    Real shift;                              // regularisation of the diagonal
    Real bias, rounding;                     // what it and what rounding left of the last right-hand side before refinement
    Mask<Real> spoiled;                      // lanes where the last solve is of no use, by rounding
    Arr<Real> residual, correction;          // 2 (n + m) packs each
    Arr<Real> scratch;                       // twice the order of the factor
};

CL_HD inline PivotRule kkt_pivots() { return {1e-13, 2e-7}; }

// What does not depend on H: P, A, the regularisation, and all that is eliminated before a row of H.
template <class Real>
CL_HD inline void kkt_assemble(const EngineView& view, const Programme<Real>& p, Kkt<Real>& kkt) {
    Arr<Real> f = kkt.factor;
    ldlt_clear<Real>(view.kkt, f);
    for (int e : each(view.P_nnz)) f[view.P_position[e]] = p.P[e];
    for (int e : each(view.A_nnz)) f[view.A_position[e]] = p.A[e];
    const Real eps = kkt.shift;
    for (int i : each(view.n)) f[view.diagonal_position[i]] += eps;
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        if (c.kind > kNonnegative) continue;
        for (int i : each(view.n + c.row, view.n + c.row + c.dim)) f[view.diagonal_position[i]] -= eps;
    }
    ldlt_factor<Real>(view.kkt, f, kkt.inverse, kkt.work, view.signs, kkt_pivots(), Part::fixed);
    ldlt_copy_varying<Real>(view.kkt, f, kkt.base);
}

// The factor for the present H, after kkt_assemble.
template <class Real>
CL_HD inline void kkt_factor(const EngineView& view, const EngineSettings& settings, Kkt<Real>& kkt) {
    Arr<Real> f = kkt.factor;
    ldlt_copy_varying<Real>(view.kkt, kkt.base, f);
    for (long long e : each(view.h_size)) f[view.h_position[e]] -= kkt.h[e];  // nothing in rows of zero cones
    const Real eps = kkt.shift;
    const Real relative(settings.relative_regularisation);  // rounding in dense blocks of H may swamp eps
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        if (c.kind <= kNonnegative) continue;
        for (int i : each(view.n + c.row, view.n + c.row + c.dim)) {
            const Real d = f[view.diagonal_position[i]];
            f[view.diagonal_position[i]] = d * (Real(1.0) + relative) - eps;
        }
    }
    ldlt_factor<Real>(view.kkt, f, kkt.inverse, kkt.work, view.signs, kkt_pivots(), Part::varying);
}

// residual = rhs - [P, A'; A, -H] solution for N vectors, n + m packs apart; norm[k]: its largest entry.
template <class Real, int N>
CL_HD inline void kkt_residual(const EngineView& view, const Programme<Real>& p, const Kkt<Real>& kkt, Arr<Real> rhs,
                               Arr<Real> solution, Arr<Real> residual, Arr<Real> Px, Real (&norm)[N]) {
    const int n = view.n, size = view.n + view.m;
    products<Real, N>(view, p, solution, solution + n, size, Px, residual + n, residual);
    for (int k = 0; k < N; ++k) {
        Arr<Real> r = residual + k * size, b = rhs + k * size;
        cone_product::multiply<Real>(view, kkt.h, kkt.scaling, kkt.identity, Real(-1.0), solution + (k * size + n), r + n,
                                     kkt.cone_work);
        for (int i : each(n)) r[i] = b[i] - r[i] - Px[k * size + i];
        for (int i : each(n, size)) r[i] = b[i] - r[i];
        norm[k] = norm_inf<Real>(r, size);
    }
}

// An exact solve with the shift leaves the residual shift * (x, -z), of which the largest entry is the bias; what is left besides
// is rounding.
template <class Real>
CL_HD inline void measure_errors(const EngineView& view, const Kkt<Real>& kkt, Arr<Real> solution, Arr<Real> residual,
                                 Real& bias, Real& rounding) {
    bias = rounding = Real(0.0);
    for (int i : each(view.n + view.m)) {
        const Real left = kkt.shift * (i < view.n ? solution[i] : -solution[i]);
        bias = max(bias, abs(left));
        rounding = max(rounding, abs(residual[i] - left));
    }
    join_max(bias, rounding);
}

constexpr double kSpoiled = 0.1;  // a solve that leaves more than this part of its right-hand side is of no use

// Solve for N right-hand sides, n + m packs apart, to residuals of at most `tolerance` if refinement gets there. A lane keeps
// a correction only where it lowers the residual. Returns the residual of the last one where it is above that, else 0.
template <class Real, int N>
CL_HD inline Real kkt_solve(const EngineView& view, const EngineSettings& settings, const Programme<Real>& p,
                            Kkt<Real>& kkt, Arr<Real> rhs, Arr<Real> solution, const Real& tolerance,
                            const Mask<Real>& active) {
    const int size = view.n + view.m;
    ldlt_solve<Real, N>(view.kkt, kkt.factor, kkt.inverse, rhs, solution, kkt.scratch);
    Real norm[N], after[N], target[N], useless[N];
    for (int k = 0; k < N; ++k) {
        const Real given = norm_inf<Real>(rhs + k * size, size);
        target[k] = max(Real(1e-12) + Real(1e-13) * given, tolerance), useless[k] = max(target[k], Real(kSpoiled) * given);
    }
    kkt_residual<Real, N>(view, p, kkt, rhs, solution, kkt.residual, kkt.scratch, norm);
    Mask<Real> spoiled[N];
    for (int k = 0; k < N; ++k) {
        spoiled[k] = mask_and(active, mask_not(norm[k] <= useless[k]));
        const bool last = k == N - 1 && any_lane(mask_and(active, norm[k] > target[k]));
        if (!last && !any_lane(spoiled[k])) continue;
        Real bias, rounding;
        measure_errors<Real>(view, kkt, solution + k * size, kkt.residual + k * size, bias, rounding);
        if (last) kkt.bias = bias, kkt.rounding = rounding;
        spoiled[k] = mask_and(spoiled[k], mask_not(rounding <= bias));
    }
    Mask<Real> going = active;
    for (int it = 0; it < (N == 1 ? settings.refinements : 1); ++it) {
        Mask<Real> above = norm[0] > target[0];
        for (int k = 1; k < N; ++k) above = mask_or(above, norm[k] > target[k]);
        going = mask_and(going, above);
        if (!any_lane(going)) break;
        ldlt_solve<Real, N>(view.kkt, kkt.factor, kkt.inverse, kkt.residual, kkt.correction, kkt.scratch);
        for (int i : each(N * size)) kkt.correction[i] += solution[i];
        kkt_residual<Real, N>(view, p, kkt, rhs, kkt.correction, kkt.residual, kkt.scratch, after);
        Mask<Real> halved = Real(0.0) > Real(1.0);
        for (int k = 0; k < N; ++k) {
            const Mask<Real> better = mask_and(going, after[k] < Real(it == 0 ? 1e4 : 1.0) * norm[k]);
            for (int i : each(k * size, (k + 1) * size))
                solution[i] = select(better, kkt.correction[i], solution[i]);
            halved = mask_or(halved, mask_and(norm[k] > target[k], after[k] < Real(0.5) * norm[k]));
            norm[k] = select(better, after[k], norm[k]);
        }
        going = mask_and(going, halved);
    }
    kkt.spoiled = mask_and(spoiled[0], mask_not(norm[0] <= useless[0]));
    for (int k = 1; k < N; ++k) kkt.spoiled = mask_or(kkt.spoiled, mask_and(spoiled[k], mask_not(norm[k] <= useless[k])));
    return select(norm[N - 1] <= target[N - 1], Real(0.0), norm[N - 1]);
}

// Unknowns that only the shift holds need one well above the rounding that other pivots bring, which is 1e-16 / shift: where
// it has spoiled a solve, the shift is raised. Returns the lanes in which it was.
template <class Real>
CL_HD inline Mask<Real> kkt_raise_shift(const EngineSettings& settings, Kkt<Real>& kkt, const Mask<Real>& which) {
    const Real higher = min(kkt.shift * Real(10.0), Real(settings.largest_shift));
    const Mask<Real> able = mask_and(kkt.shift >= Real(settings.regularisation), higher > kkt.shift);
    const Mask<Real> raised = mask_and(which, able);
    if (any_lane(raised)) kkt.shift = select(raised, higher, kkt.shift);
    return raised;
}

// Where the shift, not rounding, is what kept a solve from being accurate, that is `unsolved` below `harmless`, it is lowered
// for the following ones, as long as the tenfold rounding that this may bring is no worse; where rounding prevails by far it
// goes back up. Returns whether it changed anywhere.
template <class Real>
CL_HD inline bool kkt_adapt_shift(const EngineSettings& settings, Kkt<Real>& kkt, const Real& unsolved, const Real& harmless,
                                  const Mask<Real>& which) {
    const Mask<Real> missed = mask_and(which, mask_not(unsolved <= harmless));
    if (!any_lane(missed)) return false;
    const Mask<Real> biased = mask_and(missed, kkt.rounding < unsolved);
    const Mask<Real> swamped = mask_and(missed, kkt.rounding > Real(10.0) * kkt.bias);
    const Real lower = min(kkt.shift, max(kkt.shift * Real(0.1), settings.least_shift));
    const Real higher = max(kkt.shift, min(kkt.shift * Real(10.0), settings.regularisation));
    const Real before = kkt.shift;
    kkt.shift = select(swamped, higher, select(biased, lower, kkt.shift));
    return any_lane(mask_not(kkt.shift == before));
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// Scaled problem data of one pack: products with P and A, and Ruiz equilibration.
//
// The solver works on P^ = c D P D, A^ = E A D, q^ = c D q / r, b^ = E b / r; blocks of non-separable cones share one
// entry of E. Then x = r D x^, s = r E^-1 s^, z = r E z^ / c.  Ruiz, "A scaling algorithm to equilibrate both rows and columns
// norms in matrices", RAL-TR-2001-034.
#pragma once

#include "engine_layout.hpp"
#include "pack.hpp"
#include "vectors.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

template <class Real>
struct Programme {
    Arr<Real> P, q, A, b;  // scaled values
    Arr<Real> D, E;        // scaling
    Real c, r;             // of the objective, and of the unknowns
};

// Px = P x, Ax = A x, Atz = A' z in one pass, for N vectors (x, z) stored `stride` packs apart.
template <class Real, int N>
CL_HD inline void products(const EngineView& view, const Programme<Real>& p, Arr<Real> x, Arr<Real> z,
                           long long stride, Arr<Real> Px, Arr<Real> Ax, Arr<Real> Atz) {
    for (int k = 0; k < N; ++k) {
        for (int i = 0; i < view.m; ++i) Ax[k * stride + i] = Real(0.0);
        for (int i = 0; i < view.n; ++i) Px[k * stride + i] = Real(0.0);
    }
    for (int j = 0; j < view.n; ++j) {
        Real xj[N], acc[N];
        for (int k = 0; k < N; ++k) xj[k] = x[k * stride + j], acc[k] = Real(0.0);
        for (int e = view.A_column[j]; e < view.A_column[j + 1]; ++e) {
            const Real a = p.A[e];
            const int i = view.A_row[e];
            CL_UNROLL
            for (int k = 0; k < N; ++k) {
                Ax[k * stride + i] += a * xj[k];
                acc[k] += a * z[k * stride + i];
            }
        }
        for (int k = 0; k < N; ++k) Atz[k * stride + j] = acc[k], acc[k] = Real(0.0);
        for (int e = view.P_column[j]; e < view.P_column[j + 1]; ++e) {
            const Real a = p.P[e];
            const int i = view.P_row[e];
            for (int k = 0; k < N; ++k) {
                Px[k * stride + i] += a * xj[k];
                if (i != j) acc[k] += a * x[k * stride + i];
            }
        }
        for (int k = 0; k < N; ++k) Px[k * stride + j] += acc[k];
    }
}

constexpr double kEven = 0.05;  // factors this close to 1 change nothing that matters

namespace equilibration {

template <class Real>
CL_HD inline Real limited(const Real& norm) {  // 1 / sqrt(norm), 1 for empty rows
    const Real bounded = min(max(norm, 1e-8), 1e8);
    return select(norm > Real(0.0), Real(1.0) / sqrt(bounded), Real(1.0));
}

// Column norms of [P, A'; A, 0] turned into factors dx, dz; rows of one non-separable cone share theirs.
template <class Real>
CL_HD inline void factors(const EngineView& view, const Programme<Real>& p, Arr<Real> dx, Arr<Real> dz) {
    for (int i : each(view.m)) dz[i] = Real(0.0);
    for (int j : each(view.n)) dx[j] = Real(0.0);
    for (int j = 0; j < view.n; ++j) {
        Real norm = dx[j];
        for (int e : each(view.A_column[j], view.A_column[j + 1])) {
            const Real a = abs(p.A[e]);
            norm = max(norm, a);
            dz[view.A_row[e]] = max(dz[view.A_row[e]], a);
        }
        for (int e : each(view.P_column[j], view.P_column[j + 1])) {
            const Real a = abs(p.P[e]);
            norm = max(norm, a);
            dx[view.P_row[e]] = max(dx[view.P_row[e]], a);
        }
        norm = all_max(norm);
        alone([&] { dx[j] = max(norm, dx[j]); });
    }
    for (int b = 0; b < view.cones; ++b) {
        const ConeBlock& c = view.cone[b];
        if (c.kind <= kNonnegative) continue;
        const Real norm = norm_inf<Real>(dz + c.row, c.dim);
        for (int i : each(c.dim)) dz[c.row + i] = norm;
    }
    for (int j : each(view.n)) dx[j] = limited(dx[j]);
    for (int i : each(view.m)) dz[i] = limited(dz[i]);
}

template <class Real>
CL_HD inline void apply(const EngineView& view, Programme<Real>& p, Arr<Real> dx, Arr<Real> dz) {
    for (int j : each(view.n)) {
        const Real d = dx[j];
        for (int e = view.A_column[j]; e < view.A_column[j + 1]; ++e) p.A[e] *= d * dz[view.A_row[e]];
        for (int e = view.P_column[j]; e < view.P_column[j + 1]; ++e) p.P[e] *= d * dx[view.P_row[e]];
        p.D[j] *= d;
        p.q[j] *= d;
    }
    for (int i : each(view.m)) {
        p.E[i] *= dz[i];
        p.b[i] *= dz[i];
    }
}

}  // namespace equilibration

// Scale the programme in place, in at most `rounds` rounds; lanes whose factors have come close to 1 stop earlier.
// work: n + m packs.
template <class Real>
CL_HD inline void equilibrate(const EngineView& view, Programme<Real>& p, int rounds, Arr<Real> work) {
    for (int j : each(view.n)) p.D[j] = Real(1.0);
    for (int i : each(view.m)) p.E[i] = Real(1.0);
    p.c = p.r = Real(1.0);
    if (rounds == 0) return;
    Mask<Real> uneven = Real(0.0) == Real(0.0);
    for (int round = 0; round < rounds && any_lane(uneven); ++round) {
        Real deviation(0.0);
        equilibration::factors<Real>(view, p, work, work + view.n);
        for (int i : each(view.n + view.m)) {
            deviation = max(deviation, abs(work[i] - Real(1.0)));
            work[i] = select(uneven, work[i], Real(1.0));
        }
        deviation = all_max(deviation);
        equilibration::apply<Real>(view, p, work, work + view.n);
        uneven = mask_and(uneven, deviation > Real(kEven));
    }
    p.r = max(norm_inf<Real>(p.b, view.m), 1.0);  // large b: large unknowns
    const Real ir = Real(1.0) / p.r;
    const Real largest = max(norm_inf<Real>(p.P, view.P_nnz), norm_inf<Real>(p.q, view.n) * ir);
    p.c = select(largest > Real(0.0), Real(1.0) / max(largest, 1e-10), Real(1.0));
    for (int e : each(view.P_nnz)) p.P[e] *= p.c;
    for (int j : each(view.n)) p.q[j] *= p.c * ir;
    for (int i : each(view.m)) p.b[i] *= ir;
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

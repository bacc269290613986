// Eigendecomposition of small symmetric matrices, one matrix per lane.
//
// Cyclic Jacobi (Golub & Van Loan, Matrix Computations, section 8.5): every lane runs the same rotations, so there is
// no branching, and eigenvectors are orthogonal to machine precision, repeated eigenvalues included. Costs about
// 6 sweeps of 6 n^3 operations; meant for orders up to a few tens.
#pragma once

#include "vecmath.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// One Jacobi rotation of rows and columns p < q of the upper triangle of a (row-major n x n) that annihilates a_pq;
// the columns of u turn with it. Lanes where `active` is false stay, so that no lane depends on its neighbours.
template <class Real, class Array>
CL_HD inline void jacobi_rotate(int n, int p, int q, const Mask<Real>& active, Array a, Array u) {
    const Real off = select(active, a[p * n + q], Real(0.0));
    const Real gap = a[q * n + q] - a[p * n + p];
    const Real twice = off + off;
    const Real denominator = abs(gap) + sqrt(muladd(gap, gap, twice * twice));
    const Real ratio = twice / select(denominator > Real(0.0), denominator, Real(1.0));
    const Real t = select(gap < Real(0.0), -ratio, ratio);  // tangent of the smaller angle
    const Real c = Real(1.0) / sqrt(muladd(t, t, Real(1.0)));
    const Real s = t * c;
    a[p * n + p] = muladd(-t, off, a[p * n + p]);
    a[q * n + q] = muladd(t, off, a[q * n + q]);
    a[p * n + q] = a[p * n + q] - off;
    const auto turn = [c, s](Real& x, Real& y) {
        const Real old = x;
        x = muladd(c, old, -(s * y));
        y = muladd(s, old, c * y);
    };
    for (int k = 0; k < p; ++k) turn(a[k * n + p], a[k * n + q]);
    for (int k = p + 1; k < q; ++k) turn(a[p * n + k], a[k * n + q]);
    for (int k = q + 1; k < n; ++k) turn(a[p * n + k], a[q * n + k]);
    for (int k = 0; k < n; ++k) turn(u[k * n + p], u[k * n + q]);
}

// a = U diag(lambda) U'. a: row-major n x n, of which the upper triangle is read and all of it may be overwritten;
// u: row-major n x n, eigenvectors in its columns; lambda: n, in no particular order. Array: Arr<Real> or Real*.
template <class Real, class Array>
CL_HD inline void symmetric_eigen(int n, Array a, Array u, Array lambda) {
    Real scale = Real(0.0);
    for (int i = 0; i < n; ++i)
        for (int j = i; j < n; ++j) scale = max(scale, abs(a[i * n + j]));
    const Real safe = select(scale > Real(1e-290), scale, Real(1.0));
    const Real inverse = Real(1.0) / safe;  // squares of entries neither overflow nor underflow
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) {
            a[i * n + j] = a[i * n + j] * inverse;
            u[i * n + j] = Real(i == j ? 1.0 : 0.0);
        }
    for (int sweep = 0; sweep < 24; ++sweep) {
        Real off = Real(0.0);
        for (int i = 0; i < n; ++i)
            for (int j = i + 1; j < n; ++j) off = max(off, abs(a[i * n + j]));
        const auto active = off > Real(1e-18);
        if (!any_lane(active)) break;
        for (int p = 0; p < n; ++p)
            for (int q = p + 1; q < n; ++q) jacobi_rotate<Real>(n, p, q, active, a, u);
    }
    for (int i = 0; i < n; ++i) lambda[i] = a[i * n + i] * safe;
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

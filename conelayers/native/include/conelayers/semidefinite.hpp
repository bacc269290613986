// The cone of positive semidefinite matrices, for small orders: lane-wise Cholesky, one-sided Jacobi SVD,
// Nesterov-Todd scaling, centring correction, step length.
//
// Formulas: Vandenberghe, "The CVXOPT linear and quadratic cone program solvers" (2010), section 4.3.
// Vectors are svec: lower triangle by columns, off-diagonal entries times sqrt(2). Matrices are k x k by columns.
// Scaling data of a block: R (k^2), R^-1 (k^2), lambda (k), with R'ZR = R^-1 S R^-T = diag(lambda).
#pragma once

#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace semidefinite {

constexpr double kSqrt2 = 1.4142135623730950488;
constexpr double kInvSqrt2 = 0.70710678118654752440;

template <class Real>
CL_HD inline void unpack(int k, Arr<Real> v, Arr<Real> out) {
    int e = 0;
    for (int j = 0; j < k; ++j) {
        out[j * k + j] = v[e++];
        for (int i = j + 1; i < k; ++i) {
            const Real a = v[e++] * Real(kInvSqrt2);
            out[j * k + i] = a;
            out[i * k + j] = a;
        }
    }
}

// Lower Cholesky factor in place (upper part zeroed). Lanes that are not positive definite give junk.
template <class Real>
CL_HD inline void cholesky(int k, Arr<Real> a) {
    for (int j = 0; j < k; ++j) {
        Real d = a[j * k + j];
        for (int p = 0; p < j; ++p) d -= a[p * k + j] * a[p * k + j];
        d = sqrt(max(d, 1e-300));
        const Real inverse = Real(1.0) / d;
        a[j * k + j] = d;
        for (int i = j + 1; i < k; ++i) {
            Real t = a[j * k + i];
            for (int p = 0; p < j; ++p) t -= a[p * k + i] * a[p * k + j];
            a[j * k + i] = t * inverse;
            a[i * k + j] = Real(0.0);
        }
    }
}

// One-sided Jacobi: rotate columns of a (k x k) until orthogonal, applying the same rotations to v.
template <class Real>
CL_HD inline void orthogonalise(int k, Arr<Real> a, Arr<Real> v) {
    for (int sweep = 0; sweep < 20; ++sweep) {
        Mask<Real> rotated = Real(0.0) > Real(1.0);
        for (int p = 0; p + 1 < k; ++p)
            for (int q = p + 1; q < k; ++q) {
                Arr<Real> ap = a + p * k, aq = a + q * k, vp = v + p * k, vq = v + q * k;
                Real alpha(0.0), beta(0.0), gamma(0.0);
                for (int i = 0; i < k; ++i) {
                    alpha += ap[i] * ap[i];
                    beta += aq[i] * aq[i];
                    gamma += ap[i] * aq[i];
                }
                const Mask<Real> large = gamma * gamma > Real(1e-30) * alpha * beta;
                rotated = mask_or(rotated, large);
                const Real zeta = (beta - alpha) / select(large, Real(2.0) * gamma, Real(1.0));
                const Real t0 = Real(1.0) / (abs(zeta) + sqrt(Real(1.0) + zeta * zeta));
                const Real t = select(large, select(zeta > Real(0.0), t0, -t0), Real(0.0));
                const Real c = Real(1.0) / sqrt(Real(1.0) + t * t), s = c * t;
                for (int i = 0; i < k; ++i) {
                    const Real x = ap[i], y = aq[i], vx = vp[i], vy = vq[i];
                    ap[i] = c * x - s * y;
                    aq[i] = s * x + c * y;
                    vp[i] = c * vx - s * vy;
                    vq[i] = s * vx + c * vy;
                }
            }
        if (!any_lane(rotated)) break;
    }
}

// H = (G . G) in svec coordinates, G = R R'; upper triangle packed by columns. g: scratch k^2.
template <class Real>
CL_HD inline void scaling_block(int k, Arr<Real> R, Arr<Real> g, Arr<Real> h) {
    for (int j = 0; j < k; ++j)
        for (int i = 0; i <= j; ++i) {
            Real t(0.0);
            for (int p = 0; p < k; ++p) t += R[p * k + i] * R[p * k + j];
            g[j * k + i] = t;
            g[i * k + j] = t;
        }
    long long e = 0;
    for (int q = 0; q < k; ++q)
        for (int p = q; p < k; ++p) {  // column (p, q) of H
            Arr<Real> gp = g + p * k, gq = g + q * k;
            const bool diagonal = p == q;
            for (int j = 0; j <= q; ++j)
                for (int i = j; i < (j == q ? p + 1 : k); ++i) {  // row (i, j), up to and including (p, q)
                    Real t = gp[i] * gq[j] + gq[i] * gp[j];
                    if (diagonal) t = t * Real(i == j ? 0.5 : kInvSqrt2);
                    else if (i == j) t = t * Real(kInvSqrt2);
                    h[e++] = t;
                }
        }
}

// R, R^-1 and lambda at (s, z), and the block of H. work: 4 k^2 packs.
template <class Real>
CL_HD inline void update(int k, Arr<Real> s, Arr<Real> z, Arr<Real> data, Arr<Real> h, Arr<Real> work) {
    const int kk = k * k;
    Arr<Real> R = data, Ri = data + kk, lambda = data + 2 * kk;
    Arr<Real> L1 = work, L2 = work + kk, M = work + 2 * kk, V = work + 3 * kk;
    unpack<Real>(k, s, L1);
    unpack<Real>(k, z, L2);
    cholesky<Real>(k, L1);
    cholesky<Real>(k, L2);
    for (int j = 0; j < k; ++j)  // M = L2' L1, V = I
        for (int i = 0; i < k; ++i) {
            Real t(0.0);
            for (int p = (i > j ? i : j); p < k; ++p) t += L2[i * k + p] * L1[j * k + p];
            M[j * k + i] = t;
            V[j * k + i] = Real(i == j ? 1.0 : 0.0);
        }
    orthogonalise<Real>(k, M, V);  // M V = U diag(lambda)
    for (int j = 0; j < k; ++j) {
        Real norm(0.0);
        for (int i = 0; i < k; ++i) norm += M[j * k + i] * M[j * k + i];
        const Real l = sqrt(max(norm, 1e-300)), root = sqrt(l);
        lambda[j] = l;
        const Real r = Real(1.0) / root, ri = r / l;
        for (int i = 0; i < k; ++i) {
            Real t(0.0), u(0.0);
            for (int p = 0; p <= i; ++p) {
                t += L1[p * k + i] * V[j * k + p];  // R = L1 V lambda^-1/2
                u += L2[p * k + i] * M[j * k + p];  // R^-1 = lambda^-1/2 U' L2'
            }
            R[j * k + i] = t * r;
            Ri[i * k + j] = u * ri;
        }
    }
    scaling_block<Real>(k, R, M, h);
}

// out = B X B' (Transpose: B' X B) for symmetric X. work: k^2 packs.
template <class Real, bool Transpose>
CL_HD inline void congruence(int k, Arr<Real> B, Arr<Real> X, Arr<Real> out, Arr<Real> work) {
    auto b = [&](int i, int j) { return Transpose ? B[i * k + j] : B[j * k + i]; };  // entry (i, j) of B or B'
    for (int j = 0; j < k; ++j)
        for (int i = 0; i < k; ++i) {
            Real t(0.0);
            for (int p = 0; p < k; ++p) t += b(i, p) * X[j * k + p];
            work[j * k + i] = t;
        }
    for (int j = 0; j < k; ++j)
        for (int i = 0; i <= j; ++i) {
            Real t(0.0);
            for (int p = 0; p < k; ++p) t += work[p * k + i] * b(j, p);
            out[j * k + i] = t;
            out[i * k + j] = t;
        }
}

// out += factor R (R' U R) R'. work: 4 k^2 packs.
template <class Real>
CL_HD inline void apply(int k, Arr<Real> data, const Real& factor, Arr<Real> u, Arr<Real> out, Arr<Real> work) {
    const int kk = k * k;
    Arr<Real> a = work, b = work + kk, c = work + 2 * kk;
    unpack<Real>(k, u, a);
    congruence<Real, true>(k, data, a, b, c);
    congruence<Real, false>(k, data, b, a, c);
    int e = 0;
    for (int j = 0; j < k; ++j) {
        out[e++] += factor * a[j * k + j];
        for (int i = j + 1; i < k; ++i) out[e++] += factor * Real(kSqrt2) * a[j * k + i];
    }
}

// shift += R (lambda \ ((R^-1 dS R^-T) o (R' dZ R) - sigma_mu I)) R'. work: 4 k^2 packs.
template <class Real>
CL_HD inline void correct(int k, Arr<Real> data, Arr<Real> ds, Arr<Real> dz, Real sigma_mu, Arr<Real> shift,
                          Arr<Real> work) {
    const int kk = k * k;
    Arr<Real> R = data, Ri = data + kk, lambda = data + 2 * kk;
    Arr<Real> a = work, b = work + kk, c = work + 2 * kk, d = work + 3 * kk;
    unpack<Real>(k, ds, c);
    congruence<Real, false>(k, Ri, c, a, d);
    unpack<Real>(k, dz, c);
    congruence<Real, true>(k, R, c, b, d);
    for (int j = 0; j < k; ++j)
        for (int i = 0; i <= j; ++i) {
            Real t(0.0);
            for (int p = 0; p < k; ++p) t += a[p * k + i] * b[j * k + p] + b[p * k + i] * a[j * k + p];
            t = t * Real(0.5);
            if (i == j) t -= sigma_mu;
            t = t * Real(2.0) / (lambda[i] + lambda[j]);
            c[j * k + i] = t;
            c[i * k + j] = t;
        }
    congruence<Real, false>(k, R, c, a, d);
    int e = 0;
    for (int j = 0; j < k; ++j) {
        shift[e++] += a[j * k + j];
        for (int i = j + 1; i < k; ++i) shift[e++] += a[j * k + i] * Real(kSqrt2);
    }
}

// Householder reduction of a symmetric matrix (destroyed) to tridiagonal d (k), e2 (k): squared off-diagonals.
template <class Real>
CL_HD inline void tridiagonalise(int k, Arr<Real> a, Arr<Real> d, Arr<Real> e2, Arr<Real> w) {
    for (int j = 0; j + 1 < k; ++j) {
        Arr<Real> u = a + j * k;  // rows j + 1 .. k - 1 hold the column to reduce
        Real norm(0.0);
        for (int i = j + 1; i < k; ++i) norm += u[i] * u[i];
        d[j] = u[j];
        e2[j] = norm;
        if (j + 2 >= k) continue;
        const Real root = sqrt(norm);
        const Real head = u[j + 1];
        u[j + 1] = head + select(head < Real(0.0), -root, root);
        const Real uu = Real(2.0) * (norm + abs(head) * root);  // |u|^2
        const Real beta = select(uu > Real(1e-290), Real(2.0) / max(uu, 1e-290), Real(0.0));
        Real uw(0.0);
        for (int i = j + 1; i < k; ++i) {
            Real t(0.0);
            for (int p = j + 1; p < k; ++p) t += a[p * k + i] * u[p];
            w[i] = beta * t;
            uw += w[i] * u[i];
        }
        const Real half = Real(0.5) * beta * uw;
        for (int i = j + 1; i < k; ++i) w[i] -= half * u[i];
        for (int p = j + 1; p < k; ++p)
            for (int i = j + 1; i < k; ++i) a[p * k + i] -= u[i] * w[p] + w[i] * u[p];
    }
    d[k - 1] = a[(k - 1) * k + k - 1];
    e2[k - 1] = Real(0.0);
}

// A lower bound of the smallest eigenvalue, nearly always tight to a few digits: Laguerre's iteration on the
// characteristic polynomial from Gershgorin's bound, monotone from the left. a is destroyed; work: 3 k packs.
template <class Real>
CL_HD inline Real min_eigenvalue(int k, Arr<Real> a, Arr<Real> work) {
    Arr<Real> d = work, e2 = work + k;
    tridiagonalise<Real>(k, a, d, e2, work + 2 * k);
    Real low = d[0], high = abs(d[0]);
    for (int i = 0; i < k; ++i) {
        const Real radius = (i > 0 ? sqrt(e2[i - 1]) : Real(0.0)) + (i + 1 < k ? sqrt(e2[i]) : Real(0.0));
        low = min(low, d[i] - radius);
        high = max(high, abs(d[i]) + radius);
    }
    const Real tiny = high * Real(1e-15) + Real(1e-300);
    Real x = low - tiny;
    Mask<Real> moving = Real(0.0) == Real(0.0);  // lanes stop on their own, so that none depends on its neighbours
    for (int it = 0; it < 12; ++it) {
        Real q = d[0] - x, q1(-1.0), q2(0.0);  // Sturm ratio and its derivatives in x
        Real inverse = Real(1.0) / q;
        Real g = q1 * inverse, sum = g, second = -(g * g);
        for (int i = 1; i < k; ++i) {
            const Real r = e2[i - 1] * inverse;            // e^2 / q
            const Real r1 = -r * q1 * inverse;             // its derivative
            const Real r2 = -(r1 * q1 + r * q2) * inverse - r1 * q1 * inverse;
            q = d[i] - x - r;
            q1 = Real(-1.0) - r1;
            q2 = -r2;
            inverse = Real(1.0) / q;
            g = q1 * inverse;
            sum += g;
            second += q2 * inverse - g * g;
        }
        const Real G = -sum, H = -second;  // sums of 1 / (lambda - x) and of its square
        const Real inside = max(Real(k - 1.0) * (Real(double(k)) * H - G * G), 0.0);
        const Real step = Real(double(k)) / (G + sqrt(inside));
        // Rounding may have carried x over the eigenvalue: there G < 0, and a step would lead on to the next one.
        const Mask<Real> fine = mask_and(moving, mask_and(is_finite(step), mask_and(G > Real(0.0), step > Real(0.0))));
        x = select(fine, x + step * Real(1.0 - 1e-12), x);
        moving = mask_and(fine, step > Real(1e-6) * abs(x) + tiny);
        if (!any_lane(moving)) break;
    }
    return x - tiny;
}

// The largest alpha with U + alpha dU >= 0, given C with C U C' = diag(lambda) (C = R^-1, or R' for Z).
template <class Real, bool Transpose>
CL_HD inline Real max_step(int k, Arr<Real> C, Arr<Real> lambda, Arr<Real> du, Arr<Real> work) {
    const int kk = k * k;
    Arr<Real> a = work, b = work + kk, c = work + 2 * kk;
    unpack<Real>(k, du, b);
    congruence<Real, Transpose>(k, C, b, a, c);
    for (int j = 0; j < k; ++j) b[j] = Real(1.0) / sqrt(lambda[j]);
    for (int j = 0; j < k; ++j)
        for (int i = 0; i < k; ++i) a[j * k + i] = a[j * k + i] * b[i] * b[j];
    const Real low = k == 1 ? a[0] : min_eigenvalue<Real>(k, a, c);
    return select(low < Real(-1e-300), Real(-1.0) / min(low, -1e-300), Real(1e300));
}

// Smallest eigenvalue of the matrix of an svec. work: 3 k^2 packs.
template <class Real>
CL_HD inline Real margin(int k, Arr<Real> v, Arr<Real> work) {
    unpack<Real>(k, v, work);
    return k == 1 ? work[0] : min_eigenvalue<Real>(k, work, work + 2 * k * k);
}

}  // namespace semidefinite
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// The second-order cone {(t, w): t >= |w|}: Nesterov-Todd scaling, centring correction, step length.
//
// Formulas: Vandenberghe, "The CVXOPT linear and quadratic cone program solvers" (2010), sections 4 and 5.
// Scaling data of a block of dimension d: w (d, with w'Jw = 1), lambda (d), eta (1).
#pragma once

#include "bordering.hpp"
#include "pack.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace second_order {

// t^2 - |w|^2, without cancellation between the squares.
template <class Real>
CL_HD inline Real determinant(int d, Arr<Real> u) {
    Real norm(0.0);
    for (int i = 1; i < d; ++i) norm += u[i] * u[i];
    norm = sqrt(norm);
    return (u[0] - norm) * (u[0] + norm);
}

// The same of a point inside; of one that rounding has put on the border, what rounding may leave.
template <class Real>
CL_HD inline Real positive_determinant(int d, Arr<Real> u) {
    return max(determinant<Real>(d, u), max(Real(1e-16) * u[0] * u[0], 1e-300));
}

template <class Real>
CL_HD inline Real margin(int d, Arr<Real> u) {
    Real norm(0.0);
    for (int i = 1; i < d; ++i) norm += u[i] * u[i];
    return u[0] - sqrt(norm);
}

// out = W u (Inverse: W^-1 u) for W = eta [w0, w1'; w1, I + w1 w1' / (1 + w0)].
template <class Real, bool Inverse>
CL_HD inline void scale(int d, Arr<Real> w, Real eta, Arr<Real> u, Arr<Real> out) {
    Real dot(0.0);
    for (int i = 1; i < d; ++i) dot += w[i] * u[i];
    const Real sign = Inverse ? Real(-1.0) : Real(1.0);
    const Real factor = Inverse ? Real(1.0) / eta : eta;
    const Real u0 = u[0];
    const Real along = sign * u0 + dot / (Real(1.0) + w[0]);
    out[0] = factor * (w[0] * u0 + sign * dot);
    for (int i = 1; i < d; ++i) out[i] = factor * (u[i] + along * w[i]);
}

// H as a border, by its eigenvectors: eta^2 l along p = (1, u) / sqrt 2, eta^2 / l along q = (1, -u) / sqrt 2 and eta^2 elsewhere,
// where u = w1 / |w1| and l = (w0 + |w1|)^2. So D = eta^2 I, a = eta sqrt(l - 1) p and b = eta sqrt(1 - 1 / l) q, scaled by
// sqrt(l). (With D's first entry near 1 / l, as the literature has it, the sums that follow lose twice as many digits.)
template <class Real>
CL_HD inline void border(int d, Arr<Real> w, const Real& eta, Arr<Real> h) {
    Real squares(0.0);
    for (int i = 1; i < d; ++i) squares += w[i] * w[i];
    const Real length = sqrt(squares), root = w[0] + length, eta2 = eta * eta;
    const Real first = eta * sqrt(length * root);  // sqrt((l - 1) / 2) = sqrt(|w1| (w0 + |w1|))
    const Real along = select(length > Real(0.0), first / max(length, 1e-300), Real(0.0));
    Arr<Real> b = h + d, a = b + (d + 1);
    h[0] = eta2, b[0] = a[0] = first;
    for (int i = 1; i < d; ++i) {
        h[i] = eta2;
        a[i] = along * w[i];
        b[i] = -a[i];
    }
    b[d] = root * root, a[d] = Real(-1.0);  // H is subtracted: the pivots are -beta and alpha
}

template <class Real>
CL_HD inline void identity_border(int d, Arr<Real> h) {
    for (long long e = 0; e < border_size(d); ++e) h[e] = Real(e < d ? 1.0 : 0.0);
    h[2 * d] = Real(1.0), h[3 * d + 1] = Real(-1.0);
}

// H = W^2 = eta^2 (2 w w' - J), upper triangle packed by columns.
template <class Real>
CL_HD inline void dense_block(int d, Arr<Real> w, const Real& eta2, Arr<Real> h) {
    long long k = 0;
    for (int j = 0; j < d; ++j) {
        const Real wj = w[j] * eta2 * Real(2.0);
        for (int i = 0; i < j; ++i) h[k++] = wj * w[i];
        h[k++] = wj * w[j] + (j == 0 ? -eta2 : eta2);
    }
}

// Scaling point, lambda = W z, and H.
template <class Real>
CL_HD inline void update(int d, bool sparse, Arr<Real> s, Arr<Real> z, Arr<Real> data, Arr<Real> h) {
    Arr<Real> w = data, lambda = data + d;
    const Real ds = sqrt(positive_determinant<Real>(d, s)), dz = sqrt(positive_determinant<Real>(d, z));
    const Real is = Real(1.0) / ds, iz = Real(1.0) / dz;
    Real dot(0.0);
    for (int i = 0; i < d; ++i) dot += s[i] * z[i];
    const Real gamma = sqrt((Real(1.0) + dot * is * iz) * Real(0.5));
    const Real half = Real(0.5) / gamma;
    Real norm(0.0);
    for (int i = 1; i < d; ++i) {
        w[i] = (s[i] * is - z[i] * iz) * half;
        norm += w[i] * w[i];
    }
    w[0] = sqrt(Real(1.0) + norm);
    const Real eta2 = ds * iz;
    const Real eta = sqrt(eta2);
    data[2 * d] = eta;
    scale<Real, false>(d, w, eta, z, lambda);
    if (sparse) border<Real>(d, w, eta, h);
    else dense_block<Real>(d, w, eta2, h);
}

// shift += W (lambda \ ((W^-1 ds) o (W dz) - sigma_mu e)). a, b: scratch of d packs.
template <class Real>
CL_HD inline void correct(int d, Arr<Real> data, Arr<Real> ds, Arr<Real> dz, Real sigma_mu, Arr<Real> shift,
                          Arr<Real> a, Arr<Real> b) {
    Arr<Real> w = data, lambda = data + d;
    const Real eta = data[2 * d];
    scale<Real, true>(d, w, eta, ds, a);
    scale<Real, false>(d, w, eta, dz, b);
    Real dot(0.0);
    for (int i = 0; i < d; ++i) dot += a[i] * b[i];
    const Real a0 = a[0], b0 = b[0];
    for (int i = 1; i < d; ++i) a[i] = a0 * b[i] + b0 * a[i];
    a[0] = dot - sigma_mu;
    Real inner(0.0);
    for (int i = 1; i < d; ++i) inner += lambda[i] * a[i];
    const Real u0 = (lambda[0] * a[0] - inner) / positive_determinant<Real>(d, lambda);
    const Real scale0 = Real(1.0) / lambda[0];
    for (int i = 1; i < d; ++i) b[i] = (a[i] - u0 * lambda[i]) * scale0;
    b[0] = u0;
    scale<Real, false>(d, w, eta, b, a);
    for (int i = 0; i < d; ++i) shift[i] += a[i];
}

// The largest alpha with u + alpha du in the cone, u inside; large when unbounded.
template <class Real>
CL_HD inline Real max_step(int d, Arr<Real> u, Arr<Real> du) {
    const Real root = sqrt(positive_determinant<Real>(d, u)), inverse = Real(1.0) / root;
    Real dot = u[0] * du[0];
    for (int i = 1; i < d; ++i) dot -= u[i] * du[i];
    const Real rho0 = dot * inverse;  // ubar' J du, ubar = u / root
    const Real along = (rho0 + du[0]) / (u[0] * inverse + Real(1.0)) * inverse;
    Real norm(0.0);
    for (int i = 1; i < d; ++i) {
        const Real r = du[i] - along * u[i];
        norm += r * r;
    }
    const Real bound = (sqrt(norm) - rho0) * inverse;
    return select(bound > Real(1e-300), Real(1.0) / max(bound, 1e-300), Real(1e300));
}

}  // namespace second_order
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

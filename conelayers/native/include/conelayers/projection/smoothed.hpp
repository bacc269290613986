// Smoothed projections on the duals of exponential and power cones: y + mu grad F*(y) = v, D = (I + mu hess F*(y))^-1.
//
// F* is the 3-self-concordant barrier of the dual cone, log-homogeneous of degree 3. With y = sqrt(mu) u the equation is
// u + grad F*(u) = v / sqrt(mu), the minimiser of |u - v / sqrt(mu)|^2 / 2 + F*(u): a standard self-concordant function, so
// damped Newton steps converge from anywhere inside (Nesterov, Introductory lectures on convex optimization, 4.1).
// Barriers in the coordinates of the primal cones, to which T maps the dual ones:
//   exponential: -log(y log(z / y) - x) - log y - log z,       T(u, v, w) = (-v, -u, e w)
//   power:       -log(x^2a y^2b - z^2) - b log x - a log y,     T(u, v, w) = (u / a, v / b, w)
#pragma once

#include "layout.hpp"
#include "../eigen.hpp"
#include "exponential.hpp"
#include "power.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

struct Smoothed {
    // y and element for K* of the block's cone K; mu > 0.
    template <class Real>
    CL_HD static void project(const ProjectionBlock& block, const Real* v, double mu, Real* y, Real* element) {
        const Real one = Real(1.0), root_mu = sqrt(Real(mu));
        Real target[3], u[3], gradient[3], hessian[6], step[3];
        for (int i = 0; i < 3; ++i) target[i] = v[i] / root_mu;
        start(block, target, u);
        auto active = target[0] == target[0];
        for (int iteration = 0; iteration < 80; ++iteration) {
            barrier(block, u, gradient, hessian);
            for (int i = 0; i < 3; ++i) gradient[i] = gradient[i] + u[i] - target[i];
            const Real decrement = newton(hessian, gradient, step);
            const Real length = select(decrement < Real(0.25), one, one / (one + decrement));
            for (int i = 0; i < 3; ++i) u[i] = select(active, u[i] - length * step[i], u[i]);
            active = mask_and(active, decrement > Real(1e-9));
            if (!any_lane(active)) break;
        }
        barrier(block, u, gradient, hessian);
        Real matrix[9], vectors[9], values[3];
        int entry = 0;
        for (int i = 0; i < 3; ++i)
            for (int j = i; j < 3; ++j) matrix[3 * i + j] = hessian[entry++];
        for (int i = 1; i < 3; ++i)
            for (int j = 0; j < i; ++j) matrix[3 * i + j] = matrix[3 * j + i];
        symmetric_eigen<Real>(3, matrix, vectors, values);
        for (int k = 0; k < 3; ++k) {
            for (int i = 0; i < 3; ++i) element[3 * k + i] = vectors[3 * i + k];
            element[9 + k] = one / (one + max(values[k], Real(0.0)));
            y[k] = u[k] * root_mu;
        }
    }

private:
    static constexpr double euler = 2.718281828459045;

    CL_HD static bool exponential(const ProjectionBlock& block) {
        return block.kind == kExponentialBlock || block.kind == kDualExponentialBlock;
    }

    // Row i of T has the single entry scale[i] in column source[i]; T = I for the dual kinds, whose K* is primal.
    CL_HD static void coordinates(const ProjectionBlock& block, int* source, double* scale) {
        const bool identity = block.kind == kDualExponentialBlock || block.kind == kDualPowerBlock;
        for (int i = 0; i < 3; ++i) source[i] = i, scale[i] = 1.0;
        if (identity) return;
        if (exponential(block)) {
            source[0] = 1, source[1] = 0;
            scale[0] = scale[1] = -1.0, scale[2] = euler;
        } else {
            scale[0] = 1.0 / block.parameter, scale[1] = 1.0 / (1.0 - block.parameter);
        }
    }

    // The projection moved inwards by a point near the middle of K*.
    template <class Real>
    CL_HD static void start(const ProjectionBlock& block, const Real* target, Real* u) {
        const bool dual = block.kind == kDualExponentialBlock || block.kind == kDualPowerBlock;
        Real point[3], element[ThreeDimensional::element_size];
        const Real guess[3] = {Real(0.0), Real(0.0), Real(0.0)};
        for (int i = 0; i < 3; ++i) point[i] = dual ? target[i] : -target[i];
        if (exponential(block)) Exponential::project(point, guess, true, u, element);
        else Power::project(block.parameter, point, guess, true, u, element);
        const double middle[2][3] = {{-1.05, 0.56, 1.26}, {1.0, 1.0, 0.0}};
        const double* inside = middle[exponential(block) ? 0 : 1];
        int source[3];
        double scale[3];
        coordinates(block, source, scale);
        for (int i = 0; i < 3; ++i) {
            if (!dual) u[i] = u[i] + target[i];
        }
        for (int i = 0; i < 3; ++i) u[source[i]] = u[source[i]] + Real(inside[i] / scale[i]);
    }

    // Gradient and Hessian (upper triangle row by row) of the barrier of K* at u.
    template <class Real>
    CL_HD static void barrier(const ProjectionBlock& block, const Real* u, Real* gradient, Real* hessian) {
        int source[3];
        double scale[3];
        coordinates(block, source, scale);
        Real p[3], g[3], h[9];
        for (int i = 0; i < 3; ++i) p[i] = Real(scale[i]) * u[source[i]];
        if (exponential(block)) exponential_barrier(p, g, h);
        else power_barrier(block.parameter, p, g, h);
        Real full[9];
        for (int i = 0; i < 3; ++i) {
            gradient[source[i]] = Real(scale[i]) * g[i];
            for (int j = 0; j < 3; ++j) full[3 * source[i] + source[j]] = Real(scale[i] * scale[j]) * h[3 * i + j];
        }
        int entry = 0;
        for (int i = 0; i < 3; ++i)
            for (int j = i; j < 3; ++j) hessian[entry++] = full[3 * i + j];
    }

    template <class Real>
    CL_HD static void exponential_barrier(const Real* p, Real* g, Real* h) {
        const Real one = Real(1.0);
        const Real iy = one / p[1], iz = one / p[2], ratio = log(p[2] * iy);
        const Real iw = one / (p[1] * ratio - p[0]);
        const Real dw[3] = {-one, ratio - one, p[1] * iz};
        for (int i = 0; i < 3; ++i) {
            g[i] = -dw[i] * iw;
            for (int j = 0; j < 3; ++j) h[3 * i + j] = dw[i] * iw * (dw[j] * iw);
        }
        g[1] = g[1] - iy;
        g[2] = g[2] - iz;
        h[4] = h[4] + iy * iw + iy * iy;
        h[5] = h[5] - iz * iw;
        h[7] = h[5];
        h[8] = h[8] + p[1] * iz * iz * iw + iz * iz;
    }

    template <class Real>
    CL_HD static void power_barrier(double a, const Real* p, Real* g, Real* h) {
        const double b = 1.0 - a;
        const Real one = Real(1.0), ix = one / p[0], iy = one / p[1];
        const Real root = exp(Real(a) * log(p[0]) + Real(b) * log(p[1]));
        const Real inverse = one / ((root - p[2]) * (root + p[2]));
        const Real phi = root * root * inverse;  // x^2a y^2b / psi
        const Real d[3] = {Real(2.0 * a) * phi * ix, Real(2.0 * b) * phi * iy, Real(-2.0) * p[2] * inverse};
        for (int i = 0; i < 3; ++i) {
            g[i] = -d[i];
            for (int j = 0; j < 3; ++j) h[3 * i + j] = d[i] * d[j];
        }
        g[0] = g[0] - Real(b) * ix;
        g[1] = g[1] - Real(a) * iy;
        h[0] = h[0] + (Real(2.0 * a * (1.0 - 2.0 * a)) * phi + Real(b)) * ix * ix;
        h[4] = h[4] + (Real(2.0 * b * (1.0 - 2.0 * b)) * phi + Real(a)) * iy * iy;
        h[1] = h[1] - Real(4.0 * a * b) * phi * ix * iy;
        h[3] = h[1];
        h[8] = h[8] + Real(2.0) * inverse;
    }

    // step = (I + H)^-1 gradient by Cholesky; returns the Newton decrement.
    template <class Real>
    CL_HD static Real newton(const Real* h, const Real* gradient, Real* step) {
        const Real one = Real(1.0);
        const Real d0 = one + h[0];
        const Real l1 = h[1] / d0, l2 = h[2] / d0;
        const Real d1 = one + h[3] - l1 * h[1];
        const Real m = h[4] - l1 * h[2];
        const Real l3 = m / d1;
        const Real d2 = one + h[5] - l2 * h[2] - l3 * m;
        const Real r0 = gradient[0], r1 = gradient[1] - l1 * r0, r2 = gradient[2] - l2 * r0 - l3 * r1;
        step[2] = r2 / max(d2, Real(1e-300));
        step[1] = r1 / d1 - l3 * step[2];
        step[0] = r0 / d0 - l1 * step[1] - l2 * step[2];
        return sqrt(max(r0 * r0 / d0 + r1 * r1 / d1 + r2 * r2 / max(d2, Real(1e-300)), Real(0.0)));
    }
};

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

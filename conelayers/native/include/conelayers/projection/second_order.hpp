// Second-order cone {(t, w): t >= |w|}, self-dual: projection and its Clarke element.
//
// With r = |w| and unit vector u = w / r (the first axis if w = 0), D has eigenvalue d1 on (1, u) / sqrt 2, d2 on
// (1, -u) / sqrt 2 and d3 on what is orthogonal to both: derivatives of the half-line projection at t + r and at t - r, and their
// divided difference (1 + t / r) / 2 when |t| < r. Element layout: d1, d2, d3, then u (dim - 1 entries).
#pragma once

#include "spectral.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

struct SecondOrder {
    CL_INLINE static constexpr int element_size(int dim) { return dim + 2; }

    // y = Pi(v) (or its smoothing), element = data of D.
    template <class Real>
    CL_HD static void project(int dim, Arr<Real> v, double mu, Arr<Real> y, Arr<Real> element) {
        Real scale = Real(0.0);
        for (int i = 1; i < dim; ++i) scale = max(scale, abs(v[i]));
        const auto axis = scale <= Real(1e-290);
        const Real inverse = Real(1.0) / select(axis, Real(1.0), scale);
        Real squares = Real(0.0);
        for (int i = 1; i < dim; ++i) {
            element[2 + i] = select(axis, Real(i == 1 ? 1.0 : 0.0), v[i] * inverse);
            squares = muladd(element[2 + i], element[2 + i], squares);
        }
        const Real length = sqrt(squares);
        const Real inverse_length = Real(1.0) / select(length > Real(0.0), length, Real(1.0));
        for (int i = 1; i < dim; ++i) element[2 + i] = element[2 + i] * inverse_length;
        const Real radius = select(axis, Real(0.0), length * scale);
        const Real high = v[0] + radius, low = v[0] - radius;
        const Real gap_high = root_gap(high, mu), gap_low = root_gap(low, mu);
        const Real y_high = positive_part(high, mu), y_low = positive_part(low, mu);
        element[0] = divided_difference(high, high, gap_high, gap_high);
        element[1] = divided_difference(low, low, gap_low, gap_low);
        element[2] = divided_difference(high, low, gap_high, gap_low);
        y[0] = Real(0.5) * (y_high + y_low);
        const Real stretch = Real(0.5) * (y_high - y_low);
        const auto inside = low >= Real(mu > 0.0 ? infinity() : 0.0);  // keep v's digits
        for (int i = 1; i < dim; ++i)
            y[i] = select(inside, v[i], stretch * element[2 + i]);
    }

    // out = D x. With alpha and beta the components of x on (1, u) and (1, -u), halved.
    template <class Real>
    CL_HD static void apply(int dim, Arr<Real> element, Arr<Real> x, Arr<Real> out) {
        Real along = Real(0.0);
        for (int i = 1; i < dim; ++i) along = muladd(element[2 + i], x[i], along);
        const Real alpha = Real(0.5) * element[0] * (x[0] + along);
        const Real beta = Real(0.5) * element[1] * (x[0] - along);
        const Real rest = element[2];
        const Real shift = (alpha - beta) - rest * along;
        out[0] = alpha + beta;
        for (int i = 1; i < dim; ++i) out[i] = muladd(shift, element[2 + i], rest * x[i]);
    }

    // w = D^-1 - I with eigenvalues at most ceiling, upper triangle row by row.
    template <class Real>
    CL_HD static void weight(int dim, Arr<Real> element, Real ceiling, Arr<Real> w) {
        const Real w1 = projection::weight(element[0], ceiling), w2 = projection::weight(element[1], ceiling);
        const Real w3 = projection::weight(element[2], ceiling);
        const Real mean = Real(0.5) * (w1 + w2), half_gap = Real(0.5) * (w1 - w2);
        w[0] = mean;
        for (int i = 1; i < dim; ++i) w[i] = half_gap * element[2 + i];
        int entry = dim;
        for (int i = 1; i < dim; ++i) {
            const Real row = (mean - w3) * element[2 + i];
            w[entry++] = muladd(row, element[2 + i], w3);
            for (int j = i + 1; j < dim; ++j) w[entry++] = row * element[2 + j];
        }
    }

    // -(square W + shift) as a border (bordering.hpp), eigenvalues of square W at most ceiling: w3 on the diagonal, b along
    // (1, u), where W has its smallest eigenvalue, a along (1, -u), where it has its largest.
    template <class Real>
    CL_HD static void border(int dim, Arr<Real> element, Real square, Real shift, Real ceiling,
                             Arr<Real> out) {
        const Real w1 = square * projection::weight(element[0], ceiling / square);
        const Real w2 = square * projection::weight(element[1], ceiling / square);
        const Real w3 = square * projection::weight(element[2], ceiling / square), base = w3 + shift;
        const Real along_b = sqrt(Real(0.5) * max(w3 - w1, Real(0.0)) * base);
        const Real along_a = sqrt(Real(0.5) * max(w2 - w3, Real(0.0)));
        Arr<Real> b = out + dim, a = b + (dim + 1);
        out[0] = -base, b[0] = along_b, a[0] = along_a;
        for (int i = 1; i < dim; ++i) {
            out[i] = -base;
            b[i] = along_b * element[2 + i];
            a[i] = -along_a * element[2 + i];
        }
        b[dim] = -base, a[dim] = Real(1.0);
    }
};

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

// Cone of positive semidefinite matrices of a given order, self-dual: projection and its Clarke element.
//
// A block holds the lower triangle column by column, off-diagonal entries times sqrt 2. With V = Q diag(l) Q',
//   Pi(V) = Q diag(max(l, 0)) Q',   D X = Q (B o (Q' X Q)) Q',   B_ij = divided difference of max(., 0) at l_i, l_j
// (Sun & Sun, Semismooth matrix valued functions, 2002). Element layout: Q row-major, l, root gaps of l.
#pragma once

#include "../eigen.hpp"
#include "spectral.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {
namespace projection {

constexpr double kLost = 8e-16;  // eigenvalues below this part of the largest one are rounding

struct Semidefinite {
    static constexpr double sqrt_half = 0.70710678118654752440;
    static constexpr double sqrt_two = 1.41421356237309504880;

    CL_INLINE static constexpr int dimension(int order) { return order * (order + 1) / 2; }
    CL_INLINE static constexpr int element_size(int order) { return order * (order + 2); }
    // project and apply need two matrices, weight one vector per block row.
    CL_INLINE static constexpr int scratch_size(int order) { return 2 * order * order; }

    // Full row-major matrix of a block.
    template <class Real>
    CL_HD static void unpack(int order, Arr<Real> block, Arr<Real> matrix) {
        int k = 0;
        for (int j = 0; j < order; ++j) {
            matrix[j * order + j] = block[k++];
            for (int i = j + 1; i < order; ++i) {
                const Real entry = Real(sqrt_half) * block[k++];
                matrix[i * order + j] = entry;
                matrix[j * order + i] = entry;
            }
        }
    }

    // y = Pi(v) (or its smoothing), element = data of D; scratch: scratch_size(order).
    template <class Real>
    CL_HD static void project(int order, Arr<Real> v, double mu, Arr<Real> y, Arr<Real> element, Arr<Real> scratch) {
        Arr<Real> q = element;
        Arr<Real> l = element + order * order;
        Arr<Real> gap = l + order;
        unpack(order, v, scratch);
        symmetric_eigen<Real>(order, scratch, q, l);
        if (mu <= 0.0) {  // what rounding leaves of a zero would count as an active face
            Real largest(0.0);
            for (int k = 0; k < order; ++k) largest = max(largest, abs(l[k]));
            for (int k = 0; k < order; ++k) l[k] = select(abs(l[k]) > Real(kLost) * largest, l[k], Real(0.0));
        }
        for (int k = 0; k < order; ++k) {
            gap[k] = root_gap(l[k], mu);
            const Real part = positive_part(l[k], mu);
            for (int i = 0; i < order; ++i) scratch[i * order + k] = part * q[i * order + k];
        }
        int entry = 0;
        for (int j = 0; j < order; ++j)
            for (int i = j; i < order; ++i) {
                Real sum = Real(0.0);
                for (int k = 0; k < order; ++k) sum = muladd(scratch[i * order + k], q[j * order + k], sum);
                y[entry++] = i == j ? sum : Real(sqrt_two) * sum;
            }
    }

    // out = D x; scratch: scratch_size(order).
    template <class Real>
    CL_HD static void apply(int order, Arr<Real> element, Arr<Real> x, Arr<Real> out, Arr<Real> scratch) {
        Arr<Real> q = element;
        Arr<Real> l = element + order * order;
        Arr<Real> gap = l + order;
        Arr<Real> matrix = scratch;
        Arr<Real> product = scratch + order * order;
        unpack(order, x, matrix);
        // product = X Q, then the upper triangle of B o (Q' product), mirrored, over X.
        multiply(order, matrix, q, product);
        for (int i = 0; i < order; ++i)
            for (int j = i; j < order; ++j) {
                Real sum = Real(0.0);
                for (int k = 0; k < order; ++k) sum = muladd(q[k * order + i], product[k * order + j], sum);
                sum = sum * divided_difference(l[i], l[j], gap[i], gap[j]);
                matrix[i * order + j] = sum;
                matrix[j * order + i] = sum;
            }
        multiply(order, q, matrix, product);
        int entry = 0;
        for (int j = 0; j < order; ++j)
            for (int i = j; i < order; ++i) {
                Real sum = Real(0.0);
                for (int k = 0; k < order; ++k) sum = muladd(product[i * order + k], q[j * order + k], sum);
                out[entry++] = i == j ? sum : Real(sqrt_two) * sum;
            }
    }

    // w = D^-1 - I with eigenvalues at most ceiling, upper triangle row by row: the sum of weight_ij s s' over the
    // eigenvectors s = svec of (q_i q_j' + q_j q_i') / sqrt 2 or q_i q_i'; scratch: scratch_size(order).
    template <class Real>
    CL_HD static void weight(int order, Arr<Real> element, Real ceiling, Arr<Real> w, Arr<Real> scratch) {
        Arr<Real> q = element;
        Arr<Real> l = element + order * order;
        Arr<Real> gap = l + order;
        const int dim = dimension(order);
        for (int k = 0; k < dim * (dim + 1) / 2; ++k) w[k] = Real(0.0);
        for (int i = 0; i < order; ++i)
            for (int j = i; j < order; ++j) {
                const Real value = projection::weight(divided_difference(l[i], l[j], gap[i], gap[j]), ceiling);
                if (!any_lane(value > Real(0.0))) continue;
                eigenvector(order, q, i, j, scratch);
                int entry = 0;
                for (int a = 0; a < dim; ++a) {
                    const Real row = value * scratch[a];
                    for (int b = a; b < dim; ++b, ++entry) w[entry] = muladd(row, scratch[b], w[entry]);
                }
            }
    }

private:
    // c = a b, all row-major.
    template <class Real>
    CL_HD static void multiply(int n, Arr<Real> a, Arr<Real> b, Arr<Real> c) {
        for (int i = 0; i < n; ++i) {
            for (int j = 0; j < n; ++j) c[i * n + j] = Real(0.0);
            for (int k = 0; k < n; ++k) {
                const Real factor = a[i * n + k];
                for (int j = 0; j < n; ++j) c[i * n + j] = muladd(factor, b[k * n + j], c[i * n + j]);
            }
        }
    }

    template <class Real>
    CL_HD static void eigenvector(int n, Arr<Real> q, int i, int j, Arr<Real> s) {
        int entry = 0;
        for (int b = 0; b < n; ++b) {
            const Real qi = q[b * n + i], qj = q[b * n + j];
            if (i == j) {
                s[entry++] = qi * qi;
                for (int a = b + 1; a < n; ++a) s[entry++] = Real(sqrt_two) * (q[a * n + i] * qi);
            } else {
                s[entry++] = Real(sqrt_two) * (qi * qj);
                for (int a = b + 1; a < n; ++a) s[entry++] = muladd(q[a * n + i], qj, q[a * n + j] * qi);
            }
        }
    }
};

}  // namespace projection
}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

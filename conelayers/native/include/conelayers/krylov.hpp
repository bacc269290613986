// Flexible GMRES on the exact Jacobian, preconditioned by the regularised factor: the fallback of derivative.hpp where plain
// refinement stalls (Saad, Iterative methods for sparse linear systems, section 9.4). Every lane runs the same steps
// with its own coefficients.
#pragma once

#include "jacobian.hpp"
#include "vectors.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

namespace krylov_detail {

template <class Real>
CL_INLINE Real safe_inverse(const Real& a) {
    const auto zero = mask_not(abs(a) > Real(1e-290));
    return select(zero, Real(0.0), Real(1.0) / select(zero, Real(1.0), a));
}

// Multiply by the row and column scales, in which residuals are measured; Inverse divides.
template <class Real, bool Inverse>
CL_HD inline void scale(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> from, Arr<Real> to) {
    for (int j : each(view.n)) to[j] = Inverse ? from[j] / w.column[j] : from[j] * w.column[j];
    for (int i : each(view.m))
        to[view.n + i] = Inverse ? from[view.n + i] / w.row[i] : from[view.n + i] * w.row[i];
}

// The small least-squares problem: Hessenberg columns reduced to triangular form by Givens rotations.
template <class Real>
struct Hessenberg {
    Real r[kKrylov][kKrylov];  // r[column][row]
    Real cosine[kKrylov], sine[kKrylov];
    Real g[kKrylov + 1];

    CL_HD void rotate(int column, Real* h) {
        for (int i = 0; i < column; ++i) {
            const Real upper = cosine[i] * h[i] + sine[i] * h[i + 1];
            h[i + 1] = cosine[i] * h[i + 1] - sine[i] * h[i];
            h[i] = upper;
        }
        const Real length = sqrt(h[column] * h[column] + h[column + 1] * h[column + 1]);
        const Real inverse = safe_inverse(length);
        cosine[column] = select(length > Real(0.0), h[column] * inverse, Real(1.0));
        sine[column] = h[column + 1] * inverse;
        g[column + 1] = -(sine[column] * g[column]);
        g[column] = cosine[column] * g[column];
        for (int i = 0; i < column; ++i) r[column][i] = h[i];
        r[column][column] = length;
    }

    CL_HD void solve(Real* coefficients) const {
        for (int i = kKrylov - 1; i >= 0; --i) {
            Real sum = g[i];
            for (int j = i + 1; j < kKrylov; ++j) sum = sum - r[j][i] * coefficients[j];
            coefficients[i] = sum * safe_inverse(r[i][i]);
        }
    }
};

}  // namespace krylov_detail

// w.trial = w.solution + the correction that minimises the scaled residual over kKrylov directions.
template <class Real>
CL_HD inline void krylov_correction(const DerivativeView& view, const DerivativeWork<Real>& w) {
    using namespace krylov_detail;
    const int size = view.n + view.m;
    Hessenberg<Real> small;
    scale<Real, false>(view, w, w.residual, w.basis);
    const Real norm = sqrt(dot<Real>(size, w.basis, w.basis)), inverse_norm = safe_inverse(norm);
    for (int k : each(size)) w.basis[k] = w.basis[k] * inverse_norm;
    small.g[0] = norm;
    for (int column = 0; column < kKrylov; ++column) {
        Arr<Real> direction = w.directions + (long long)column * size;
        Arr<Real> next = w.basis + (long long)(column + 1) * size;
        Real h[kKrylov + 1];
        scale<Real, true>(view, w, w.basis + (long long)column * size, w.direct);
        regularised_solve(view, w, w.direct, direction);
        for (int k : each(size)) w.direct[k] = Real(0.0);
        jacobian_residual(view, w, w.direct, direction, next);  // - J direction
        for (int k : each(size)) next[k] = -next[k];
        scale<Real, false>(view, w, next, next);
        for (int i = 0; i <= column; ++i) h[i] = Real(0.0);
        for (int pass = 0; pass < 2; ++pass)  // orthogonalise twice
            for (int i = 0; i <= column; ++i) {
                Arr<Real> earlier = w.basis + (long long)i * size;
                const Real overlap = dot<Real>(size, next, earlier);
                h[i] = h[i] + overlap;
                for (int k : each(size)) next[k] = next[k] - overlap * earlier[k];
            }
        const Real length = sqrt(dot<Real>(size, next, next)), inverse = safe_inverse(length);
        h[column + 1] = length;
        for (int k : each(size)) next[k] = next[k] * inverse;
        small.rotate(column, h);
    }
    Real coefficients[kKrylov];
    small.solve(coefficients);
    for (int k : each(size)) {
        Real sum = w.solution[k];
        for (int column = 0; column < kKrylov; ++column)
            sum = sum + coefficients[column] * w.directions[(long long)column * size + k];
        w.trial[k] = sum;
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

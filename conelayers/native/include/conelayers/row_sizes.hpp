// What the rows of the optimality conditions are measured by: the size of their own terms.
//
//   P x + q + A' y = 0,   A x + s - b = 0
// A norm over all rows lets one huge row, a mask of -1e9 or a weight of 1e5, hide what is wrong with the others. Row by row, a
// residual is the relative change of the row's data that explains it (Oettli & Prager, Compatibility of approximate solution
// of linear equations, 1964), whatever the units. A row whose terms all vanish at the solution, as x >= 0 where x = 0, has no
// size of its own; it takes a small share of what is usual for its unknowns in their other rows.
#pragma once

#include "derivative.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

constexpr double kShare = 1e-4;      // of the usual size of a row and of its summands
constexpr double kNothing = 1e-30;   // data below this say nothing of what counts as one: what is left of a rounding is no unit
constexpr double kUnusual = 1e-3;    // a row that is smaller than this, and than this part of another one, says nothing usual

// size = the largest term of each row, n + m; transposed = A' y, the products with x are in t.image. The summands of a product
// count for a small share: x may be huge along a direction in which the programme is all but unbounded. Rows of a curved cone
// share theirs.
template <class Real, class Work>
CL_HD inline void row_sizes(const DerivativeView& view, const DerivativeWork<Real>& w, const Work& t, Arr<Real> x,
                            Arr<Real> y, Arr<Real> s, Arr<Real> transposed, Arr<Real> size) {
    const int n = view.n, m = view.m;
    for (int j : each(n)) size[j] = max(abs(t.q[j]), max(abs(t.image[j]), abs(transposed[j])));
    for (int i : each(m)) size[n + i] = max(abs(s[i]), max(abs(t.b[i]), abs(t.image[n + i])));
    const Real share(kShare);  // of summands: what they leave by rounding is far below it, what they hide is not
    for (int j = 0; j < n; ++j) {
        const Real xj = abs(x[j]);
        Real largest = Real(0.0);
        for (int k : each(view.a_start[j], view.a_start[j + 1])) {
            const int i = view.a_row[k];
            const Real a = share * abs(w.a[k]);
            size[n + i] = max(size[n + i], a * xj);
            largest = max(largest, a * abs(y[i]));
        }
        for (int k : each(view.p_start[j], view.p_start[j + 1])) {
            const int i = view.p_row[k];
            const Real p = share * abs(w.p[k]);
            size[i] = max(size[i], p * xj);
            largest = max(largest, p * abs(x[i]));
        }
        largest = all_max(largest);
        alone([&] { size[j] = max(size[j], largest); });
    }
    for (int b = 0; b < view.cone.blocks; ++b) {
        const ProjectionBlock& block = view.cone.block[b];
        if (is_polyhedral(block.kind)) continue;
        Real largest = Real(0.0);
        for (int i : each(block.dim)) largest = max(largest, size[n + block.first + i]);
        largest = all_max(largest);
        for (int i : each(block.dim)) size[n + block.first + i] = largest;
    }
}

// What is usual for each row, n + m, from the sizes of all rows: an unknown is as large as the smallest of its rows would let it
// be, those without a size apart; a row is as large as its unknowns can make it. unknown: what is usual for x and y, n + m;
// largest: n + m packs of scratch.
template <class Real>
CL_HD inline void usual_sizes(const DerivativeView& view, const DerivativeWork<Real>& w, Arr<Real> size, Arr<Real> usual,
                              Arr<Real> unknown, Arr<Real> largest) {
    const int n = view.n, m = view.m;
    const Real none(1e300), zero(0.0), one(1.0), unusual(kUnusual);
    for (int k : each(n + m)) usual[k] = zero, largest[k] = zero, unknown[k] = none;
    for (int j = 0; j < n; ++j) {
        Real most = zero;
        for (int k : each(view.a_start[j], view.a_start[j + 1])) {
            const int i = view.a_row[k];
            const Real a = abs(w.a[k]);
            const Real inverse = select(a > zero, one / a, zero);
            most = max(most, size[n + i] * inverse);
            largest[n + i] = max(largest[n + i], size[j] * inverse);
        }
        most = all_max(most);
        alone([&] { largest[j] = most; });
    }
    for (int j = 0; j < n; ++j) {
        const Real limit = unusual * min(largest[j], one);
        Real least = none;
        for (int k : each(view.a_start[j], view.a_start[j + 1])) {
            const int i = view.a_row[k];
            const Real a = abs(w.a[k]);
            const Real inverse = select(a > zero, one / a, none);
            const Real of_x = size[n + i] * inverse, of_y = size[j] * inverse;
            least = min(least, select(of_x >= limit, of_x, none));
            unknown[n + i] = min(unknown[n + i], select(of_y >= unusual * min(largest[n + i], one), of_y, none));
        }
        least = all_min(least);
        alone([&] { unknown[j] = least; });
    }
    for (int k : each(n + m)) unknown[k] = select(unknown[k] < none, unknown[k], zero);
    for (int j = 0; j < n; ++j) {
        const Real x = unknown[j];
        Real most = zero;
        for (int k : each(view.a_start[j], view.a_start[j + 1])) {
            const int i = view.a_row[k];
            const Real a = abs(w.a[k]);
            usual[n + i] = max(usual[n + i], a * x);
            most = max(most, a * unknown[n + i]);
        }
        most = all_max(most);
        alone([&] { usual[j] = most; });
    }
}

// What counts as one in the rows of A and in those of P: less than one where all of a programme is small and its data say so.
template <class Real>
struct RowUnits {
    Real primal, dual;
};

template <class Real, class Work>
CL_HD inline RowUnits<Real> row_units(const DerivativeView& view, const Work& t, Arr<Real> size) {
    const Real nothing(kNothing), one(1.0);
    Real q(0.0), b(0.0), dual(0.0), primal(0.0);
    for (int j : each(view.n)) q = max(q, abs(t.q[j])), dual = max(dual, size[j]);
    for (int i : each(view.m)) b = max(b, abs(t.b[i])), primal = max(primal, size[view.n + i]);
    join_max(q, b, dual, primal);
    return {select(b > nothing, min(primal, one), one), select(q > nothing, min(dual, one), one)};
}

// The largest |s'y| of a block, against the usual sizes of its slacks and multipliers or one: the blocks of a small part of the
// programme answer for themselves. size, usual: those of the rows of A; of_y: what is usual for y.
template <class Real>
CL_HD inline Real complementarity(const DerivativeView& view, Arr<Real> y, Arr<Real> s, Arr<Real> size, Arr<Real> usual,
                                  Arr<Real> of_y, const RowUnits<Real>& unit) {
    Real worst(0.0);
    for (int b = 0; b < view.cone.blocks; ++b) {
        const ProjectionBlock& block = view.cone.block[b];
        if (block.kind == kZeroBlock || block.kind == kFreeBlock) continue;
        if (block.kind == kNonnegativeBlock) {
            for (int i : each(block.first, block.first + block.dim)) {
                const Real slack = max(unit.primal, max(size[i], usual[i]));
                const Real price = max(unit.dual, max(abs(y[i]), of_y[i]));
                worst = max(worst, abs(s[i] * y[i]) / (slack * price));
            }
            continue;
        }
        Real product(0.0), slack = unit.primal, price = unit.dual;
        for (int i : each(block.first, block.first + block.dim)) {
            product += s[i] * y[i];
            slack = max(slack, max(size[i], usual[i])), price = max(price, max(abs(y[i]), of_y[i]));
        }
        join_max(slack, price), join_sum(product);
        worst = max(worst, abs(product) / (slack * price));
    }
    return all_max(worst);
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

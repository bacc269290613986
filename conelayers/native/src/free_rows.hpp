// Rows without a bound: inequalities whose right-hand side stands for infinity. They constrain nothing, but their size would
// decide every norm, so the solver does not see them.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine_kernels.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// a'x <= b constrains nothing if b is at least this many times the largest entry of a, and of 1.
constexpr double kNoBound = 1e20;

// Whether a nonnegative row has a right-hand side of that size; bound(i) is the one of row i.
template <class Bound>
bool some_large(const EngineView& view, const Bound& bound) {
    for (int k = 0; k < view.cones; ++k) {
        const ConeBlock& c = view.cone[k];
        if (c.kind != kNonnegative) continue;
        for (int i = c.row; i < c.row + c.dim; ++i)
            if (bound(i) >= kNoBound) return true;
    }
    return false;
}

// Marks the rows without a bound of one programme; entry(e) is the e-th value of A.
template <class Entry, class Bound>
std::vector<char> free_rows(const EngineView& view, const Entry& entry, const Bound& bound) {
    std::vector<double> largest(view.m, 1.0);
    for (int e = 0; e < view.A_nnz; ++e) {
        double& row = largest[view.A_row[e]];
        row = std::max(row, std::abs(entry(e)));
    }
    std::vector<char> free(view.m, 0);
    for (int k = 0; k < view.cones; ++k) {
        const ConeBlock& c = view.cone[k];
        if (c.kind != kNonnegative) continue;
        for (int i = c.row; i < c.row + c.dim; ++i) free[i] = bound(i) >= kNoBound * largest[i];
    }
    return free;
}

// Such rows become 0 x + s = 1 in the lanes that have them.
template <class Real>
void drop_free_rows(const EngineView& view, Real* A, Real* b) {
    for (int l = 0; l < lanes<Real>; ++l) {
        const auto bound = [&](int i) { return get_lane(b[i], l); };
        if (!some_large(view, bound)) continue;
        const std::vector<char> free = free_rows(view, [&](int e) { return get_lane(A[e], l); }, bound);
        for (int e = 0; e < view.A_nnz; ++e)
            if (free[view.A_row[e]]) set_lane(A[e], l, 0.0);
        for (int i = 0; i < view.m; ++i)
            if (free[i]) set_lane(b[i], l, 1.0);
    }
}

// The slack of a row that was dropped is its bound, or large where that is infinite: it may yet be squared.
inline void restore_free_rows(const EngineProblem& problem, int item) {
    const EngineView& view = *problem.view;
    const double* A = problem.A.data + problem.A.stride * item;
    const double* b = problem.b.data + problem.b.stride * item;
    const auto bound = [&](int i) { return b[i]; };
    if (!some_large(view, bound)) return;
    const std::vector<char> free = free_rows(view, [&](int e) { return A[e]; }, bound);
    for (int i = 0; i < view.m; ++i) {
        if (!free[i]) continue;
        problem.result.s[(long long)view.m * item + i] = b[i] < HUGE_VAL ? b[i] : kNoBound;
        problem.result.y[(long long)view.m * item + i] = 0.0;
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

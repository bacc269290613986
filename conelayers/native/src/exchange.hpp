// Between the rows of a batch and the lanes of a pack: which items a pack takes, their programmes, their results.
#pragma once

#include "conelayers/interleave.hpp"
#include "engine_kernels.hpp"
#include "free_rows.hpp"

namespace conelayers {
inline namespace CONELAYERS_ARCH {

// As many items as there are lanes, or are left, from the given one on.
template <class Real>
PackItems<Real> items_from(const EngineProblem& problem, int first) {
    const int left = problem.items - first;
    PackItems<Real> items(first, left < lanes<Real> ? left : lanes<Real>);
    if (problem.chosen != nullptr)
        for (int& item : items.item) item = problem.chosen[item];
    return items;
}

// Which lanes have finite values throughout.
template <class Real>
Mask<Real> finite_rows(long long count, const Real* values) {
    Real sum(0.0);
    for (long long e = 0; e < count; ++e) sum += values[e] * Real(0.0);
    return sum == Real(0.0);
}

// Read rows, and the same of them.
template <class Real>
Mask<Real> read_rows(const Rows& rows, const PackItems<Real>& items, long long count, Real* to) {
    interleave<Real>(rows.data, rows.stride, items, count, to);
    return finite_rows(count, to);
}

// P, q, A and b; which lanes have a programme of finite numbers.
template <class Real>
Mask<Real> read_programme(const EngineProblem& problem, const PackItems<Real>& items, Real* P, Real* q, Real* A, Real* b) {
    const EngineView& view = *problem.view;
    Mask<Real> usable = Real(0.0) == Real(0.0);
    for (int l = 0; l < lanes<Real>; ++l) set_mask(usable, l, items.occupied[l]);
    usable = mask_and(usable, read_rows(problem.P, items, view.P_nnz, P));
    usable = mask_and(usable, read_rows(problem.q, items, view.n, q));
    usable = mask_and(usable, read_rows(problem.A, items, view.A_nnz, A));
    interleave<Real>(problem.b.data, problem.b.stride, items, view.m, b);
    drop_free_rows<Real>(view, A, b);  // among them the infinite ones
    return mask_and(usable, finite_rows(view.m, b));
}

template <class Real>
struct PackPoint {
    const Real *x, *y, *s;
};

template <class Real>
void store(const EngineProblem& problem, const PackItems<Real>& items, const PackPoint<Real>& point,
           const Real (&residual)[3], const Real& status, const Real& iteration) {
    const EngineView& view = *problem.view;
    const EngineResult& out = problem.result;
    deinterleave<Real>(point.x, view.n, items, out.x, view.n);
    deinterleave<Real>(point.y, view.m, items, out.y, view.m);
    deinterleave<Real>(point.s, view.m, items, out.s, view.m);
    for (int l = 0; l < lanes<Real>; ++l) {
        if (!items.occupied[l]) continue;
        const int item = items.item[l];
        if (get_lane(status, l) <= kInaccurate) restore_free_rows(problem, item);
        out.status[item] = static_cast<signed char>(get_lane(status, l));
        out.iterations[item] = static_cast<long long>(get_lane(iteration, l));
        out.primal_residual[item] = get_lane(residual[0], l);
        out.dual_residual[item] = get_lane(residual[1], l);
        out.gap[item] = get_lane(residual[2], l);
    }
}

}  // namespace CONELAYERS_ARCH
}  // namespace conelayers

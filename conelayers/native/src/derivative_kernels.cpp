// Compiled once per instruction set (see CMakeLists.txt).
#include "derivative_kernels.hpp"

#include <algorithm>
#include <cmath>

#include "conelayers/interleave.hpp"
#include "conelayers/polish.hpp"
#include "conelayers/reverse.hpp"
#include "conelayers/several.hpp"

namespace conelayers {
namespace CONELAYERS_KERNELS {
namespace {

template <class Real>
void load(const Rows& rows, PackRange range, long long count, Real* out) {
    interleave<Real>(rows.data, rows.stride, PackItems<Real>(range.first, range.items), count, out);
}

template <class Real>
void store(const Real* in, PackRange range, long long count, double* out) {
    deinterleave<Real>(in, count, PackItems<Real>(range.first, range.items), out, count);
}

constexpr int kTogether = 4;  // right-hand sides at a time

template <class Real>
long long work_size(const DerivativeView& view) {
    const DerivativeWork<Real> work(view, nullptr, true);
    const PolishWork<Real> polish_work(view, nullptr, true);
    const SeveralWork<Real, kTogether> several(view, nullptr, true);
    return (work.size + std::max(polish_work.size, several.size)) * lanes<Real>;
}

template <class Real>
DerivativeWork<Real> prepare(const DerivativeView& view, const DerivativeProblem& problem, PackRange range,
                             double* memory) {
    const DerivativeWork<Real> work(view, reinterpret_cast<Real*>(memory));
    load(problem.v, range, view.m, work.v);
    for (int i = 0; i < view.m; ++i) work.image[i] = Real(0.0);
    projection::project_dual<Real>(view.cone, work.v, work.image, problem.mu, work.y, work.element, work.scratch);
    return work;
}

template <class Real>
void factor(const DerivativeView& view, const DerivativeProblem& problem, PackRange range,
            const DerivativeWork<Real>& work) {
    load(problem.p, range, view.p_entries, work.p);
    load(problem.a, range, view.a_entries, work.a);
    derivative_scale(view, work);
    derivative_factor(view, work);
}

// Where the residual of right-hand side q of `count` is too large: the shortest solution, after derivative_factor_wide.
template <class Real>
void solve_shortest(const DerivativeView& view, const DerivativeWork<Real>& work, PackRange range, int count, int q,
                    const double* r1, const double* r2, double* dx, double* dv, double* residual) {
    const long long n = view.n, m = view.m;
    const PackItems<Real> items(range.first, range.items);
    Real before;
    load(Rows{residual + q, count}, range, 1, &before);
    const auto lost = mask_not(before <= Real(kAccepted));
    if (!any_lane(lost)) return;
    load(Rows{r1 + q * n, count * n}, range, n, work.rhs);
    load(Rows{r2 + q * m, count * m}, range, m, work.rhs + n);
    load(Rows{dx + q * n, count * n}, range, n, work.solution);
    load(Rows{dv + q * m, count * m}, range, m, work.solution + n);
    const Real relative = least_norm_solve<Real>(view, work, lost, before);
    deinterleave<Real>(work.solution, n, items, dx + q * n, count * n);
    deinterleave<Real>(work.solution + n, m, items, dv + q * m, count * m);
    deinterleave<Real>(&relative, 1, items, residual + q, count);
}

template <class Real>
void solve(const DerivativeView& view, const DerivativeProblem& problem, PackRange range, int count, const double* r1,
           const double* r2, double* dx, double* dv, double* residual, double* memory) {
    const DerivativeWork<Real> work = prepare<Real>(view, problem, range, memory);
    factor(view, problem, range, work);
    const long long n = view.n, m = view.m;
    const PackItems<Real> items(range.first, range.items);
    const SeveralWork<Real, kTogether> several(view, reinterpret_cast<Real*>(memory) + work.size);
    int q = 0;
    for (; q + kTogether <= count; q += kTogether) {
        Real relative[kTogether];
        for (int k = 0; k < kTogether; ++k) {
            load(Rows{r1 + (q + k) * n, count * n}, range, n, several.rhs + k * (n + m));
            load(Rows{r2 + (q + k) * m, count * m}, range, m, several.rhs + (k * (n + m) + n));
        }
        derivative_solve_several<Real, kTogether>(view, work, several, relative);
        for (int k = 0; k < kTogether; ++k) {
            deinterleave<Real>(several.solution + k * (n + m), n, items, dx + (q + k) * n, count * n);
            deinterleave<Real>(several.solution + (k * (n + m) + n), m, items, dv + (q + k) * m, count * m);
        }
        deinterleave<Real>(relative, kTogether, items, residual + q, count);
    }
    for (; q < count; ++q) {
        load(Rows{r1 + q * n, count * n}, range, n, work.rhs);
        load(Rows{r2 + q * m, count * m}, range, m, work.rhs + n);
        const Real relative = derivative_solve(view, work);
        deinterleave<Real>(work.solution, n, items, dx + q * n, count * n);
        deinterleave<Real>(work.solution + n, m, items, dv + q * m, count * m);
        deinterleave<Real>(&relative, 1, items, residual + q, count);
    }
    double worst = 0.0;
    for (long long k = range.first * (long long)count; k < (range.first + range.items) * (long long)count; ++k)
        if (!(residual[k] <= worst)) worst = residual[k] <= HUGE_VAL ? residual[k] : HUGE_VAL;
    if (worst <= kAccepted) return;
    derivative_factor_wide(view, work);
    for (q = 0; q < count; ++q) solve_shortest<Real>(view, work, range, count, q, r1, r2, dx, dv, residual);
}

template <class Real>
void apply(const DerivativeView& view, const DerivativeProblem& problem, PackRange range, int count, const double* u,
           double* out, double* memory) {
    const DerivativeWork<Real> work = prepare<Real>(view, problem, range, memory);
    const long long m = view.m;
    for (int q = 0; q < count; ++q) {
        load(Rows{u + q * m, count * m}, range, m, work.rhs);
        projection::apply_derivative<Real>(view.cone, work.element, work.rhs, work.solution, work.scratch);
        deinterleave<Real>(work.solution, m, PackItems<Real>(range.first, range.items), out + q * m, count * m);
    }
}

template <class Real>
void project(const DerivativeView& view, const DerivativeProblem& problem, PackRange range, double* out,
             double* memory) {
    const DerivativeWork<Real> work = prepare<Real>(view, problem, range, memory);
    store(work.y, range, view.m, out);
}

// D at v = y - s; knowing s spares the search for the projection.
template <class Real>
void prepare_at(const DerivativeView& view, double mu, PackRange range, const Rows& y_rows, const Rows& s_rows, Real* y,
                Real* s, const DerivativeWork<Real>& work) {
    load(y_rows, range, view.m, y);
    load(s_rows, range, view.m, s);
    for (int i = 0; i < view.m; ++i) work.v[i] = y[i] - s[i];
    projection::project_dual<Real>(view.cone, work.v, s, mu, work.y, work.element, work.scratch);
}

template <class Real>
void probe(const DerivativeView& view, const DerivativeProblem& problem, PackRange range, const ProbeData& data,
           double* memory) {
    const DerivativeWork<Real> work(view, reinterpret_cast<Real*>(memory));
    const PolishWork<Real> extra(view, reinterpret_cast<Real*>(memory) + work.size);
    prepare_at<Real>(view, problem.mu, range, data.y, data.s, extra.best_y, extra.s, work);
    factor(view, problem, range, work);
    const int size = view.n + view.m;
    for (int k = 0; k < size; ++k) work.rhs[k] = Real(data.rhs[k]);
    const Real residual = derivative_solve(view, work, data.accuracy, 1);
    Real square = Real(0.0);
    for (int k = 0; k < size; ++k) square = square + work.solution[k] * work.solution[k];
    const Real length = sqrt(square);
    store(&length, range, 1, data.length);
    store(&residual, range, 1, data.residual);
}

// The values of one direction for all items, or of one for each.
template <class Real>
struct SharedDirection {
    const double* values;
    Real operator()(long long k) const { return Real(values[k]); }
    bool rests(long long k) const { return values[k] == 0.0; }
};

template <class Real>
struct OwnDirections {
    const double* values;
    long long stride;
    PackItems<Real> items;
    Real operator()(long long k) const {
        Real r(0.0);
        for (int l = 0; l < lanes<Real>; ++l) set_lane(r, l, values[stride * items.item[l] + k]);
        return r;
    }
    bool rests(long long) const { return false; }
};

// The reverse mode, and along a direction if there is one.
template <class Real>
Real pull(const DerivativeView& view, const DerivativeWork<Real>& work, PackRange range, const PullbackData& data,
          Real* s_cotangent, Real* nu, Real* x, Real* y) {
    const double* values = data.direction.data;
    if (values == nullptr) return derivative_pullback<Real>(view, work, s_cotangent, nu);
    Outside<Real> outside;
    const auto along = [&](const auto& at) {
        return derivative_pullback_along<Real>(view, work, s_cotangent, nu, x, y, at, outside);
    };
    const long long stride = data.direction.stride;
    const Real residual = stride == 0 ? along(SharedDirection<Real>{values})
                                      : along(OwnDirections<Real>{values, stride, PackItems<Real>(range.first, range.items)});
    const Real both[2] = {outside.primal, outside.dual};
    store(both, range, 2, data.outside);
    return residual;
}

template <class Real>
void pullback(const DerivativeView& view, const DerivativeProblem& problem, PackRange range, const PullbackData& data,
              double* memory) {
    const long long n = view.n, m = view.m;
    const DerivativeWork<Real> work(view, reinterpret_cast<Real*>(memory));
    const PolishWork<Real> extra(view, reinterpret_cast<Real*>(memory) + work.size);
    Real *x = extra.x, *y = extra.best_y, *s_cotangent = extra.b, *nu = extra.best_v;
    prepare_at<Real>(view, problem.mu, range, data.y, data.s, y, extra.s, work);
    factor(view, problem, range, work);
    load(data.x, range, n, x);
    load(data.x_cotangent, range, n, work.rhs);
    load(data.y_cotangent, range, m, work.rhs + n);
    load(data.s_cotangent, range, m, s_cotangent);
    const Real residual = pull<Real>(view, work, range, data, s_cotangent, nu, x, y);
    pattern_gradients<Real>(view, work, x, y, nu);
    store(work.p, range, view.p_entries, data.dp);
    store(work.a, range, view.a_entries, data.da);
    store(nu, range, m, data.db);
    store(work.solution, range, n, data.lambda);
    store(work.solution + n, range, m, data.u);
    for (int j = 0; j < n; ++j) work.solution[j] = -work.solution[j];
    store(work.solution, range, n, data.dq);
    store(&residual, range, 1, data.residual);
}

template <class Real>
void polish_items(const DerivativeView& view, PackRange range, const PolishData& data, double* memory) {
    const long long n = view.n, m = view.m;
    const DerivativeWork<Real> work(view, reinterpret_cast<Real*>(memory));
    PolishWork<Real> extra(view, reinterpret_cast<Real*>(memory) + work.size);
    load(data.p, range, view.p_entries, work.p);
    load(data.a, range, view.a_entries, work.a);
    load(data.q, range, n, extra.q);
    load(data.b, range, m, extra.b);
    load(data.x, range, n, extra.x);
    load(data.y, range, m, extra.v);
    load(data.s, range, m, extra.s);
    const Mask<Real> every = Real(0.0) == Real(0.0);
    for (int i = 0; i < view.m; ++i) extra.unit[i] = Real(1.0);
    const Real residual = polish<Real>(view, work, extra, every, PolishRule{data.steps, data.target, 1e-8, 3});
    store(extra.best_x, range, n, data.x_out);
    store(extra.best_y, range, m, data.y_out);
    store(extra.s, range, m, data.s_out);
    store(&residual, range, 1, data.residual);
    Real relative[3];
    relative_residuals<Real>(view, work, extra, extra.best_x, extra.best_y, extra.s, relative);
    store(relative, range, 3, data.relative);
}

template <class Real>
constexpr DerivativeKernels kernels() {
    return {lanes<Real>,    &work_size<Real>, &solve<Real>, &apply<Real>,
            &project<Real>, &pullback<Real>,  &probe<Real>, &polish_items<Real>};
}

}  // namespace

#if defined(__AVX512F__)
using Wide = pack<8>;
#else
using Wide = pack<4>;
#endif

extern const DerivativeKernels derivative_pack, derivative_single;
const DerivativeKernels derivative_pack = kernels<Wide>();
const DerivativeKernels derivative_single = kernels<double>();

}  // namespace CONELAYERS_KERNELS
}  // namespace conelayers

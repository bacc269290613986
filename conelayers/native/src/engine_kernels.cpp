// Compiled once per instruction set (see CMakeLists.txt).
#include "engine_kernels.hpp"

#include "conelayers/interior_point.hpp"
#include "conelayers/interleave.hpp"

namespace conelayers {
namespace CONELAYERS_KERNELS {
namespace {

template <class Real>
long long scratch(const EngineView& view, const EngineSettings& settings) {
    Arena<Real> arena{nullptr, true};
    InteriorPoint<Real> count(view, settings, arena);
    return arena.used * lanes<Real>;
}

// Load rows; returns the lanes whose values are all finite, others are set to zero.
template <class Real>
Mask<Real> load(const double* data, long long stride, long long count, int first, int items, Real* out,
                const Mask<Real>& usable) {
    interleave<Real>(ItemRows{data, stride, first, items}, count, out);
    Real sum(0.0);
    for (long long e = 0; e < count; ++e) sum += out[e] * Real(0.0);
    return mask_and(usable, sum == Real(0.0));
}

template <class Real>
void clear(Real* values, long long count, const Mask<Real>& usable) {
    if (all_lanes(usable)) return;
    for (long long e = 0; e < count; ++e) values[e] = select(usable, values[e], Real(0.0));
}

template <class Real>
void solve(const EngineView& view, const EngineSettings& settings, const EngineData& data, int first, int items,
           double* scratch, const EngineResult& out) {
    Arena<Real> arena{reinterpret_cast<Real*>(scratch), false};
    InteriorPoint<Real> ip(view, settings, arena);
    Mask<Real> usable = Real(0.0) == Real(0.0);
    for (int l = items; l < lanes<Real>; ++l) set_mask(usable, l, false);
    usable = load<Real>(data.P, data.P_stride, view.P_nnz, first, items, ip.p.P, usable);
    usable = load<Real>(data.q, data.q_stride, view.n, first, items, ip.p.q, usable);
    usable = load<Real>(data.A, data.A_stride, view.A_nnz, first, items, ip.p.A, usable);
    usable = load<Real>(data.b, data.b_stride, view.m, first, items, ip.p.b, usable);
    clear<Real>(ip.p.P, view.P_nnz, usable);
    clear<Real>(ip.p.q, view.n, usable);
    clear<Real>(ip.p.A, view.A_nnz, usable);
    clear<Real>(ip.p.b, view.m, usable);
    ip.run(usable);
    deinterleave<Real>(ip.x, view.n, out.x, view.n, first, items);
    deinterleave<Real>(ip.z, view.m, out.y, view.m, first, items);
    deinterleave<Real>(ip.s, view.m, out.s, view.m, first, items);
    for (int l = 0; l < items; ++l) {
        out.status[first + l] = static_cast<signed char>(get_lane(ip.status, l));
        out.iterations[first + l] = static_cast<long long>(get_lane(ip.iteration, l));
        out.primal_residual[first + l] = get_lane(ip.last.primal, l);
        out.dual_residual[first + l] = get_lane(ip.last.dual, l);
        out.gap[first + l] = get_lane(ip.last.gap, l);
    }
}

#if defined(__AVX512F__)
using Wide = pack<8>;
#else
using Wide = pack<4>;
#endif

}  // namespace

extern const EngineKernels engine_pack, engine_single;
const EngineKernels engine_pack = {lanes<Wide>, &scratch<Wide>, &solve<Wide>};
const EngineKernels engine_single = {1, &scratch<double>, &solve<double>};

}  // namespace CONELAYERS_KERNELS
}  // namespace conelayers

// Compiled once per instruction set (see CMakeLists.txt).
#include "ldlt_kernels.hpp"

#include "conelayers/interleave.hpp"
#include "conelayers/ldlt.hpp"
#include "conelayers/ldlt_solve.hpp"

namespace conelayers {
namespace CONELAYERS_KERNELS {
namespace {

template <class Real>
void factor(const LdltView& view, const double* values, long long stride, int first, int items, double* factor,
            double* inverse, double* work, const signed char* signs, const PivotRule& rule) {
    constexpr int W = lanes<Real>;
    const PackItems<Real> lane(first, items);
    const double* row[W];
    for (int l = 0; l < W; ++l) row[l] = values + stride * lane.item[l];
    Real* f = reinterpret_cast<Real*>(factor);
    ldlt_clear<Real>(view, f);
    for (int e = 0; e < view.entries; ++e) {
        Real r(0.0);
        for (int l = 0; l < W; ++l) set_lane(r, l, row[l][e]);
        f[view.position[e]] = r;
    }
    ldlt_factor<Real>(view, f, reinterpret_cast<Real*>(inverse), reinterpret_cast<Real*>(work), signs, rule);
}

template <class Real>
void solve(const LdltView& view, const double* factor, const double* inverse, const double* rhs, int count,
           int first, int items, double* solution, double* work) {
    const long long n = view.n, stride = n * count;
    Real* f = reinterpret_cast<Real*>(const_cast<double*>(factor));
    Real* inv = reinterpret_cast<Real*>(const_cast<double*>(inverse));
    Real* x = reinterpret_cast<Real*>(work);  // 4 n packs
    const PackItems<Real> lane(first, items);
    for (int q = 0; q < count;) {
        const int block = count - q >= 2 ? 2 : 1;
        interleave<Real>(rhs + q * n, stride, lane, n * block, x + 2 * n);
        if (block == 2) ldlt_solve<Real, 2>(view, f, inv, x + 2 * n, x + 2 * n, x);
        else ldlt_solve<Real, 1>(view, f, inv, x + 2 * n, x + 2 * n, x);
        deinterleave<Real>(x + 2 * n, n * block, lane, solution + q * n, stride);
        q += block;
    }
}

}  // namespace

#if defined(__AVX512F__)
using Wide = pack<8>;
#else
using Wide = pack<4>;
#endif

extern const LdltKernels ldlt_pack, ldlt_single;
const LdltKernels ldlt_pack = {lanes<Wide>, &factor<Wide>, &solve<Wide>};
const LdltKernels ldlt_single = {1, &factor<double>, &solve<double>};

}  // namespace CONELAYERS_KERNELS
}  // namespace conelayers

// Compiled once per instruction set (see CMakeLists.txt).
#include "worker.hpp"

namespace conelayers {
namespace CONELAYERS_KERNELS {
namespace {

template <class Real>
long long scratch(const EngineProblem& problem) {
    return WorkerSizes<Real>(problem).total() * lanes<Real>;
}

template <class Real>
void solve(const EngineProblem& problem, std::atomic<int>& next, double* memory) {
    const WorkerSizes<Real> sizes(problem);
    Worker<Real>(problem, sizes, reinterpret_cast<Real*>(memory)).run(next);
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
